"""Sessions of several hosts with meters that read each second, whose energies can be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from director.session.files import store_manifest
from director.session.manifest import Host, Manifest, PhaseSource, StreamFile, Workload
from director.session.trace_store import Piece, TraceWriter
from drivers.contract import Accuracy, Channel, Scope, Status
from power_agent.messages import Stream

S = 1_000_000_000
ORIGIN_NS = 1000 * S


@dataclass(frozen=True)
class Meter:
    """Value i is the mean power of the second that begins at i; NaN: missing. `begin_s`: when readings begin."""

    watts: Any
    device: str = "wall"
    scope: Scope = "wall"
    model: str = "METER"
    reading_fraction: float = 0.01
    begin_s: int = 0
    estimate: bool = False


@dataclass(frozen=True)
class Marked:
    """One phase as a rank marked it."""

    name: str
    begin_s: float
    end_s: float
    index: int | None = None
    work: Mapping[str, float] = field(default_factory=dict)


def at(seconds: float) -> int:
    """An instant on the session's clock."""
    return ORIGIN_NS + round(seconds * S)


def made_fleet(
    session: Path,
    hosts: Mapping[str, Sequence[Meter]],
    phases: Mapping[tuple[str, int | None], Sequence[Marked]],
    seconds: float,
    **more: Any,
) -> Path:
    """Write a complete session. `phases` are by host and rank; the command lasts `seconds`."""
    made = []
    for name, meters in hosts.items():
        files = [_stream(session, name, meter, number) for number, meter in enumerate(meters)]
        made.append(Host(name=name, streams=files))
    for number, ((host, rank), marked) in enumerate(phases.items()):
        _marks(session / "marks" / host, marked, pid=1 + number % 2, rank=rank)  # hosts share process numbers
    first = next(iter(hosts))
    workload = Workload(argv=["train"], cwd="/", host=first, started_ns=at(0), ended_ns=at(seconds), exit_code=0)
    settings: dict[str, Any] = {"state": "complete", "workload": workload, "hosts": made}
    settings |= {"phase_sources": [PhaseSource(kind="marks", file="marks")], **more}
    manifest = Manifest(tool_version="0", session=session.name, created_wall_ns=1_700_000_000 * S, **settings)
    store_manifest(session, manifest)
    return session


def _stream(session: Path, host: str, meter: Meter, number: int) -> StreamFile:
    channel = Channel(
        name=f"made/{meter.device}/power",
        device=meter.device,
        quantity="power",
        unit="W",
        kind="gauge",
        scope=meter.scope,
        model=meter.model,
        update_period_s=1.0,
        window_s=1.0,
        stamped=True,
        estimate=meter.estimate,
        accuracy=Accuracy(reading_fraction=meter.reading_fraction),
    )
    stream = Stream(id=number, driver="made", group=f"g{number}", rate_hz=1.0, channels=[channel])
    values = np.asarray(meter.watts, dtype=float)
    status = np.where(np.isnan(values), Status.MISSING, Status.NEW).astype(np.uint8)
    t_ns = ORIGIN_NS + (meter.begin_s + np.arange(len(values)) + 1) * S
    name = f"traces/{host}/made.g{number}.parquet"
    writer = TraceWriter(session / name, stream)
    writer.write(Piece(t_ns, np.zeros(len(t_ns), np.int64), [values], [status]))
    writer.close()
    return StreamFile(stream=stream, file=name, rows=len(t_ns))


def _marks(folder: Path, marked: Sequence[Marked], *, pid: int, rank: int | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[tuple[int, int, dict[str, Any]]] = []
    for phase in marked:
        begin, end = at(phase.begin_s), at(phase.end_s)
        index = {} if phase.index is None else {"index": phase.index}
        lines.append((begin, 1, {"op": "begin", "name": phase.name, "thread": 1, "t_ns": begin, **index}))
        work = {"work": dict(phase.work)} if phase.work else {}
        lines.append((end, 0, {"op": "end", "name": phase.name, "thread": 1, "t_ns": end, "begin_ns": begin, **work}))
    header = {"op": "header", "version": 1, "pid": pid, "rank": rank}
    number = len(list(folder.glob("*.marks")))
    with (folder / f"{pid}-{number}.marks").open("wb") as file:
        file.write(msgspec.json.encode(header) + b"\n")
        for _, _, line in sorted(lines, key=lambda line: line[:2]):
            file.write(msgspec.json.encode(line) + b"\n")


def made_training(session: Path, hosts: int = 3, steps: int = 4, slow: int | None = None, **more: Any) -> Path:
    """Ranks that take 5 s for each step of 8 s and wait then; one that is slow takes 7 s.

    Host i draws 100·(i + 1) W in a step and 50 W else. The run lasts from 1 s to 3 + 8·steps s, the command 1 s longer.
    """
    names = [f"node{number}" for number in range(hosts)]
    slow = hosts - 1 if slow is None else slow
    seconds = 4 + 8 * steps
    meters, phases = {}, {}
    for number, name in enumerate(names):
        lasts = 7 if number == slow else 5
        one = [100.0 * (number + 1)] * lasts + [50.0] * (8 - lasts)
        meters[name] = [Meter([50.0] * 2 + one * steps + [50.0] * 2)]
        run = [Marked("run", 1, 3 + 8 * steps, None, {"samples": 8.0 * steps / hosts})]
        run += [Marked("step", 2 + 8 * i, 2 + 8 * i + lasts, i) for i in range(steps)]
        phases[name, number] = run
    return made_fleet(session, meters, phases, seconds, **more)
