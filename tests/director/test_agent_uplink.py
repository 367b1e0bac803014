"""What an agent hands over of one session, to a real store, when its spool or the director is not as it should be."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from made_spool import MadeSpool, made_rows, made_stream, read_instants

from director.fleet.store import FleetStore
from power_agent.event_log import LoggedEvent
from power_agent.service.uplink import SILENCE_S, Uplink
from power_agent.spool import Batch, SpoolReader
from power_agent.wire.frames import MAX_FRAME_BYTES, bulk_from_agent, encode
from power_agent.wire.messages import Ack, BulkFromAgent, BulkRefused


class Site:
    """A spool on a host, its uplink, and the director's store; each message passes through a frame."""

    def __init__(self, folder: Path) -> None:
        self.spool = MadeSpool(folder / "agent" / "node0.sqlite")
        self.session = folder / "session"
        self.session.mkdir()
        self.store = FleetStore(print)
        self.store.admit("s", self.session)
        self.replies: list[Ack | BulkRefused] = []
        self._sent: list[BulkFromAgent] = []
        self._now_s = 0.0
        self.uplink = self.begin()

    def begin(self) -> Uplink:
        return Uplink("s", "node0", self.spool.writer.path, {}, self._send, lambda: self._now_s)

    def _send(self, message: BulkFromAgent) -> bool:
        self._sent.append(bulk_from_agent.decode(encode(message)))
        return True

    def turns(self, count: int, credit_bytes: int = 100_000, *, arrives: bool = True) -> None:
        """Let time pass; what is sent may not arrive."""
        for _ in range(count):
            self._now_s += 0.2
            self.uplink.work(credit_bytes)
            for message in self._sent if arrives else ():
                refusal = self.store.take(b"r", message)
                self._hear(refusal)
            self._sent.clear()
            for _, reply in self.store.commit():
                self._hear(reply)

    def _hear(self, reply: object) -> None:
        if isinstance(reply, (Ack, BulkRefused)):
            self.replies.append(reply)
            self.uplink.receive(reply)

    def whole_after(self, count: int = 100) -> bool:
        self.uplink.finish()
        self.turns(count)
        return self.uplink.whole

    def events(self) -> dict[str, int]:
        """At the director: how often, by text."""
        reader = SpoolReader(self.session / "spool" / "node0.sqlite")
        try:
            return {event.text: event.times for event in reader.logged_events()}
        finally:
            reader.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.uplink.close()
    made.spool.writer.close()
    made.store.close()


@pytest.mark.parametrize("credit_bytes", [0, 100_000])
def test_an_agent_that_did_not_hear_that_all_is_there_is_told_again(site: Site, credit_bytes: int) -> None:
    """Either was killed in between: the agent still has all of it, the director takes no more of it."""
    site.spool.add(5)
    assert site.whole_after()
    site.uplink.close()
    site.uplink = site.begin()
    site.uplink.finish()
    site.store.dismiss("s")
    site.store.admit("s", site.session, ["node0"], whole=["node0"])
    site.turns(50, credit_bytes)
    assert site.uplink.whole


def test_who_samples_on_is_not_told_that_all_is_there(site: Site) -> None:
    site.spool.add(5)
    site.store.admit("s", site.session, ["node0"], whole=["node0"])
    site.turns(20)
    assert not site.uplink.whole


def test_how_many_drivers_came_up_does_not_matter(site: Site) -> None:
    site.spool.writer.write(meta={"drivers": "x" * 99_000, "longer": "x" * 200_000})
    site.spool.add(3)
    assert site.whole_after()
    reader = SpoolReader(site.session / "spool" / "node0.sqlite")
    assert len(reader.meta()["drivers"]) == 99_000 and "longer" not in reader.meta()
    reader.close()


@pytest.mark.parametrize(("count", "length"), [(997, 20), (999, 20), (1001, 20), (3000, 500)])
def test_however_much_happened_it_is_handed_over(site: Site, count: int, length: int) -> None:
    errors = [LoggedEvent(count, "error", "fake", "the one that matters", 7)]
    infos = [LoggedEvent(k, "info", f"driver{k % 50}", f"{k} ".ljust(length, "é"), 2) for k in range(count)]
    site.spool.writer.write(events=[*infos, *errors])
    site.spool.add(3)
    assert site.whole_after()
    events = site.events()
    assert events["the one that matters"] == 7
    if count == 997:
        assert len(events) == count + 1
    else:
        (more,) = (times for text, times in events.items() if "more happened than is handed over" in text)
        assert more + len(events) - 1 == count + 1, "kept and not kept make all"


def test_thousands_of_channels_go_over_though_no_message_holds_them_all(site: Site) -> None:
    site.spool.add(2)
    wide = [made_stream(channels=4000, number=number) for number in range(1, 6)]
    assert sum(len(msgspec.msgpack.encode(stream)) for stream in wide) > MAX_FRAME_BYTES
    site.spool.writer.write(streams=wide[:4], batches=[Batch(s.id, 1, made_rows(s, 0, 1)) for s in wide[:4]])
    site.turns(10)
    site.spool.writer.write(streams=wide[4:], batches=[Batch(5, 1, made_rows(wide[4], 0, 1))])
    site.turns(10)
    site.uplink.reset()
    assert site.whole_after()
    reader = SpoolReader(site.session / "spool" / "node0.sqlite")
    assert reader.streams() == [made_stream(), *wide]
    assert [len(list(reader.batches(stream.id))) for stream in reader.streams()] == [2, 1, 1, 1, 1, 1]
    reader.close()
    assert not any(isinstance(reply, BulkRefused) or reply.resend for reply in site.replies)


def damage(path: Path, statement: str) -> None:
    database = sqlite3.connect(path, timeout=10)
    with database:
        database.execute(statement)
    database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE batches SET payload = zeroblob(length(payload)) WHERE seq = 2",
        "UPDATE batches SET payload = 5 WHERE seq = 2",
        "UPDATE batches SET payload = payload || payload WHERE seq = 2",
        "UPDATE batches SET rows = 'many' WHERE seq = 2",
        "UPDATE batches SET rows = 8 WHERE seq = 2",
        "UPDATE batches SET stream = 99 WHERE seq = 2",
        "UPDATE batches SET stream = 'none' WHERE seq = 2",
    ],
)
def test_a_damaged_batch_is_left_out_and_counted_once(site: Site, statement: str) -> None:
    site.spool.add(3)
    damage(site.spool.writer.path, statement)
    site.turns(1)
    for _ in range(3):
        site.turns(1, arrives=False)
        site.uplink.reset()  # the connection is another one: all is sent again
        site.turns(1, 0)
    assert site.whole_after()
    assert read_instants(site.session / "spool" / "node0.sqlite") == [*range(7), *range(14, 21)]
    damaged = "a batch was damaged on the disk of node0; the readings in it are missing"
    assert {text: times for text, times in site.events().items() if "damaged" in text} == {damaged: 1}
    assert not any(isinstance(reply, BulkRefused) or reply.resend for reply in site.replies)


def test_a_stream_that_is_added_later_is_declared_before_its_first_batch(site: Site) -> None:
    site.spool.add(3)
    site.turns(5)
    added = made_stream(channels=2, number=1)
    site.spool.writer.write(streams=[added], batches=[Batch(1, 4, made_rows(added, 0, 4))])
    site.turns(3)
    assert site.replies[-1].seq == 4  # type: ignore[union-attr]
    assert not any(isinstance(reply, BulkRefused) for reply in site.replies)
    assert site.whole_after()


def test_a_silent_director_is_asked_again(site: Site) -> None:
    site.spool.add(3)
    site.turns(1)
    site.store.dismiss("s")
    site.store.admit("s", site.session)
    site.uplink.finish()
    site.turns(int(SILENCE_S / 0.2) + 30)
    assert site.uplink.whole
