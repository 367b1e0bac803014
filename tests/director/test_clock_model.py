"""Clock models against clocks of known offset: it lies within the bound, and the bound is no wider than due."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_network import Delay, S, SimulatedHost, exchanges, fixed, jittery

from director.session.clock_model import UNSEEN_NS, UNSEEN_RATE, WANDER, Instants, SyncedClock
from director.session.sync_file import Exchanges

QUIET = jittery(0.1, 0.02)
NETWORKS: dict[str, tuple[Delay, Delay, float]] = {
    "quiet": (QUIET, QUIET, 0.0),
    "10 ms of jitter": (jittery(0.2, 10), jittery(0.2, 10), 0.0),
    "a third is lost": (jittery(0.2, 1), jittery(0.2, 1), 1 / 3),
    "asymmetric by 5 ms": (jittery(5.2, 0.1), jittery(0.2, 0.1), 0.0),
    "all of that": (jittery(5.2, 10), jittery(0.2, 10), 1 / 3),
}


def ints(*values: int) -> Instants:
    return np.array(values, np.int64)


def joined(*parts: Exchanges) -> Exchanges:
    return Exchanges(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("t1", "t2", "t3", "t4")))


def errors(model: SyncedClock, host: SimulatedHost, begin_s: float, end_s: float) -> tuple[Instants, Instants]:
    """How far the model is off at instants all over a time, and its bounds there."""
    at = host.begin_ns + (np.arange(begin_s, end_s, 0.37) * S).astype(np.int64)
    session, bound = model.to_session(host.at(at))
    return np.abs(session - at), bound


def least_half_trips(found: Exchanges) -> Instants:
    """Of each burst, half the least round trip: what the exchange of the minimum alone can tell."""
    trips = (found.t4 - found.t1) - (found.t3 - found.t2)
    begins = np.flatnonzero(np.diff(found.t1, prepend=found.t1[0] - 10 * S) > 2 * S)
    return np.minimum.reduceat(trips, begins) // 2


@pytest.mark.parametrize("drift", [-50e-6, 0.0, 50e-6])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_truth_lies_within_the_bound(network: str, drift: float) -> None:
    there, back, loss = NETWORKS[network]
    host = SimulatedHost(drift=drift, wander=2e-6)
    found = exchanges(host, 1200, there, back, loss=loss, seed=round(drift * 1e6) + 60)
    model = SyncedClock(found)
    off, bound = errors(model, host, 0, 1200)
    assert (off <= bound).mean() >= 0.99
    # In each exchange, too.
    mine = np.abs(model.to_session(found.t1)[0] - (host.begin_ns + _reference_since(host, found.t1)))
    assert (mine <= model.bound(found.t1)).mean() >= 0.99
    rate, wander = model.drift
    assert rate == pytest.approx(-drift, abs=wander)


def _reference_since(host: SimulatedHost, host_ns: Instants) -> Instants:
    """Inverse of `SimulatedHost.at`, by bisection."""
    low, high = np.zeros(len(host_ns), np.int64), np.full(len(host_ns), 10_000 * S)
    while (high - low > 1).any():
        middle = (low + high) // 2
        later = host.at(host.begin_ns + middle) > host_ns
        low, high = np.where(later, low, middle), np.where(later, middle, high)
    return low


@pytest.mark.parametrize("network", NETWORKS)
def test_the_bound_is_no_wider_than_the_least_round_trips_and_the_drift_since(network: str) -> None:
    there, back, loss = NETWORKS[network]
    host = SimulatedHost(drift=30e-6, wander=2e-6)
    found = exchanges(host, 1200, there, back, loss=loss)
    _, bound = errors(SyncedClock(found), host, 2, 1198)
    half = least_half_trips(found)
    _, wander = SyncedClock(found).drift
    # Half-way between bursts 4 s apart lie 2 s; a burst with losses lasts some seconds longer.
    assert np.median(bound) <= np.median(half) + wander * 4 * S
    # At its best, a network of fixed and equal delays leaves exactly that delay.
    still = exchanges(SimulatedHost(), 1200, fixed(0.5), fixed(0.5))
    at_bursts = SyncedClock(still).bound(still.t1)
    assert at_bursts.min() >= 500_000 * 0.999
    assert at_bursts.max() <= 500_000 + WANDER * S + 1000 * 1e-9 * 500_000 + 100


def test_an_asymmetric_network_is_off_by_half_of_the_asymmetry_and_says_so() -> None:
    host = SimulatedHost()
    model = SyncedClock(exchanges(host, 100, fixed(5.2), fixed(0.2)))
    off, bound = errors(model, host, 1, 99)
    assert off == pytest.approx(2_500_000, abs=20_000)
    # Each way may have taken anything up to 5.4 ms at one time and another: that also blurs the drift.
    assert (bound >= 2_699_000).all() and (bound <= 2_701_000 + 2.2 * S * model.drift[1]).all()
    assert model.drift[1] <= WANDER + 2 * 2_700_000 / (90 * S)


def test_a_stopped_process_is_a_gap_over_which_the_bound_grows() -> None:
    host = SimulatedHost(drift=20e-6, wander=2e-6)
    found = exchanges(host, 300, QUIET, QUIET, silent_s=(100, 130))
    # What was under way when it was stopped takes 30 s.
    slow = exchanges(host, 100.1, fixed(0.1), fixed(30_000), asks=1, period_s=99.5)
    model = SyncedClock(joined(found, slow))
    off, bound = errors(model, host, 0, 300)
    assert (off <= bound).all()
    assert model.jumps == []
    middle = model.bound(host.at(ints(host.begin_ns + 115 * S)))
    assert 15 * S * WANDER <= middle[0] <= 130_000 + 17 * S * model.drift[1]


def test_outside_the_exchanges_the_bound_grows_and_faster_where_nothing_was_seen_for_long() -> None:
    host = SimulatedHost(drift=20e-6)
    model = SyncedClock(exchanges(host, 100, QUIET, QUIET))
    last = host.begin_ns + 100 * S
    near, far, farther = model.bound(host.at(ints(last + 20 * S, last + 40 * S, last + 640 * S))).tolist()
    assert far - near == pytest.approx(20 * S * model.drift[1], rel=0.01)
    unseen = 640 * S - UNSEEN_NS
    assert farther - far == pytest.approx(600 * S * model.drift[1] + UNSEEN_RATE * unseen, rel=0.02)


def test_delayed_exchanges_change_next_to_nothing() -> None:
    host = SimulatedHost(drift=-20e-6, wander=1e-6)
    found = exchanges(host, 100, QUIET, QUIET)
    late = exchanges(host, 100, jittery(50, 300), jittery(50, 300), period_s=7.0, seed=5)
    at = host.at(host.begin_ns + (np.arange(1, 99) * S).astype(np.int64))
    with_late = SyncedClock(joined(found, late))
    assert with_late.bound(at) == pytest.approx(SyncedClock(found).bound(at), rel=0.02)
    assert np.abs(with_late.offset(at) - SyncedClock(found).offset(at)).max() <= 2000  # the drift is of other ones


@pytest.mark.parametrize("lie_ns", [-10 * S, -3_000_000, 700_000, 50_000_000, 3600 * S])
def test_an_exchange_that_lies_can_only_widen(lie_ns: int) -> None:
    host = SimulatedHost(drift=10e-6, wander=1e-6)
    found = exchanges(host, 200, QUIET, QUIET)
    lies = found.t2.copy()
    lies[300] += lie_ns
    off, bound = errors(SyncedClock(Exchanges(found.t1, lies, found.t3 + (lies - found.t2), found.t4)), host, 0, 200)
    assert (off <= bound).all()


def test_what_cannot_have_been_is_no_exchange() -> None:
    with pytest.raises(ValueError, match="no exchange"):
        SyncedClock(Exchanges(ints(10, 10, 1 << 62), ints(5, 5, 0), ints(4, 105, 0), ints(11, 20, 1 << 62)))


def test_a_machine_that_slept_is_a_jump_and_is_not_fitted_across() -> None:
    host = SimulatedHost(drift=10e-6)
    slept = SimulatedHost(begin_ns=host.begin_ns + 100 * S, host_begin_ns=host.host_begin_ns + 90 * S, drift=10e-6)
    model = SyncedClock(joined(exchanges(host, 88, QUIET, QUIET), exchanges(slept, 100, QUIET, QUIET)))
    (jump,) = model.jumps
    assert jump.jump_ns == pytest.approx(10 * S, abs=3_000_000)
    for part, end_s in ((host, 84), (slept, 99)):
        off, bound = errors(model, part, 1, end_s)
        assert (off <= bound).all() and bound.max() < 1_000_000
    between = model.bound(ints((jump.after_ns + jump.before_ns) // 2))
    assert between[0] >= 10 * S


def test_a_clock_that_is_steered_hard_is_followed() -> None:
    """By 400 ppm for half a minute, as chrony corrects what it found late."""
    host = SimulatedHost()
    steered = SimulatedHost(host.begin_ns + 100 * S, host.host_begin_ns + 100 * S, drift=400e-6)
    after_ns = int(steered.at(ints(host.begin_ns + 130 * S))[0])
    after = SimulatedHost(host.begin_ns + 130 * S, after_ns)
    parts = ((host, 100.0), (steered, 30.0), (after, 100.0))
    model = SyncedClock(joined(*(exchanges(part, seconds, QUIET, QUIET) for part, seconds in parts)))
    assert model.jumps == []
    for part, seconds in parts:
        off, bound = errors(model, part, 0, seconds)
        assert (off <= bound).all() and bound.max() < 5_000_000


def test_one_exchange_is_enough_for_an_answer() -> None:
    model = SyncedClock(Exchanges(ints(1000), ints(5_000_100), ints(5_000_200), ints(1400)))
    at, bound = model.to_session(ints(1200, 1200 + S))
    assert at[0] == 5_000_150 and bound[0] in (151, 152, 153)
    assert 505_000 <= bound[1] < 505_300  # 500 ppm at most, and the wander


delays = st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**8)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(
    delays=delays,
    gap_ms=st.integers(1, 60_000),
    ppm=st.floats(-490, 490),
    base=st.sampled_from([0, 12345, (1 << 60) + 1]),
    offset=st.integers(-(1 << 59), 1 << 59),
)
def test_any_delays_of_a_clock_with_any_drift(
    delays: list[tuple[int, int]], gap_ms: int, ppm: float, base: int, offset: int
) -> None:
    begin = base + gap_ms * 1_000_000 * np.arange(len(delays))
    host = SimulatedHost(begin_ns=base, host_begin_ns=base + offset, drift=ppm * 1e-6)
    there, back = np.array(delays, np.int64).T
    asked, arrived, ended = begin, begin + there, begin + there + back
    model = SyncedClock(Exchanges(host.at(asked), arrived, arrived, host.at(ended)))
    at = np.sort(np.concatenate((begin, ended, begin[:1] - S, ended[-1:] + S)))
    session, bound = model.to_session(host.at(at))
    assert (np.abs(session - at) <= bound + 2).all()  # 2: instants are whole nanoseconds
    assert (np.diff(session) >= 0).all(), "time does not go back"
    assert (np.abs(model.to_host(session) - host.at(at)) <= 2).all()


@settings(max_examples=30, deadline=None)
@given(shift=st.integers(-(1 << 60), 1 << 60), host_shift=st.integers(-(1 << 60), 1 << 60))
def test_where_the_clocks_began_makes_no_difference_of_a_nanosecond(shift: int, host_shift: int) -> None:
    found = exchanges(SimulatedHost(begin_ns=0, host_begin_ns=0, drift=30e-6), 20, QUIET, QUIET)
    moved = Exchanges(found.t1 + host_shift, found.t2 + shift, found.t3 + shift, found.t4 + host_shift)
    at = np.arange(0, 25 * S, S // 7)
    here, there = SyncedClock(found), SyncedClock(moved)
    assert (there.offset(at + host_shift) - (shift - host_shift) == here.offset(at)).all()
    assert (there.bound(at + host_shift) == here.bound(at)).all()
