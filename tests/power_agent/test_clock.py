from __future__ import annotations

import select
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_clock import SimulatedClock

from power_agent.clock import ClockPair, HostClock, ScaledClock, Wake, make_clock, read_pair, wall_step_ns
from power_agent.messages import ReplayClockSpec

S = 1_000_000_000
SPEC = ReplayClockSpec(monotonic_origin_ns=100 * S, wall_origin_ns=1_600_000_000 * S, speed=10.0)


@pytest.fixture
def wake() -> Iterator[Wake]:
    made = Wake()
    yield made
    made.close()


def test_a_scaled_clock_follows_its_formula() -> None:
    clock = ScaledClock(SPEC, host_monotonic_ns=lambda: 103 * S)
    assert clock.monotonic_ns() == 130 * S
    assert clock.wall_ns() == 1_600_000_030 * S
    assert 5 * S * clock.real_s_per_ns == pytest.approx(0.5)


@settings(deadline=None)
@given(st.floats(0.01, 1e4), st.integers(0, 10**16), st.integers(0, 10**9))
def test_a_scaled_clock_never_goes_back(speed: float, host_ns: int, later_ns: int) -> None:
    spec = ReplayClockSpec(monotonic_origin_ns=7, wall_origin_ns=0, speed=speed)
    before = ScaledClock(spec, host_monotonic_ns=lambda: host_ns).monotonic_ns()
    assert ScaledClock(spec, host_monotonic_ns=lambda: host_ns + later_ns).monotonic_ns() >= before


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_speed_is_refused(speed: float) -> None:
    with pytest.raises(ValueError, match="speed of a replay"):
        make_clock(ReplayClockSpec(monotonic_origin_ns=0, wall_origin_ns=0, speed=speed))


def test_a_host_clock_is_the_hosts() -> None:
    clock = make_clock(None)
    before_ns, now_ns, after_ns = time.monotonic_ns(), clock.monotonic_ns(), time.monotonic_ns()
    assert before_ns <= now_ns <= after_ns
    assert time.time_ns() <= clock.wall_ns() <= time.time_ns()


@pytest.mark.parametrize("ahead_ns", [2_000_000, 30_000_000], ids=["plain sleep", "interruptible"])
def test_waiting_lasts_until_the_deadline(ahead_ns: int, wake: Wake) -> None:
    clock = HostClock()
    deadline_ns = clock.monotonic_ns() + ahead_ns
    clock.wait_until(deadline_ns, wake)
    assert clock.monotonic_ns() >= deadline_ns


def test_a_scaled_wait_is_short_for_the_host(wake: Wake) -> None:
    origin_ns = time.monotonic_ns()
    spec = ReplayClockSpec(monotonic_origin_ns=origin_ns, wall_origin_ns=0, speed=1e6)
    clock = make_clock(spec)
    clock.wait_until(origin_ns + 3600 * S, wake)  # 3.6 ms; unscaled, the test would last an hour
    assert clock.monotonic_ns() >= origin_ns + 3600 * S


def test_a_raised_flag_ends_a_long_wait(wake: Wake) -> None:
    wake.set()
    HostClock().wait_until(None, wake)
    HostClock().wait_until(time.monotonic_ns() + 3600 * S, wake)
    assert wake.raised
    wake.clear()
    wake.clear()
    assert not wake.raised
    assert select.select([wake.fd], [], [], 0) == ([], [], [])


def test_the_least_interrupted_of_several_pairs_is_kept() -> None:
    class Interrupted(SimulatedClock):
        brackets = iter([900, 40, 500])

        def wall_ns(self) -> int:
            bracket = next(self.brackets)
            self.now_ns += bracket // 2
            wall_ns = super().wall_ns()
            self.now_ns += bracket - bracket // 2
            return wall_ns

    clock = Interrupted(now_ns=0)
    # The tries take 0…900, 900…940 and 940…1440.
    assert read_pair(clock) == ClockPair(920, 1_700_000_000_000_000_920, 40)


@pytest.mark.parametrize(
    ("wall_change_ns", "step_ns"),
    [
        (S, 0),
        (S + 400_000, 0),  # 400 ppm: NTP slews
        (S + 10_400_000, 0),  # slewing and the threshold together
        (S + 12_000_000, 12_000_000),
        (S - 12_000_000, -12_000_000),
        (3601 * S, 3600 * S),
        (-3599 * S, -3600 * S),
    ],
)
def test_a_step_of_the_wall_clock_is_told_from_slewing(wall_change_ns: int, step_ns: int) -> None:
    before = ClockPair(50 * S, 1000 * S, 200)
    assert wall_step_ns(before, ClockPair(51 * S, 1000 * S + wall_change_ns, 200)) == step_ns


def test_a_pair_that_took_long_explains_a_change() -> None:
    before = ClockPair(50 * S, 1000 * S, 200)
    after = ClockPair(51 * S, 1001 * S + 30_000_000, 60_000_000)  # read within ± 30 ms
    assert wall_step_ns(before, after) == 0
