"""The loop of one driver, on a clock that the test owns: each outcome is exact."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
from simulated_clock import SimulatedClock

from drivers.contract import Channel, DeviceLost, Driver, DriverOptions, Finished, Group, ReadFailed, Row, Status
from drivers.discovery import Opened, Refused
from power_agent.event_log import EventLog
from power_agent.messages import Event, Stream
from power_agent.row_format import row_struct
from power_agent.sampled_driver import SampledDriver
from power_agent.sampled_group import SampledGroup
from power_agent.sampling_thread import SamplingThread

MS = 1_000_000
START_NS = 1_000_000_000


def channel(name: str) -> Channel:
    return Channel(name=name, device="d", quantity="power", unit="W", kind="gauge")


class ScriptedGroup(Group):
    """Each reading does what `script` says; afterwards it takes no time and shows the number of the reading."""

    max_hz = 1000.0

    def __init__(self, name: str, clock: SimulatedClock, script: Sequence[Callable[[], Any] | None] = ()) -> None:
        self.name = name
        self.default_hz = 10.0
        self.channels = (channel(f"{name}/a"), channel(f"{name}/b"))
        self.instants: list[int] = []
        self._clock = clock
        self._script = script

    def read(self) -> Sequence[Row]:
        number = len(self.instants)
        self.instants.append((self._clock.now_ns - START_NS) // MS)
        act = self._script[number] if number < len(self._script) else None
        if act is not None:
            result = act()
            if result is not None:
                return result  # type: ignore[no-any-return]
        return [Row(self._clock.now_ns, 0, [float(number)] * len(self.channels))]


class ScriptedDriver(Driver):
    name: ClassVar[str] = "scripted"

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = tuple(groups)
        self.closed = 0

    @classmethod
    def open(cls, options: DriverOptions) -> ScriptedDriver:
        raise NotImplementedError

    def close(self) -> None:
        self.closed += 1


class Bench:
    """A sampling thread that runs in the test's own, until `stop_ms`."""

    def __init__(self, *rates_hz: float) -> None:
        self.clock = SimulatedClock(START_NS)
        self.log = EventLog(self.clock.monotonic_ns)
        self.rates_hz = rates_hz
        self.reopened: list[Opened | Refused] = []
        self.notified = 0

    def run(self, *groups: Group, stop_ms: int, extra_ms: Sequence[int] = ()) -> list[SampledGroup]:
        self.driver = ScriptedDriver(groups)
        sampled = []
        for i, (group, rate_hz) in enumerate(zip(groups, self.rates_hz, strict=True)):
            stream = Stream(id=i, driver="scripted", group=group.name, rate_hz=rate_hz, channels=list(group.channels))
            sampled.append(SampledGroup(stream, group, start_ns=START_NS, limit_bytes=1 << 20))
        driver = SampledDriver(
            "scripted",
            self.driver,
            sampled,
            clock=self.clock,
            log=self.log,
            reopen=lambda: self.reopened.pop(0),
            notify=self._notify,
        )
        thread = SamplingThread([driver], clock=self.clock)
        self.clock.at = [(START_NS + instant * MS, thread.read_now) for instant in extra_ms]
        self.clock.at.append((START_NS + stop_ms * MS, thread.stop))
        thread.run()
        return sampled

    def _notify(self) -> None:
        self.notified += 1

    def sleep(self, duration_ms: int) -> Callable[[], None]:
        """What a slow reading does."""

        def pass_time() -> None:
            self.clock.now_ns += duration_ms * MS

        return pass_time

    def texts(self) -> list[tuple[str, str, int]]:
        return [(event.level, event.text, event.times) for event in self.log.snapshot()]


def fail(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


def rows_of(group: SampledGroup) -> list[tuple[Any, ...]]:
    return list(row_struct(group.stream.channels).iter_unpack(group.buffer.take()[1]))


def ledger(bench: Bench, group: SampledGroup) -> tuple[int, int, int, int, int]:
    count = group.tick_count(bench.clock.now_ns)
    return count.due, count.taken, count.late, count.missed, count.extra


def test_groups_are_read_at_their_own_deadlines() -> None:
    bench = Bench(10.0, 4.0)
    fast, slow = ScriptedGroup("fast", bench.clock), ScriptedGroup("slow", bench.clock)
    sampled = bench.run(fast, slow, stop_ms=520)
    assert fast.instants == [0, 100, 200, 300, 400, 500, 520]
    assert slow.instants == [0, 250, 500, 520]
    # The ticks at 500 ms were served, so they are settled; those after 520 ms are not due.
    assert ledger(bench, sampled[0]) == (6, 6, 0, 0, 1)
    assert ledger(bench, sampled[1]) == (3, 3, 0, 0, 1)
    assert [row[2] for row in rows_of(sampled[0])] == [0, 1, 2, 3, 4, 5, 6]
    assert bench.driver.closed == 1
    assert bench.texts() == []


def test_a_reading_out_of_turn_moves_no_deadline() -> None:
    bench = Bench(10.0)
    group = ScriptedGroup("g", bench.clock)
    (sampled,) = bench.run(group, stop_ms=250, extra_ms=[130, 140])
    assert group.instants == [0, 100, 130, 140, 200, 250]
    assert ledger(bench, sampled) == (3, 3, 0, 0, 3)


def test_a_reading_that_hangs_is_followed_by_missed_ticks() -> None:
    bench = Bench(10.0)
    group = ScriptedGroup("g", bench.clock, [None, bench.sleep(455)])
    (sampled,) = bench.run(group, stop_ms=750)
    # The second reading, at 100 ms, lasts until 555 ms: 200, 300 and 400 ms are missed, 500 ms is served 55 ms late.
    assert group.instants == [0, 100, 555, 600, 700, 750]
    assert ledger(bench, sampled) == (8, 4, 1, 3, 1)


def test_a_slow_group_does_not_starve_another_one_of_its_driver() -> None:
    bench = Bench(10.0, 10.0)
    slow = ScriptedGroup("slow", bench.clock, [bench.sleep(250)] * 100)
    other = ScriptedGroup("other", bench.clock)
    sampled = bench.run(slow, other, stop_ms=5000)
    # The first reading ends at 250 ms; the other group has waited longest. After that both wait for their ticks at
    # 300 ms, and the first group goes first when it is free at 500 ms.
    assert slow.instants[:4] == [0, 250, 500, 750]
    assert other.instants[:4] == [250, 750, 1250, 1750]
    for group in sampled:
        due, taken, late, missed, _ = ledger(bench, group)
        assert due == taken + late + missed >= 48


def test_a_failed_reading_leaves_a_row_without_values() -> None:
    bench = Bench(10.0)
    group = ScriptedGroup("g", bench.clock, [None, fail(ReadFailed("busy")), fail(ReadFailed("busy"))])
    (sampled,) = bench.run(group, stop_ms=350)
    rows = rows_of(sampled)
    assert [row[-1] for row in rows] == [b"\0\0", b"\2\2", b"\2\2", b"\0\0", b"\0\0"]
    assert rows[1][0] == START_NS + 100 * MS
    assert math.isnan(rows[1][2])
    assert bench.texts() == [("warning", "a reading failed: busy", 2)]


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError("x"), SystemExit(3)])
def test_a_drivers_mistake_costs_one_reading(error: BaseException) -> None:
    bench = Bench(10.0)
    (sampled,) = bench.run(ScriptedGroup("g", bench.clock, [fail(error)]), stop_ms=150)
    assert [row[-1] for row in rows_of(sampled)] == [b"\2\2", b"\0\0", b"\0\0"]
    ((level, text, times),) = bench.texts()
    assert (level, times) == ("error", 1)
    assert type(error).__name__ in text


@pytest.mark.parametrize("answer", [3, [3], [(1, 2)], "rows", [None]])
def test_an_answer_that_is_no_rows_counts_as_a_failed_reading(answer: object) -> None:
    bench = Bench(10.0)
    (sampled,) = bench.run(ScriptedGroup("g", bench.clock, [lambda: answer]), stop_ms=50)
    assert [row[-1] for row in rows_of(sampled)] == [b"\2\2", b"\0\0"]


def test_a_device_that_ends_has_no_more_ticks() -> None:
    bench = Bench(10.0, 10.0)
    ending = ScriptedGroup("ending", bench.clock, [None, fail(Finished("the trace is over"))])
    sampled = bench.run(ending, ScriptedGroup("other", bench.clock), stop_ms=950)
    assert ending.instants == [0, 100]
    assert ledger(bench, sampled[0]) == (2, 2, 0, 0, 0)
    assert ledger(bench, sampled[1]) == (10, 10, 0, 0, 1)
    assert bench.texts() == [("info", "the trace is over", 1)]


def test_a_streaming_device_may_give_no_row_or_many() -> None:
    bench = Bench(10.0)
    many = [Row(START_NS + i, 0, (1.0, 2.0)) for i in range(5)]
    (sampled,) = bench.run(ScriptedGroup("g", bench.clock, [list, lambda: many]), stop_ms=150)
    assert len(rows_of(sampled)) == 6
    assert bench.notified == 1  # with the first rows, so at the second reading


def test_a_lost_device_is_opened_again_after_pauses_that_double() -> None:
    bench = Bench(1.0, 1.0)
    first = ScriptedGroup("a", bench.clock, [None, fail(DeviceLost("gone"))])
    second = ScriptedGroup("b", bench.clock)
    again = ScriptedGroup("a", bench.clock)
    attempts: list[int] = []
    results: list[Opened | Refused] = [
        Refused("scripted", "still away", ""),
        Refused("scripted", "still away", ""),
        Opened("scripted", ScriptedDriver([again, ScriptedGroup("b", bench.clock)])),
    ]

    class Attempts(list[Opened | Refused]):
        def pop(self, *_: object) -> Opened | Refused:
            attempts.append((bench.clock.now_ns - START_NS) // MS)
            return results.pop(0)

    bench.reopened = Attempts()
    sampled = bench.run(first, second, stop_ms=9500)
    # Lost at 1000 ms; asked again after 1, 2 and 4 s.
    assert attempts == [2000, 4000, 8000]
    assert first.instants == [0, 1000]
    assert again.instants[0] in (8000, 9000)
    for group in sampled:
        statuses = [row[-1] for row in rows_of(group)]
        assert statuses[0] == b"\0\0"
        assert statuses[2:8] == [b"\2\2"] * 6
        assert statuses[-2:] == [b"\0\0"] * 2
        assert ledger(bench, group) == (10, 10, 0, 0, 1)
    assert bench.driver.closed == 1
    assert [(level, times) for level, _, times in bench.texts()] == [("warning", 1), ("warning", 2), ("info", 1)]


def test_a_device_that_vanishes_again_at_once_is_asked_ever_more_seldom() -> None:
    bench = Bench(100.0)
    attempts: list[int] = []

    class Attempts(list[Opened | Refused]):
        def pop(self, *_: object) -> Opened:
            attempts.append((bench.clock.now_ns - START_NS) // MS)
            return Opened("scripted", ScriptedDriver([lost()]))

    def lost() -> ScriptedGroup:
        return ScriptedGroup("g", bench.clock, [fail(DeviceLost("gone"))] * 3)

    bench.reopened = Attempts()
    bench.run(lost(), stop_ms=130_000)
    pauses = [after - before for before, after in itertools.pairwise(attempts)]
    assert [round(pause / 1000) for pause in pauses] == [2, 4, 8, 16, 30, 30, 30]


def test_channels_that_do_not_come_back_are_missing_and_the_others_keep_their_places() -> None:
    bench = Bench(1.0)
    group = ScriptedGroup("g", bench.clock, [fail(DeviceLost("gone"))])
    again = ScriptedGroup("g", bench.clock)
    again.channels = (channel("g/new"), channel("g/b"))
    again.read = lambda: [Row(bench.clock.now_ns, 0, (5.0, 6.0))]  # type: ignore[method-assign]
    bench.reopened = [Opened("scripted", ScriptedDriver([again]))]
    (sampled,) = bench.run(group, stop_ms=2500)
    last = rows_of(sampled)[-1]
    assert last[-1] == bytes([Status.MISSING, Status.NEW])
    assert math.isnan(last[2])
    assert last[3] == 6.0


def test_events_are_bounded_and_counted() -> None:
    log = EventLog(lambda: 7)
    for number in range(1000):
        log.add("warning", "chatty", f"problem {number}" + "x" * 1000)
    log.add("error", "other", "one")
    events = log.snapshot()
    assert len(events) == 52
    assert sum(event.times for event in events) == 1001
    assert max(len(event.text) for event in events) == 500
    assert Event(t_ns=7, level="error", source="other", text="one").text == events[-1].text


def two_drivers(bench: Bench, first: Group, second: Group) -> tuple[SamplingThread, list[SampledDriver]]:
    drivers = []
    for i, group in enumerate((first, second)):
        stream = Stream(id=i, driver=group.name, group="g", rate_hz=10.0, channels=list(group.channels))
        sampled = SampledGroup(stream, group, start_ns=START_NS, limit_bytes=1 << 20)
        drivers.append(
            SampledDriver(
                group.name,
                ScriptedDriver([group]),
                [sampled],
                clock=bench.clock,
                log=bench.log,
                reopen=lambda: bench.reopened.pop(0),
                notify=lambda: None,
            )
        )
    return SamplingThread(drivers, clock=bench.clock), drivers


def test_the_companions_of_a_read_that_hangs_are_taken_away_and_lose_nothing_more() -> None:
    bench = Bench()
    parted: list[tuple[list[SampledDriver], str]] = []

    def hang() -> None:
        bench.clock.now_ns += 200 * MS
        parted.append(thread.part())  # not yet long enough
        bench.clock.now_ns += 100 * MS
        parted.append(thread.part())

    stuck = ScriptedGroup("stuck", bench.clock, [None, None, hang])
    steady = ScriptedGroup("steady", bench.clock)
    thread, drivers = two_drivers(bench, stuck, steady)
    bench.clock.at = [(START_NS + 900 * MS, thread.stop)]
    thread.run()
    assert parted == [([], ""), ([drivers[1]], "stuck")]
    assert stuck.instants == [0, 100, 200, 500, 600, 700, 800, 900]  # 300 and 400 passed while it hung
    assert steady.instants == [0, 100]
    # the rest of the other's time, in a thread of its own
    other = SamplingThread(parted[1][0], clock=bench.clock)
    bench.clock.now_ns = START_NS + 510 * MS
    bench.clock.at = [(START_NS + 750 * MS, other.stop)]
    other.run()
    assert steady.instants == [0, 100, 510, 600, 700, 750]
    # 200, 300 and 400 were missed, what was due at 500 is taken 10 ms later: within the tolerance of 100 ms / 10
    assert ledger(bench, drivers[1].groups[0]) == (8, 5, 0, 3, 1)


def test_a_slow_driver_gets_a_thread_to_itself() -> None:
    bench = Bench()
    slow = ScriptedGroup("slow", bench.clock, [bench.sleep(30)] * 100)
    quick = ScriptedGroup("quick", bench.clock)
    thread, drivers = two_drivers(bench, quick, slow)
    parted: list[tuple[list[SampledDriver], str]] = []
    bench.clock.at = [
        (START_NS + 950 * MS, lambda: parted.append(thread.part())),
        (START_NS + 1990 * MS, thread.stop),
    ]
    thread.run()
    assert parted == [([drivers[1]], "slow")]
    assert len(slow.instants) == 10
    assert len(quick.instants) == 21
    assert thread.part() == ([], "")  # one alone is never parted


def test_what_a_driver_remarks_is_logged_and_counted() -> None:
    bench = Bench(10.0)

    class Remarking(ScriptedGroup):
        def remarks(self) -> Sequence[str]:
            return ["the load is above the range"] if len(self.instants) in (2, 3) else []

    bench.run(Remarking("p", bench.clock), stop_ms=450)
    assert bench.texts() == [("warning", "the load is above the range", 2)]
