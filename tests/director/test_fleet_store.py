from __future__ import annotations

import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from made_spool import MadeSpool, made_rows, made_stream, read_instants

from director.fleet.replica import MAX_STREAMS, Replica
from director.fleet.store import FleetStore
from power_agent.messages import Event, TickCount
from power_agent.service.uplink import Uplink
from power_agent.spool import SpoolReader
from power_agent.wire.messages import (
    Ack,
    BatchFrame,
    BulkFromAgent,
    BulkRefused,
    ClockPairRow,
    EventCount,
    FileChunk,
    HandOver,
    StreamsDeclared,
    TablesUpdate,
)

STREAM = made_stream()


def declared(host: str = "node0") -> StreamsDeclared:
    return StreamsDeclared(session="s", host=host, streams=[STREAM], meta={"host": host, "spool_version": "99"})


def batch(seq: int, *, rows: int = 7, host: str = "node0") -> BatchFrame:
    payload = made_rows(STREAM, (seq - 1) * rows, rows)
    return BatchFrame(
        session="s",
        host=host,
        seq=seq,
        previous=seq - 1,
        stream=0,
        rows=rows,
        crc32=zlib.crc32(payload),
        payload=payload,
    )


def chunk(offset: int, content: bytes, path: str = "marks/1.marks") -> FileChunk:
    return FileChunk(session="s", host="node0", path=path, offset=offset, content=content)


def descriptors() -> int:
    """How many this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Held:
    """A store with one session, and what it told."""

    def __init__(self, folder: Path, **more: int) -> None:
        self.told: list[str] = []
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.store = FleetStore(self.told.append, **more)
        self.store.admit("s", folder)

    def ack(self, *messages: BulkFromAgent) -> Ack:
        """Take these and commit; the one Ack."""
        for message in messages:
            assert self.store.take(b"r", message) is None
        ((_, reply),) = self.store.commit()
        assert isinstance(reply, Ack)
        return reply

    @property
    def spool(self) -> Path:
        return self.folder / "spool" / "node0.sqlite"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    held = Held(tmp_path / "session")
    yield held
    held.store.close()


def test_what_is_acknowledged_is_in_the_spool(held: Held) -> None:
    assert held.ack(declared()).seq == 0
    assert held.ack(batch(1), batch(2)).seq == 2
    assert read_instants(held.spool) == list(range(14))
    reader = SpoolReader(held.spool)
    assert reader.meta()["host"] == "node0"
    assert reader.meta()["spool_version"] == "1", "the replica's own, whatever was sent"
    reader.close()


def test_nothing_is_there_before_the_commit(held: Held) -> None:
    held.ack(declared())
    held.store.take(b"r", batch(1))
    assert read_instants(held.spool) == []
    assert held.store.readings_rows == 0


def test_streams_that_are_declared_twice_before_a_commit_are_kept(held: Held) -> None:
    assert held.ack(declared(), declared(), batch(1)).seq == 1
    assert read_instants(held.spool) == list(range(7))


def test_repeats_are_ignored_and_acknowledged_again(held: Held) -> None:
    held.ack(declared(), batch(1), batch(2))
    assert held.ack(batch(1), batch(2), batch(2)).seq == 2
    assert held.store.repeats == 3
    assert read_instants(held.spool) == list(range(14))


def test_a_gap_is_not_stepped_over(held: Held) -> None:
    ack = held.ack(declared(), batch(1), batch(3))
    assert (ack.seq, ack.resend) == (1, True)
    assert not held.ack(batch(4)).resend, "asked once"
    assert held.ack(batch(2), batch(3)).seq == 3


def test_what_was_damaged_on_the_way_is_asked_for_again(held: Held) -> None:
    good = batch(1)
    ack = held.ack(declared(), msgspec.structs.replace(good, payload=good.payload[:-1] + b"\x07"))
    assert (ack.seq, ack.resend) == (0, True)
    assert held.ack(good).seq == 1


def test_a_reopened_store_goes_on_where_it_was(held: Held) -> None:
    held.ack(declared(), batch(1), chunk(0, b"abc"))
    held.store.close()
    again = Held(held.folder)
    ack = again.ack(declared())
    assert (ack.seq, ack.files) == (1, {"marks/1.marks": 3})
    again.store.close()


def test_a_spool_that_was_begun_anew_is_kept_beside_the_one_before(held: Held) -> None:
    """As where somebody deletes an agent's files: its numbers begin at 1 again, and its ledger and log at 0."""

    def of(started_ns: int) -> StreamsDeclared:
        return StreamsDeclared(
            session="s", host="node0", streams=[STREAM], meta={"started_ns": str(started_ns), "boot_id": "b"}
        )

    def tables(number: int, taken: int) -> TablesUpdate:
        counts = {"due": taken + 1, "taken": taken, "late": 0, "missed": 1, "extra": 0, "dropped_rows": 0}
        tick = TickCount(stream=0, lateness_log2_us=[taken], **counts)
        return TablesUpdate(session="s", host="node0", number=number, ticks=[tick], meta={"started_ns": "77"})

    held.ack(of(5), batch(1), batch(2), tables(1, 14), chunk(0, b"before", "logs/agent.log"))
    assert held.ack(of(5)).seq == 2, "the same one, as after a new connection"
    ack = held.ack(of(6))
    assert (ack.seq, ack.files) == (0, {})
    again = batch(3)
    ack = held.ack(msgspec.structs.replace(again, seq=1, previous=0), tables(1, 7), chunk(0, b"now", "logs/agent.log"))
    assert (ack.seq, ack.files) == (1, {"logs/agent.log": 3})
    held.store.close()
    later = Held(held.folder)
    assert later.ack(of(6)).seq == 1, "a director that was started again knows which one it is"
    assert later.ack(msgspec.structs.replace(batch(4), seq=2, previous=1)).seq == 2
    later.store.close()
    assert read_instants(held.spool) == list(range(28))
    assert (held.folder / "logs/node0/agent.log").read_bytes() == b"now"
    assert (held.folder / "logs/node0/agent.log.6").read_bytes() == b"before"
    reader = SpoolReader(held.spool)
    (ticks,) = reader.ticks()
    assert (ticks.due, ticks.taken, ticks.missed, ticks.lateness_log2_us) == (23, 21, 2, [21])
    (event,) = reader.logged_events()
    assert "were deleted while it measured" in event.text and event.t_ns == 6
    reader.close()


def begun(started_ns: int, host: str = "node0") -> StreamsDeclared:
    return StreamsDeclared(
        session="s", host=host, streams=[STREAM], meta={"started_ns": str(started_ns), "boot_id": "b"}
    )


def test_two_agents_of_one_name_do_not_bring_their_readings_twice(held: Held) -> None:
    """Each has its own spool, and whoever speaks next brings all of it."""
    held.ack(begun(5), batch(1))
    held.ack(begun(6), batch(1))
    for store in (held, Held(held.folder)):
        refusal = store.store.take(b"r", begun(5))
        assert isinstance(refusal, BulkRefused) and "--host" in refusal.reason
        store.store.commit()
        store.store.close()
    assert read_instants(held.spool) == [*range(7), *range(7)]


def test_a_number_that_no_disk_holds_stops_nobody_else(held: Held) -> None:
    highest = msgspec.structs.replace(batch(1), seq=2**63 - 1)
    assert held.ack(begun(5), highest).seq == 2**63 - 1
    held.store.take(b"good", declared("node1"))
    event = EventCount(event=Event(t_ns=2**64 - 1, level="info", source="x", text="y"))
    ticks = TickCount(stream=2**64 - 1, due=0, taken=0, late=0, missed=0, extra=0, dropped_rows=0, lateness_log2_us=[])
    of = {"session": "s", "host": "node0", "number": 1}
    for wrong in (batch(1), TablesUpdate(**of, events=[event]), TablesUpdate(**of, ticks=[ticks])):
        held.store.take(b"bad", begun(6))
        held.store.take(b"bad", wrong)
        held.store.take(b"good", batch(1, host="node1"))
        acks = {route: reply for route, reply in held.store.commit() if isinstance(reply, Ack)}
        assert acks[b"good"].seq == 1


def test_streams_are_bounded(held: Held) -> None:
    streams = [msgspec.structs.replace(STREAM, id=number) for number in range(MAX_STREAMS + 1)]
    for first, last in ((0, MAX_STREAMS), (1, MAX_STREAMS)):
        held.store.take(b"r", msgspec.structs.replace(declared(), streams=streams[first:last]))
        held.store.commit()
    refusal = held.store.take(b"r", msgspec.structs.replace(declared(), streams=streams[-1:]))
    assert isinstance(refusal, BulkRefused) and "1000 streams" in refusal.reason


def test_a_failing_disk_takes_no_descriptors(held: Held) -> None:
    held.ack(declared(), chunk(0, b"a", "marks/a"))
    before = descriptors()
    for _ in range(5):
        held.store.take(b"r", declared())
        held.store.take(b"r", chunk(1, b"b", "marks/a"))
        held.store.take(b"r", chunk(0, b"b", "marks/a/b"))  # of a folder that is a file
        ((_, reply),) = held.store.commit()
        assert isinstance(reply, BulkRefused)
    assert descriptors() == before
    assert held.ack(declared()).files == {"marks/a": 1}


def test_spools_that_nobody_uses_are_closed_and_opened_again(tmp_path: Path) -> None:
    held = Held(tmp_path, most_open=4)
    hosts = [f"n{number}" for number in range(20)]
    before = descriptors()
    for seq in (1, 2, 3):
        for host in hosts:
            if seq == 1:
                held.store.take(b"r", declared(host))
            held.store.take(b"r", batch(seq, host=host))
            ((_, reply),) = held.store.commit()
            assert isinstance(reply, Ack) and reply.seq == seq
    assert descriptors() - before <= 4 * 4
    held.store.close()
    for host in hosts:
        assert read_instants(held.folder / "spool" / f"{host}.sqlite") == list(range(21))


def test_the_names_of_new_files_are_synced_before_they_are_acknowledged(held: Held) -> None:
    """After a power cut a file without a synced name is not there, and its agent may have deleted its own."""
    replica = Replica(held.folder, "node0")
    replica.add_chunk(chunk(0, b"a", "logs/deep/a.log"))
    replica.write()
    synced = {Path(f"/proc/self/fd/{descriptor}").readlink() for descriptor in replica.unsynced}
    folders = [held.folder / "logs/node0/deep", held.folder / "logs/node0", held.folder / "logs", held.folder]
    assert synced == {*folders, folders[0] / "a.log"}
    replica.close()


def test_progress_is_known_while_the_disk_is_waited_for(held: Held) -> None:
    held.ack(declared(), batch(1))
    before = held.store.progress("s")["node0"]
    with held.store._lock:  # as `commit` has it while it syncs
        asked = threading.Thread(target=lambda: seen.append(held.store.progress("s")), daemon=True)
        seen: list[dict[str, int]] = []
        asked.start()
        asked.join(20)
        assert seen == [{"node0": before}]
    held.ack(batch(2))
    assert held.store.progress("s")["node0"] > before
    held.store.dismiss("s")
    assert held.store.progress("s") == {}


def test_files_are_appended_at_their_offset(held: Held) -> None:
    path = held.folder / "marks" / "node0" / "1.marks"
    assert held.ack(declared(), chunk(0, b"abc")).files == {"marks/1.marks": 3}
    assert held.ack(chunk(0, b"abc"), chunk(2, b"cde")).files == {"marks/1.marks": 5}
    assert path.read_bytes() == b"abcde"
    assert held.ack(chunk(9, b"z")).resend
    assert held.ack(chunk(0, b"", "logs/empty.log")).files == {"logs/empty.log": 0}
    # What a crash left beyond the acknowledged size is written over.
    held.store.close()
    path.write_bytes(b"abcdeXXXX")
    again = Held(held.folder)
    again.ack(declared(), chunk(5, b"fghi"))
    assert path.read_bytes() == b"abcdefghi"
    again.store.close()


def test_a_file_that_a_power_cut_shortened_comes_again_from_there(held: Held) -> None:
    path = held.folder / "marks" / "node0" / "1.marks"
    held.ack(declared(), chunk(0, b"abcde"), chunk(0, b"x", "logs/a.log"))
    held.store.close()
    path.write_bytes(b"abc")
    (held.folder / "logs" / "node0" / "a.log").unlink()
    again = Held(held.folder)
    assert again.ack(declared()).files == {"marks/1.marks": 3}
    again.ack(chunk(3, b"de"))
    assert path.read_bytes() == b"abcde"
    again.store.close()


def test_the_small_tables(held: Held) -> None:
    event = EventCount(event=Event(t_ns=5, level="warning", source="nvml", text="lost"), count=3)
    update = TablesUpdate(session="s", host="node0", number=1, clock=[ClockPairRow(7, 8, 9)], events=[event])
    ack = held.ack(declared(), update, update)
    assert (ack.tables, ack.clock_ns) == (1, 7)
    reader = SpoolReader(held.spool)
    assert [tuple(pair) for pair in reader.clock()] == [(7, 8, 9)]
    assert [tuple(event) for event in reader.logged_events()] == [(5, "warning", "nvml", "lost", 3)]
    reader.close()


def test_a_hand_over_is_whole_when_all_is_here(held: Held) -> None:
    end = HandOver(session="s", host="node0", last_seq=2, tables=0, files={"marks/1.marks": 3})
    assert not held.ack(declared(), batch(1), end).whole
    assert not held.ack(batch(2)).whole
    assert held.ack(chunk(0, b"abc")).whole


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (batch(1, host="stranger"), "does not measure stranger"),
        (
            BatchFrame(session="t", host="node0", seq=1, previous=0, stream=0, rows=1, crc32=0, payload=b""),
            "no session t",
        ),
        (
            BatchFrame(session="s", host="node0", seq=1, previous=0, stream=9, rows=1, crc32=0, payload=b""),
            "not declared",
        ),
        (
            StreamsDeclared(session="s", host="node0", streams=[made_stream(channels=2)]),
            "other channels before",
        ),
        (
            BatchFrame(
                session="s", host="node0", seq=1, previous=0, stream=0, rows=1, crc32=0, payload=bytes((1 << 20) + 1)
            ),
            "limit",
        ),
    ],
)
def test_what_does_not_belong_here_is_refused(held: Held, message: BulkFromAgent, why: str) -> None:
    held.store.admit("s", held.folder, ["node0"])
    held.ack(declared())
    refusal = held.store.take(b"r", message)
    assert isinstance(refusal, BulkRefused) and why in refusal.reason
    assert held.ack(batch(1)).seq == 1, "the session goes on"


def test_one_host_does_not_touch_another(held: Held) -> None:
    held.store.take(b"a", declared())
    held.store.take(b"b", declared("node1"))
    held.store.take(b"b", batch(1, host="node1"))
    acks = {route: reply for route, reply in held.store.commit() if isinstance(reply, Ack)}
    assert (acks[b"a"].seq, acks[b"b"].seq) == (0, 1)
    assert read_instants(held.folder / "spool" / "node1.sqlite") == list(range(7))


FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_fleet_store import Held, batch, declared
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
held = Held(Path(sys.argv[1]))
held.ack(declared(), batch(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, resource.RLIM_INFINITY))
acknowledged, refused = 1, 0
from power_agent.wire.messages import Ack
for seq in range(2, 60):
    held.store.take(b"r", declared()); held.store.take(b"r", batch(acknowledged + 1, rows=7 if seq < 0 else 7))
    for turn in range(30):
        held.store.take(b"r", batch(acknowledged + 1 + turn))
    for _, reply in held.store.commit():
        if isinstance(reply, Ack): acknowledged = reply.seq
        else: refused += 1; assert "cannot store" in reply.reason, reply
assert refused and acknowledged > 1, (refused, acknowledged)
assert len(held.told) == 1 and "free some space" in held.told[0], held.told
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert held.ack(declared(), batch(acknowledged + 1)).seq == acknowledged + 1
assert "can be stored again" in held.told[1]
held.store.close()
print(acknowledged + 1)
"""


def test_a_full_disk_is_told_once_and_nothing_is_acknowledged_that_is_not_there(tmp_path: Path) -> None:
    here = Path(__file__)
    words = [
        sys.executable,
        "-c",
        FULL_DISK,
        str(tmp_path / "session"),
        str(here.parent),
        str(here.parents[1] / "simulators"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    batches = int(done.stdout)
    assert read_instants(tmp_path / "session" / "spool" / "node0.sqlite") == list(range(7 * batches))


class LossyLink:
    """Loses, repeats and reorders what an uplink and a store tell each other."""

    def __init__(self, store: FleetStore, chance: random.Random) -> None:
        self.store = store
        self.chance = chance
        self.to_director: list[BulkFromAgent] = []

    def send(self, message: BulkFromAgent) -> bool:
        if self.chance.random() < 0.05:
            return False
        self.to_director.append(message)
        return True

    def carry(self, uplink: Uplink) -> None:
        """One turn of the network: a third is lost, a third comes twice, and the order is another one."""
        arrived = [message for message in self.to_director for _ in range(self.chance.choice((0, 1, 2)))]
        self.to_director.clear()
        if self.chance.random() < 0.5:
            self.chance.shuffle(arrived)
        for message in arrived:
            refusal = self.store.take(b"r", message)
            assert refusal is None or "not declared" in refusal.reason
        for _, reply in self.store.commit():
            if isinstance(reply, Ack) and self.chance.random() < 0.7:
                uplink.receive(reply)


def run_lossy_link(folder: Path, seed: int) -> None:
    """Hand a growing spool over through a bad network; agent and director restart now and then."""
    chance = random.Random(seed)
    spool = MadeSpool(folder / "agent" / "node0.sqlite")
    marks = folder / "agent" / "marks"
    marks.mkdir()
    held = Held(folder / "session")
    link = LossyLink(held.store, chance)
    now_s = [0.0]

    def new_uplink() -> Uplink:
        return Uplink("s", "node0", spool.writer.path, {"marks": marks}, link.send, lambda: now_s[0])

    uplink = new_uplink()
    text = b""
    for turn in range(4000):
        now_s[0] += 0.2
        if turn < 60:
            spool.add(chance.randint(0, 3), rows=chance.randint(1, 9))
            text += b"%d\n" % turn
            (marks / "1.marks").write_bytes(text)
        else:
            uplink.finish()
        if turn < 200 and chance.random() < 0.02:
            uplink.close()
            uplink = new_uplink()
        if turn < 200 and chance.random() < 0.02:
            held.store.close()
            held.store = link.store = FleetStore(held.told.append)
            held.store.admit("s", held.folder)
        uplink.work(2000)
        link.carry(uplink)
        if uplink.whole:
            break
    assert uplink.whole, (seed, uplink.problems)
    held.store.close()
    uplink.close()
    spool.writer.close()
    assert read_instants(held.spool) == list(range(spool.rows)), seed
    assert (held.folder / "marks" / "node0" / "1.marks").read_bytes() == text, seed
    ours, theirs = SpoolReader(spool.writer.path), SpoolReader(held.spool)
    assert ours.clock() == theirs.clock(), seed
    ours.close(), theirs.close()


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_or_doubled_by_a_bad_network(tmp_path: Path, seed: int) -> None:
    run_lossy_link(tmp_path, seed)


@pytest.mark.long
def test_nothing_is_lost_or_doubled_by_200_bad_networks(tmp_path: Path) -> None:
    for seed in range(100, 300):
        run_lossy_link(tmp_path / str(seed), seed)
