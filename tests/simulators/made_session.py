"""Session directories made of given readings and marks, as a run would have left them; no process is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from director.session.files import store_manifest
from director.session.manifest import Host, Manifest, StreamFile, Workload
from director.session.trace_store import Piece, TraceWriter
from drivers.contract import Channel, Status
from power_agent.messages import Stream

HOST = "node0"
WALL_ORIGIN_NS = 1_700_000_000_000_000_000  # wall time at the monotonic instant 0


def made_stream(
    session: Path,
    channels: Sequence[Channel],
    t_ns: np.ndarray,
    values: Sequence[np.ndarray],
    *,
    rate_hz: float,
    statuses: Sequence[np.ndarray] | None = None,
    number: int = 0,
) -> StreamFile:
    """Write one stream's trace: raw values per channel at the same instants."""
    stream = Stream(id=number, driver="made", group=f"g{number}", rate_hz=rate_hz, channels=list(channels))
    name = f"traces/{HOST}/made.g{number}.parquet"
    writer = TraceWriter(session / name, stream)
    good = np.full(len(t_ns), Status.NEW, dtype=np.uint8)
    kept = [good] * len(channels) if statuses is None else list(statuses)
    writer.write(Piece(t_ns, np.zeros(len(t_ns), np.int64), list(values), kept))
    writer.close()
    return StreamFile(stream=stream, file=name, rows=len(t_ns))


def made_clock(session: Path, begin_ns: int, end_ns: int, wall_origin_ns: int = WALL_ORIGIN_NS) -> str:
    """Write clock pairs, one a second, of a wall clock that never stepped; `wall_origin_ns`: at the instant 0."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    at = np.arange(begin_ns, end_ns + 1_000_000_000, 1_000_000_000)
    name = f"traces/{HOST}/clock.parquet"
    (session / name).parent.mkdir(parents=True, exist_ok=True)
    columns = {"monotonic_ns": at, "wall_ns": at + wall_origin_ns, "bracket_ns": np.full(len(at), 1000)}
    pq.write_table(pa.table(columns), session / name)
    return name


def made_manifest(
    session: Path, files: Sequence[StreamFile], span_ns: tuple[int | None, int | None] | None, **more: Any
) -> Manifest:
    """Write the manifest of a complete session; `span_ns`: begin and end of the command. None: there was none."""
    workload = None
    if span_ns is not None:
        workload = Workload(argv=["job"], cwd="/", host=HOST, started_ns=span_ns[0], ended_ns=span_ns[1], exit_code=0)
    host = Host(name=HOST, streams=list(files), clock_file=more.pop("clock_file", ""))
    more.setdefault("state", "complete")
    manifest = Manifest(
        tool_version="0", session=session.name, created_wall_ns=WALL_ORIGIN_NS, hosts=[host], workload=workload, **more
    )
    store_manifest(session, manifest)
    return manifest


def made_marks(
    session: Path,
    phases: Sequence[tuple[str, int, int] | tuple[str, int, int, Mapping[str, float]]],
    *,
    pid: int = 1,
    rank: int | None = None,
) -> None:
    """Write the marks of one process: phases by name, begin and end (ns), and what they did."""
    import msgspec

    folder = session / "marks"
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[tuple[int, int, dict[str, Any]]] = []
    for name, begin, end, *work in phases:
        lines.append((begin, 1, {"op": "begin", "name": name, "thread": 1, "t_ns": begin}))
        done = {"work": work[0]} if work else {}
        lines.append((end, 0, {"op": "end", "name": name, "thread": 1, "t_ns": end, "begin_ns": begin, **done}))
    header = {"op": "header", "version": 1, "pid": pid, "rank": rank}
    with (folder / f"{pid}-0.marks").open("wb") as file:
        file.write(msgspec.json.encode(header) + b"\n")
        for _, _, line in sorted(lines, key=lambda line: line[:2]):
            file.write(msgspec.json.encode(line) + b"\n")
