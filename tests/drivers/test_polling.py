"""The poller: what is handed over when, what a failing device costs, and how it comes back."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from poll_helpers import DEADLINE_S, collect

from drivers.contract import Channel, ReadFailed, Row, Status, Unavailable
from drivers.polling import Freshness, LinkLost, NotReached, Opening, PolledGroup, Poller

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

    opening = [Opening(f"g{place}", source, lambda: [CHANNEL]) for place, source in enumerate(sources)]
    poller, groups, notes = Poller.start("made", opening, clock_ns)
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

    class FailsBeside(MadeSource):
        async def connect(self) -> None:
            asyncio.get_running_loop().call_soon(int, "canary")

    poller, (group,) = polled(FailsBeside(1.0))
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


def opening(name: str, outcome: Exception | None, *, known: bool = False) -> Opening:
    def channels() -> list[Channel]:
        return [CHANNEL]

    source = MadeSource(1.0, connects=(outcome,))
    return Opening(name, source, channels, channels if known else None)


def test_devices_that_fail_to_open_are_told_and_all_failing_is_no_driver() -> None:
    broken = opening("a", Unavailable("broken", "mend it"), known=True)
    devices = [broken, opening("b", KeyError("canary")), opening("c", None)]
    poller, groups, notes = Poller.start("made", devices, time.monotonic_ns)
    poller.close()
    assert [group.name for group in groups] == ["c"]
    assert [note.reason for note in notes] == ["a: broken", "b: opening it failed: KeyError"]
    assert isinstance(broken.source, MadeSource) and broken.source.closed == 1
    with pytest.raises(Unavailable) as caught:
        Poller.start("made", [opening("a", Unavailable("broken", "mend it"))], time.monotonic_ns)
    assert (caught.value.reason, caught.value.fix) == ("a: broken", "mend it")
    with pytest.raises(Unavailable, match=r"^a: silent$"):
        Poller.start("made", [opening("a", NotReached("silent"), known=True)], time.monotonic_ns)


def test_a_device_that_is_silent_at_first_is_missing_and_comes_in_late() -> None:
    """Where its channels are known without it; else it is left out, and that is told."""
    devices = [opening("a", NotReached("silent"), known=True), opening("b", NotReached("silent")), opening("c", None)]
    poller, groups, notes = Poller.start("made", devices, time.monotonic_ns)
    assert [group.name for group in groups] == ["a", "c"]
    assert [note.reason.partition(";")[0] for note in notes] == ["a: silent", "b: silent"]
    assert "asked again" in notes[0].reason and "left out" in notes[1].reason
    with pytest.raises(ReadFailed, match="silent"):
        groups[0].read()
    rows, failures = collect(groups[0], 1)
    assert rows[0].values == (1.0,) and not failures
    poller.close()


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
