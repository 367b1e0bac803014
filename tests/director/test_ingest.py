"""Spool to session: every reading arrives with its status, cut off anywhere it can be done again, damage is told."""

from __future__ import annotations

import hashlib
import math
import os
import sqlite3
import time
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from director.session.files import SessionError, hold, load_manifest, spool_path, store_manifest
from director.session.ingest import ingest
from director.session.manifest import Host, Manifest, PhaseSource, Workload
from drivers.contract import Channel, Status
from power_agent.clock import ClockPair
from power_agent.event_log import LoggedEvent
from power_agent.messages import ReplayClockSpec, Stream, TickCount
from power_agent.row_format import row_struct
from power_agent.spool import Batch, SpoolWriter

POWER = Channel(name="d/gpu0/power", device="gpu0", quantity="power", unit="W", kind="gauge")
ENERGY = Channel(name="d/gpu0/energy", device="gpu0", quantity="energy", unit="J", kind="counter", scale=1e-3)
STREAM = Stream(id=0, driver="d", group="power", rate_hz=10.0, channels=[POWER, ENERGY])
OTHER = Stream(id=1, driver="d", group="slow", rate_hz=1.0, channels=[ENERGY])
BIG = (1 << 62) + 1  # not to be had in a float


def packed(stream: Stream, rows: list[tuple[int, int, list[float], list[Status]]]) -> Batch:
    layout = row_struct(stream.channels)
    payload = b"".join(layout.pack(t_ns, read_ns, *values, bytes(status)) for t_ns, read_ns, values, status in rows)
    return Batch(stream.id, len(rows), payload)


def counting_batch(first: int, rows: int) -> Batch:
    """Row i stands at i × 100 ms, with power i and energy 1000 · i."""
    new = [Status.NEW, Status.NEW]
    return packed(STREAM, [(i * 10**8, 50_000, [float(i), 1000 * i], new) for i in range(first, first + rows)])


def make_session(folder: Path, batches: list[Batch], *, sources: tuple[PhaseSource, ...] = ()) -> Path:
    folder.mkdir()
    (folder / "spool").mkdir()
    (folder / "marks").mkdir()
    (folder / "marks/pid1").write_bytes(b"marks")
    manifest = Manifest(
        tool_version="0",
        session=folder.name,
        state="measuring",
        created_wall_ns=time.time_ns(),
        hosts=[Host(name="node0")],
        workload=Workload(argv=["job"], cwd=str(folder.parent), host="node0", started_ns=5),
        phase_sources=[PhaseSource(kind="marks", file="marks"), *sources],
    )
    store_manifest(folder, manifest)
    writer = SpoolWriter(spool_path(folder, "node0"), {"host": "node0"})
    tick = TickCount(stream=0, due=9, taken=7, late=1, missed=1, extra=0, dropped_rows=0, lateness_log2_us=[0] * 32)
    writer.write(
        streams=[STREAM, OTHER],
        batches=batches,
        clock=[ClockPair(1, 10**18, 100), ClockPair(10**9, 10**18 + 10**9, 90)],
        ticks=[tick],
        events=[LoggedEvent(3, "warning", "d", "something", 2)],
        meta={"work_ended_ns": "77"},
    )
    writer.close()
    return folder


def test_every_reading_arrives_with_its_status(tmp_path: Path) -> None:
    rows = [
        (100, 7, [1.5, 10], [Status.NEW, Status.NEW]),
        (200, 8, [1.5, 10], [Status.STALE, Status.STALE]),
        (300, 9, [math.nan, 0], [Status.MISSING, Status.MISSING]),
        (400, 9, [9e9, BIG], [Status.OVER_RANGE, Status.NEW]),
        (500, 9, [math.nan, BIG + 1], [Status.INVALID, Status.NEW]),
    ]
    session = make_session(tmp_path / "s", [packed(STREAM, rows[:2]), packed(STREAM, rows[2:])])
    manifest = ingest(session, "complete")

    table = pq.read_table(session / "traces/node0/d.power.parquet").to_pydict()
    assert table["t_ns"] == [100, 200, 300, 400, 500]
    assert table["read_ns"] == [7, 8, 9, 9, 9]
    assert table["d/gpu0/power"] == [1.5, 1.5, None, None, None]
    assert table["d/gpu0/energy"] == [10, 10, None, BIG, BIG + 1]
    assert table["d/gpu0/power:status"] == [0, 1, 2, 3, 4]
    assert table["d/gpu0/energy:status"] == [0, 1, 2, 0, 0]
    assert pq.read_table(session / "traces/node0/d.slow.parquet").num_rows == 0
    clock = pq.read_table(session / "traces/node0/clock.parquet").to_pydict()
    assert clock == {"monotonic_ns": [1, 10**9], "wall_ns": [10**18, 10**18 + 10**9], "bracket_ns": [100, 90]}

    assert manifest == load_manifest(session)
    host = manifest.hosts[0]
    assert [(file.file, file.rows, file.damaged_batches) for file in host.streams] == [
        ("traces/node0/d.power.parquet", 5, 0),
        ("traces/node0/d.slow.parquet", 0, 0),
    ]
    assert host.streams[0].stream == STREAM
    assert host.ticks[0].due == 9
    assert host.events[0].text == "something (2 times)"
    assert manifest.state == "complete"
    assert manifest.missing == []
    assert manifest.workload is not None
    assert (manifest.workload.started_ns, manifest.workload.ended_ns) == (5, 77)
    assert not (session / "spool").exists()
    assert set(manifest.checksums) == {
        "marks/pid1",
        "traces/node0/clock.parquet",
        "traces/node0/d.power.parquet",
        "traces/node0/d.slow.parquet",
    }
    for name, checksum in manifest.checksums.items():
        assert hashlib.sha256((session / name).read_bytes()).hexdigest() == checksum


def test_small_batches_become_large_row_groups(tmp_path: Path) -> None:
    session = make_session(tmp_path / "s", [counting_batch(i * 5, 5) for i in range(400)])
    ingest(session, "complete")
    file = pq.ParquetFile(session / "traces/node0/d.power.parquet")
    assert file.metadata.num_row_groups == 1
    assert file.read()["d/gpu0/energy"].to_pylist() == [1000 * i for i in range(2000)]


def test_cut_off_and_done_again_it_gives_the_same(tmp_path: Path) -> None:
    whole = make_session(tmp_path / "whole", [counting_batch(0, 50)])
    expected = ingest(whole, "complete").checksums
    session = make_session(tmp_path / "s", [counting_batch(0, 50)])
    # What a kill in the middle leaves: a half written file, a finished one, and the old manifest.
    traces = session / "traces/node0"
    traces.mkdir(parents=True)
    (traces / "d.power.parquet.part").write_bytes(b"half")
    (traces / "d.slow.parquet").write_bytes(b"of an earlier try")
    spool = spool_path(session, "node0").read_bytes()
    assert ingest(session, "complete").checksums == expected
    # Killed after the manifest, before the spool was gone: again, and after a half done removal, too.
    (session / "spool").mkdir()
    spool_path(session, "node0").write_bytes(spool)
    (session / "spool.done").mkdir()
    (session / "spool.done/left").write_bytes(b"")
    assert ingest(session, "complete").checksums == expected
    assert sorted(path.name for path in session.iterdir()) == ["manifest.json", "marks", "traces"]
    assert ingest(session, "complete") == load_manifest(session)
    assert load_manifest(session).hosts[0].streams[0].rows == 50


def test_a_damaged_batch_is_told_of_and_the_rest_kept(tmp_path: Path) -> None:
    session = make_session(tmp_path / "s", [counting_batch(0, 5), counting_batch(5, 5), counting_batch(10, 5)])
    with sqlite3.connect(spool_path(session, "node0")) as database:
        database.execute("UPDATE batches SET payload = zeroblob(length(payload)) WHERE seq = 2")
    database.close()
    manifest = ingest(session, "recovered")
    stamps = pq.read_table(session / "traces/node0/d.power.parquet")["t_ns"].to_pylist()
    assert stamps == [i * 10**8 for i in (*range(5), *range(10, 15))]
    assert manifest.hosts[0].streams[0].damaged_batches == 1
    assert "1 batches of d.power" in manifest.missing[0]
    assert spool_path(session, "node0").exists(), "what could not be read back is not thrown away"
    assert ingest(session, "recovered") == manifest


def test_an_alien_spool_is_named_and_kept(tmp_path: Path) -> None:
    session = make_session(tmp_path / "s", [])
    spool = spool_path(session, "node0")
    spool.write_bytes(b"this is a text file\n" * 100)
    manifest = ingest(session, "recovered")
    assert str(spool) in manifest.missing[0]
    assert "All readings of node0 are missing" in manifest.missing[0]
    assert spool.exists()


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1), st.booleans(), st.integers(0, 2**32))
def test_a_truncated_or_overwritten_spool_never_stops_it(
    tmp_path_factory: pytest.TempPathFactory, where: float, cut: bool, noise: int
) -> None:
    session = make_session(tmp_path_factory.mktemp("fuzz") / "s", [counting_batch(i * 50, 50) for i in range(20)])
    spool = spool_path(session, "node0")
    content = bytearray(spool.read_bytes())
    place = int(where * (len(content) - 8))
    if cut:
        del content[place:]
    else:
        content[place : place + 8] = noise.to_bytes(8, "little")
    spool.write_bytes(content)
    manifest = ingest(session, "recovered")
    assert manifest.state == "recovered"
    for file in manifest.hosts[0].streams:
        rows = pq.read_table(session / file.file)
        assert rows.num_rows == file.rows
        for t_ns, energy in zip(rows["t_ns"].to_pylist(), rows[ENERGY.name].to_pylist(), strict=True):
            assert energy == t_ns // 10**5, "a reading that is kept is right"


def test_logs_are_copied_once_and_stale_or_absent_ones_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "lg").mkdir()
    session = make_session(
        tmp_path / "s",
        [],
        sources=(
            PhaseSource(kind="loadgen", file="logs/mlperf_log_detail.txt", origin=str(tmp_path / "lg")),
            PhaseSource(kind="mllog", file="logs/mllog", origin=str(tmp_path / "old.log")),
            PhaseSource(kind="regex", file="logs/phase-log", origin=str(tmp_path / "absent.log"), pattern="a=b"),
            PhaseSource(kind="regex", file="logs/stdout.log", arrival_file="logs/stdout.arrivals", pattern="a=b"),
        ),
    )
    (tmp_path / "lg/mlperf_log_detail.txt").write_text("of this run")
    (tmp_path / "old.log").write_text("of yesterday")
    yesterday = time.time() - 86_400
    os.utime(tmp_path / "old.log", (yesterday, yesterday))
    (session / "spool/stdout.log").write_bytes(b"output")
    (session / "spool/stdout.arrivals").write_bytes(bytes(16))
    manifest = ingest(session, "complete")
    assert sorted(path.name for path in (session / "logs").iterdir()) == [
        "mlperf_log_detail.txt",
        "stdout.arrivals",
        "stdout.log",
    ]
    assert "old.log was not written during this run" in manifest.missing[0]
    assert "absent.log cannot be read" in manifest.missing[1]
    assert "logs/stdout.log" in manifest.checksums
    (tmp_path / "lg/mlperf_log_detail.txt").write_text("of a later run")
    ingest(session, "complete")
    assert (session / "logs/mlperf_log_detail.txt").read_text() == "of this run"


def test_a_replayed_trace_brings_the_logs_of_its_own_time(tmp_path: Path) -> None:
    log = tmp_path / "mlperf_log_detail.txt"
    source = PhaseSource(kind="loadgen", file="logs/mlperf_log_detail.txt", origin=str(log))
    session = make_session(tmp_path / "s", [], sources=(source,))
    log.write_text("of last year")
    os.utime(log, (1.6e9, 1.6e9))
    clock = ReplayClockSpec(monotonic_origin_ns=0, wall_origin_ns=16 * 10**17, speed=1.0)
    store_manifest(session, msgspec.structs.replace(load_manifest(session), replay_clock=clock))
    assert ingest(session, "complete").missing == []
    assert (session / "logs/mlperf_log_detail.txt").read_text() == "of last year"


def test_two_cannot_work_in_a_session_at_once(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(SessionError, match="another power-director"), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_a_manifest_that_is_none_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="not a session directory"):
        load_manifest(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text('{"schema_version": 99, "of": "the future"}')
    with pytest.raises(SessionError, match=r"newer version .* update ml-power-agent"):
        load_manifest(tmp_path)
    for content in (b"", b"{", b'{"schema_version": 1}', b"\xff\xfe", b"[" * 100_000, b"null"):
        path.write_bytes(content)
        with pytest.raises(SessionError, match=r"manifest\.json"):
            load_manifest(tmp_path)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5)))
def test_any_manifest_is_read_or_plainly_refused(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    session = tmp_path_factory.getbasetemp()
    fields = {"schema_version": 1, "tool_version": "0", "session": "s", "state": "complete", "created_wall_ns": 0}
    raw = content if isinstance(content, bytes) else msgspec.json.encode({**fields, "hosts": content})
    (session / "manifest.json").write_bytes(raw)
    try:
        load_manifest(session)
    except SessionError as error:
        assert "manifest.json" in str(error)
