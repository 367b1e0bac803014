"""The poller: what is handed over when, what a failing device costs, and how it comes back."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from poll_helpers import DEADLINE_S, collect

from drivers.contract import Channel, ReadFailed, Row, Status, Unavailable
from drivers.polling import Freshness, LinkLost, PolledGroup, Poller

CHANNEL = Channel(name="made/d/power", device="d", quantity="power", unit="W", kind="gauge")


class MadeSource:
    """Does what its script says, poll by poll: a number of watts, or what to raise."""

    def __init__(self, *script: float | Exception, connects: tuple[Exception | None, ...] = ()) -> None:
        self.script = list(script)
        self.connects = list(connects)
        self.polls = self.connected = self.closed = 0
        self.gate = threading.Event()
        self.gate.set()

    async def connect(self) -> None:
        self.connected += 1
        outcome = self.connects.pop(0) if self.connects else None
        if outcome is not None:
            raise outcome

    async def poll(self) -> Row:
        self.polls += 1
        while not self.gate.is_set():
            await asyncio.sleep(0.001)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return Row(time.monotonic_ns(), 0, (step,))

    async def close(self) -> None:
        self.closed += 1


def polled(*sources: MadeSource, clock: list[int] | None = None) -> tuple[Poller, list[PolledGroup]]:
    def clock_ns() -> int:
        return time.monotonic_ns() if clock is None else clock[0]

    async def open_one(place: int, source: MadeSource) -> PolledGroup:
        await source.connect()
        return PolledGroup(f"g{place}", [CHANNEL], source, clock_ns)

    poller, groups, notes = Poller.start(
        "made",
        [
            (f"g{place}", lambda place=place, source=source: open_one(place, source))
            for place, source in enumerate(sources)
        ],  # type: ignore[misc]
    )
    assert not notes
    return poller, groups


def test_each_poll_is_handed_over_once() -> None:
    source = MadeSource(1.0, 2.0, 3.0, 4.0)
    poller, (group,) = polled(source)
    rows, failures = collect(group, 4)
    assert [row.values for row in rows] == [(1.0,), (2.0,), (3.0,), (4.0,)] and not failures
    poller.close()
    assert source.closed == 1 and not any(thread.name == "poll made" for thread in threading.enumerate())


def test_a_device_that_hangs_has_one_poll_under_way_and_holds_up_no_other() -> None:
    slow, quick = MadeSource(1.0, 2.0), MadeSource(7.0)
    poller, (slow_group, quick_group) = polled(slow, quick)
    collect(slow_group, 1)
    slow.gate.clear()
    while slow_group.read():  # what was under way before
        pass
    polls = slow.polls
    for _ in range(100):
        assert slow_group.read() == ()
    rows, _ = collect(quick_group, 3)
    assert [row.values for row in rows] == [(7.0,)] * 3
    assert slow.polls <= polls + 1
    slow.gate.set()
    assert collect(slow_group, 1)[0][0].values == (2.0,)
    poller.close()


def test_a_failed_reading_is_told_once_and_the_connection_kept() -> None:
    source = MadeSource(1.0, ReadFailed("no"), 2.0)
    poller, (group,) = polled(source)
    rows, failures = collect(group, 3)
    assert [row.values for row in rows] == [(1.0,), (2.0,)] and failures == ["no"]
    assert source.connected == 1
    poller.close()


def test_a_mistake_of_a_source_costs_a_reading_and_tells_no_secret() -> None:
    source = MadeSource(1.0, KeyError("canary"), 2.0)
    poller, (group,) = polled(source)
    rows, failures = collect(group, 3)
    assert [row.values for row in rows] == [(1.0,), (2.0,)] and failures == ["the poll failed: KeyError"]
    poller.close()


def test_what_fails_in_a_callback_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Its text may quote what came, such as a community."""

    async def fails_beside() -> PolledGroup:
        asyncio.get_running_loop().call_soon(int, "canary")
        return PolledGroup("ok", [CHANNEL], MadeSource(1.0), time.monotonic_ns)

    poller, (group,), _ = Poller.start("made", [("a", fails_beside)])
    assert collect(group, 2)[1] == []
    poller.close()
    assert capfd.readouterr() == ("", "")


def test_a_lost_link_is_made_anew_with_growing_pauses() -> None:
    """BMCs lock users out that try too often: at 0, 1, 3, 7 s after the loss, and not in between."""
    clock = [0]
    refusal = Unavailable("locked")
    source = MadeSource(1.0, LinkLost("lost"), 2.0, connects=(None, refusal, refusal, refusal))
    poller, (group,) = polled(source, clock=clock)
    assert collect(group, 2)[1] == ["lost"]
    for second, tries in ((0, 2), (0.9, 2), (1.0, 3), (2.9, 3), (3.0, 4), (6.9, 4)):
        clock[0] = int(second * 1e9)
        assert set(collect(group, 3)[1]) <= {"lost", "locked"}
        assert source.connected == tries, second
    clock[0] = int(7e9)
    rows, _ = collect(group, 3)
    while not rows:
        rows, _ = collect(group, 1)
    assert rows[0].values == (2.0,) and source.connected == 5
    poller.close()


def test_devices_that_fail_to_open_are_told_and_all_failing_is_no_driver() -> None:
    async def fails() -> PolledGroup:
        raise Unavailable("broken", "mend it")

    async def mistaken() -> PolledGroup:
        raise KeyError("canary")

    async def works() -> PolledGroup:
        return PolledGroup("ok", [CHANNEL], MadeSource(1.0), time.monotonic_ns)

    poller, groups, notes = Poller.start("made", [("a", fails), ("b", mistaken), ("c", works)])
    poller.close()
    assert [group.name for group in groups] == ["ok"]
    assert [note.reason for note in notes] == ["a: broken", "b: opening it failed: KeyError"]
    try:
        Poller.start("made", [("a", fails)])
    except Unavailable as unavailable:
        assert (unavailable.reason, unavailable.fix) == ("a: broken", "mend it")
    else:
        raise AssertionError("it opened")


def test_polls_of_devices_that_are_read_together_are_spread() -> None:
    """The last of 40 begins a good part of SPREAD_S after the first, and each in its turn."""
    sources = [MadeSource(float(place)) for place in range(40)]
    poller, groups = polled(*sources)
    for group in groups:
        group.read()
    for group in groups:
        group.read()
    found: dict[str, int] = {}
    deadline_s = time.monotonic() + DEADLINE_S
    while len(found) < len(groups) and time.monotonic() < deadline_s:
        for group in groups:
            for row in group.read():
                found.setdefault(group.name, row.t_ns)
        time.sleep(0.002)
    instants = [found[group.name] for group in groups]
    assert instants == sorted(instants)
    assert (instants[-1] - instants[0]) * 1e-9 >= 0.3  # of 0.39
    poller.close()


def test_freshness() -> None:
    fresh = Freshness()
    told = [("a", 1.0), ("a", 1.0), ("b", 1.0), ("b", 1.0), ("b", 2.0), ("b", 2.0), (None, 2.0)]
    found = [fresh.judge(stamp, (value,)) for stamp, value in told]
    new, stale = Status.NEW, Status.STALE
    # The fifth proves that the stamp says nothing: from then on all is new.
    assert found == [new, stale, new, stale, new, new, new]
    assert [Freshness().judge(None, (1.0,)) for _ in range(2)] == [new, new]
