from __future__ import annotations

import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.contract import Channel
from power_agent.clock import ClockPair
from power_agent.event_log import LoggedEvent
from power_agent.messages import Stream, TickCount
from power_agent.row_format import row_struct
from power_agent.spool import Batch, SpoolDamaged, SpoolReader, SpoolUnwritable, SpoolWriter

CHANNELS = [Channel(name="d/power", device="d", quantity="power", unit="W", kind="gauge")]
ROW = row_struct(CHANNELS)


def stream(number: int) -> Stream:
    return Stream(id=number, driver="fake", group=f"g{number}", rate_hz=10.0, channels=CHANNELS)


def payload(first: int, rows: int) -> bytes:
    return b"".join(ROW.pack(first + i, 0, float(first + i), b"\0") for i in range(rows))


def tick_count(number: int, due: int) -> TickCount:
    return TickCount(
        stream=number, due=due, taken=due, late=0, missed=0, extra=0, dropped_rows=0, lateness_log2_us=[0] * 32
    )


def instants(reader: SpoolReader, stream_id: int) -> list[int]:
    return [row[0] for _, packed in reader.batches(stream_id) for row in ROW.iter_unpack(packed)]


def test_everything_comes_back_as_it_went_in(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    writer = SpoolWriter(path, {"host": "node0"})
    pairs = [ClockPair(5, 1_700_000_000_000_000_000, 40), ClockPair(1_000_000_005, 1_700_000_001_000_000_000, 50)]
    writer.write(streams=[stream(0), stream(1)])
    writer.write(
        batches=[Batch(0, 3, payload(0, 3)), Batch(1, 2, payload(100, 2))],
        clock=pairs,
        ticks=[tick_count(0, 3), tick_count(1, 2)],
        events=[LoggedEvent(9, "warning", "fake", "it failed", 1)],
        meta={"work_pid": "12"},
    )
    writer.write(
        batches=[Batch(0, 1, payload(3, 1))],
        ticks=[tick_count(0, 4)],
        events=[LoggedEvent(9, "warning", "fake", "it failed", 3), LoggedEvent(4, "info", "x", "y", 1)],
        meta={"work_pid": "13"},
    )
    writer.close()
    assert not path.with_name("spool.db-wal").exists()
    reader = SpoolReader(path)
    assert reader.meta() == {"spool_version": "1", "host": "node0", "work_pid": "13"}
    assert reader.streams() == [stream(0), stream(1)]
    assert list(reader.batches(0)) == [(3, payload(0, 3)), (1, payload(3, 1))]
    assert list(reader.batches(1)) == [(2, payload(100, 2))]
    assert reader.damaged == {0: 0, 1: 0}
    assert reader.clock() == pairs
    assert reader.ticks() == [tick_count(0, 4), tick_count(1, 2)]
    assert [(event.t_ns, event.text) for event in reader.events()] == [(4, "y"), (9, "it failed (3 times)")]
    reader.close()
    assert [file.name for file in tmp_path.iterdir()] == ["spool.db"]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 50)), max_size=4), max_size=8))
def test_batches_of_many_streams_keep_their_order(transactions: list[list[tuple[int, int]]]) -> None:
    expected: dict[int, list[int]] = {0: [], 1: [], 2: []}
    with tempfile.TemporaryDirectory() as directory:
        writer = SpoolWriter(Path(directory) / "spool.db", {})
        writer.write(streams=[stream(number) for number in expected])
        for transaction in transactions:
            batches = []
            for number, rows in transaction:
                first = len(expected[number])
                expected[number] += range(first, first + rows)
                batches.append(Batch(number, rows, payload(first, rows)))
            writer.write(batches=batches)
        reader = SpoolReader(writer.path)  # while the writer still has it open
        assert {number: instants(reader, number) for number in expected} == expected
        reader.close()
        writer.close()


def test_a_spool_is_never_written_over(tmp_path: Path) -> None:
    SpoolWriter(tmp_path / "spool.db", {}).close()
    with pytest.raises(SpoolUnwritable, match="is there already"):
        SpoolWriter(tmp_path / "spool.db", {})


def test_a_place_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpoolUnwritable, match="nowhere"):
        SpoolWriter(tmp_path / "nowhere" / "spool.db", {})


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A spool of 400 batches of 20 rows."""
    writer = SpoolWriter(tmp_path / "filled.db", {})
    writer.write(streams=[stream(0)])
    for batch in range(400):
        writer.write(batches=[Batch(0, 20, payload(20 * batch, 20))])
    writer.close()
    return writer.path


def test_a_batch_with_a_wrong_checksum_is_skipped_and_counted(filled: Path) -> None:
    with sqlite3.connect(filled) as database:
        database.execute("UPDATE batches SET crc32 = crc32 + 1 WHERE seq = 7")
        database.execute("UPDATE batches SET rows = 21 WHERE seq = 9")
        database.execute("UPDATE batches SET payload = 5 WHERE seq = 11")
    database.close()
    reader = SpoolReader(filled)
    assert len(instants(reader, 0)) == 397 * 20
    assert reader.damaged == {0: 3}
    reader.close()


def test_what_is_before_a_cut_can_be_read(filled: Path) -> None:
    size = filled.stat().st_size
    with filled.open("r+b") as file:
        file.truncate(size * 8 // 10)
    reader = SpoolReader(filled)
    found = instants(reader, 0)
    assert found[: 20 * 200] == list(range(20 * 200))
    assert len(found) < 20 * 400
    assert reader.damaged[0] > 0
    reader.close()


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_told_and_never_becomes_data(filled: Path, seed: int) -> None:
    """Noise anywhere in the file, or a cut: what is given is what was written, and the rest is a clear error."""
    chance = random.Random(seed)
    content = bytearray(filled.read_bytes())
    for _ in range(chance.choice([1, 5, 50])):
        place = chance.randrange(len(content))
        content[place : place + 8] = chance.randbytes(8)
    if chance.random() < 0.3:
        del content[chance.randrange(len(content)) :]
    filled.write_bytes(bytes(content))
    written = {payload(20 * batch, 20) for batch in range(400)}
    try:
        reader = SpoolReader(filled)
        reader.meta(), reader.clock(), reader.ticks(), reader.events()
        for found in reader.streams():
            assert all(packed in written for _, packed in reader.batches(found.id))
    except SpoolDamaged as error:
        assert str(filled) in str(error)


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be one" * 50])
def test_what_is_no_spool_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(content)
    with pytest.raises(SpoolDamaged, match="cannot be read"):
        SpoolReader(path)


def test_a_spool_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpoolDamaged, match="there is no spool"):
        SpoolReader(tmp_path / "spool.db")


def test_a_spool_of_another_version_is_told(tmp_path: Path) -> None:
    SpoolWriter(tmp_path / "spool.db", {"spool_version": "99"}).close()
    with pytest.raises(SpoolDamaged, match="version 99"):
        SpoolReader(tmp_path / "spool.db")


def test_a_writer_that_is_killed_leaves_its_last_transaction(tmp_path: Path) -> None:
    program = f"""
import os, signal
from pathlib import Path
from power_agent.spool import Batch, SpoolWriter
writer = SpoolWriter(Path({str(tmp_path / "spool.db")!r}), {{}})
writer.write(meta={{"number": "1"}})
writer.write(meta={{"number": "2"}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    assert (tmp_path / "spool.db-wal").exists()
    reader = SpoolReader(tmp_path / "spool.db")
    assert reader.meta()["number"] == "2"
    reader.close()
    # A copy made without the -wal file is older, but whole.
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "spool.db", tmp_path / "copy" / "spool.db")
    with pytest.raises(SpoolDamaged):
        SpoolReader(tmp_path / "copy" / "spool.db")


def test_what_finds_no_place_can_be_written_later(tmp_path: Path) -> None:
    """The disk is full, here by a limit on the size of files, and then it is not."""
    writer = SpoolWriter(tmp_path / "spool.db", {})
    writer.write(streams=[stream(0)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(SpoolUnwritable, match="free some space"):
            writer.write(batches=[Batch(0, 10_000, payload(0, 10_000))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.write(batches=[Batch(0, 10_000, payload(0, 10_000))])
    writer.close()
    reader = SpoolReader(tmp_path / "spool.db")
    assert instants(reader, 0) == list(range(10_000))
    reader.close()
