"""Makes a session of what the measuring processes left: spool to Parquet, logs, checksums, manifest.

Every step may be cut off and done again: the spool goes last, when all that was made of it is on disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import numpy as np

from director.session.files import SPOOL, load_manifest, spool_path, store_manifest, sync_directory
from director.session.log_files import collect_logs
from director.session.manifest import Host, Manifest, StreamFile, Workload
from director.session.sync_file import read_spool, sync_spool, write_parquet
from director.session.trace_store import Piece, TraceWriter
from power_agent.messages import Stream
from power_agent.spool import SpoolDamaged, SpoolReader

T = TypeVar("T")

_PIECE_BYTES = 8 << 20  # of rows from the spool that are in memory together, and then a row group
_SPOOL_DONE = "spool.done"


def ingest(session: Path, state: Literal["complete", "recovered"], keep: Collection[str] = ()) -> Manifest:
    """Convert all that the session's spool directory holds, and give the session its final state.

    A spool with damage is converted as far as it can be read, told of in `missing`, and kept. Those of the hosts in
    `keep` are kept, too: the rest of their readings is still to come.

    Raises:
        SessionError: the manifest cannot be read.
        OSError: the disk is full or fails; nothing is lost, do it again.
    """
    manifest = load_manifest(session)
    missing = list(manifest.missing)
    hosts, damaged = [], False
    workload = manifest.workload
    for host in manifest.hosts:
        path = spool_path(session, host.name)
        if path.exists():
            try:
                reader = SpoolReader(path)
            except SpoolDamaged as error:
                missing.append(f"{error}. All readings of {host.name} are missing; the file is kept")
                damaged = True
            else:
                try:
                    problems: list[str] = []
                    host = _take(session, host, reader, problems)
                    workload = _work_edges(workload, host.name, reader, problems)
                finally:
                    reader.close()
                missing += problems
                damaged = damaged or bool(problems)
        hosts.append(_take_exchanges(session, host))
    manifest = msgspec.structs.replace(manifest, hosts=hosts, workload=workload)
    _take_directors_clock(session, manifest, missing)
    missing += collect_logs(session, manifest)
    manifest = msgspec.structs.replace(
        manifest, state=state, missing=list(dict.fromkeys(missing)), checksums=_seal(session)
    )
    store_manifest(session, manifest)
    if not damaged:
        _remove_spool(session, keep)
    return manifest


def row_dtype(stream: Stream) -> np.dtype[np.void]:
    """The layout of a stream's rows in the spool, as `messages.Stream` describes it."""
    fields = [("t_ns", "<i8"), ("read_ns", "<i8")]
    fields += [(f"value{i}", "<f8" if c.kind == "gauge" else "<i8") for i, c in enumerate(stream.channels)]
    fields += [(f"status{i}", "u1") for i in range(len(stream.channels))]
    return np.dtype(fields)


def _take(session: Path, host: Host, reader: SpoolReader, problems: list[str]) -> Host:
    """Convert one host's spool."""
    folder = Path("traces", host.name)
    files: list[StreamFile] = []
    for stream in _read(reader.streams, problems):
        name = re.sub(r"[^\w.+-]", "_", f"{stream.driver}.{stream.group}")
        if any(Path(file.file).stem == name for file in files):
            name += f"-{stream.id}"
        file = str(folder / f"{name}.parquet")
        writer = TraceWriter(session / file, stream)
        for piece in _pieces(reader, stream):
            writer.write(piece)
        writer.close()
        lost = reader.damaged.get(stream.id, 0)
        if lost:
            problems.append(f"{lost} batches of {name} of {host.name} were damaged; the readings in them are missing")
        files.append(StreamFile(stream=stream, file=file, rows=writer.rows, damaged_batches=lost))
    clock_file = str(folder / "clock.parquet")
    pairs = _read(reader.clock, problems)
    if pairs:
        _write_clock(session / clock_file, pairs)
    return msgspec.structs.replace(
        host,
        streams=files,
        ticks=_read(reader.ticks, problems),
        events=_read(reader.events, problems),
        clock_file=clock_file if pairs else "",
    )


def _take_exchanges(session: Path, host: Host) -> Host:
    """Convert what ties the host's clock to the session's."""
    path = sync_spool(session, host.name)
    if not path.exists():
        return host
    exchanges, state = read_spool(path)
    file = f"traces/{host.name}/sync.parquet" if exchanges else ""
    if exchanges:
        write_parquet(session / file, exchanges)
    return msgspec.structs.replace(host, sync_file=file, clock_state=state)


def _take_directors_clock(session: Path, manifest: Manifest, problems: list[str]) -> None:
    """Convert the wall clock of the director's machine, where that is none of the hosts."""
    fleet, director = manifest.fleet, manifest.director
    if fleet is None or director is None or not spool_path(session, director.name).exists():
        return
    try:
        reader = SpoolReader(spool_path(session, director.name))
    except SpoolDamaged as error:
        problems.append(f"{error}. What was stamped by the wall clock of {director.name} cannot be placed")
        return
    try:
        fleet.director_clock_file = _take(session, director, reader, problems).clock_file
    finally:
        reader.close()


def _read(part: Callable[[], list[T]], problems: list[str]) -> list[T]:
    try:
        return part()
    except SpoolDamaged as error:
        problems.append(str(error))
        return []


def _pieces(reader: SpoolReader, stream: Stream) -> Iterator[Piece]:
    """The stream's rows, many batches at a time: a batch alone would make a tiny row group."""
    dtype = row_dtype(stream)
    payloads: list[bytes] = []
    size = 0
    for _, payload in reader.batches(stream.id):
        payloads.append(payload)
        size += len(payload)
        if size >= _PIECE_BYTES:
            yield _piece(b"".join(payloads), dtype, len(stream.channels))
            payloads, size = [], 0
    if payloads:
        yield _piece(b"".join(payloads), dtype, len(stream.channels))


def _piece(payload: bytes, dtype: np.dtype[np.void], channels: int) -> Piece:
    rows = np.frombuffer(payload, dtype)
    return Piece(
        t_ns=np.ascontiguousarray(rows["t_ns"]),
        read_ns=np.ascontiguousarray(rows["read_ns"]),
        values=[np.ascontiguousarray(rows[f"value{i}"]) for i in range(channels)],
        statuses=[np.ascontiguousarray(rows[f"status{i}"]) for i in range(channels)],
    )


def _write_clock(path: Path, pairs: Sequence[tuple[int, int, int]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = zip(*pairs, strict=True)
    names = ["monotonic_ns", "wall_ns", "bracket_ns"]
    table = pa.table({name: pa.array(column, pa.int64()) for name, column in zip(names, columns, strict=True)})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    pq.write_table(table, part, compression="zstd")
    part.rename(path)


def _work_edges(workload: Workload | None, host: str, reader: SpoolReader, problems: list[str]) -> Workload | None:
    """The work's begin and end as the sampler saw them, where the director did not live to see them."""
    if workload is None or workload.host != host:
        return workload
    meta = dict(_read(lambda: list(reader.meta().items()), problems))
    edges = {}
    for field, key in (("started_ns", "work_started_ns"), ("ended_ns", "work_ended_ns")):
        if getattr(workload, field) is None and meta.get(key, "").isdecimal():
            edges[field] = int(meta[key])
    return msgspec.structs.replace(workload, **edges)


def _seal(session: Path) -> dict[str, str]:
    """Make every raw file durable; their SHA-256 by relative path."""
    checksums = {}
    for folder in ("traces", "marks", "logs"):
        for path in sorted((session / folder).rglob("*")):
            if path.is_file() and path.suffix != ".part":
                checksums[str(path.relative_to(session))] = _seal_file(path)
            elif path.is_dir():
                sync_directory(path)
        if (session / folder).is_dir():
            sync_directory(session / folder)
    return checksums


def _seal_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
        os.fsync(file.fileno())
    return digest.hexdigest()


def _remove_spool(session: Path, keep: Collection[str]) -> None:
    kept = [spool_path(session, host).name for host in keep if spool_path(session, host).exists()]
    if kept:
        for path in (session / SPOOL).iterdir():
            if not path.name.startswith(tuple(kept)):  # each with its -wal and -shm
                path.unlink()
        return
    # Renamed first, so that a half removed spool is never taken for one that was cut short.
    done = session / _SPOOL_DONE
    if done.exists():
        shutil.rmtree(done)
    if (session / SPOOL).exists():
        (session / SPOOL).rename(done)
        shutil.rmtree(done)
    sync_directory(session)
