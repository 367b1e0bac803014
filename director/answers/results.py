"""From a session's raw files to its answers: phases.parquet, energies.parquet and summary.json.

Everything is computed from raw files alone and in a fixed order, so that a second time gives the same bytes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from director.answers.metrics import session_metrics
from director.answers.progress import Step
from director.answers.summary import EnergyFigure, PhaseGroup, Sampling, Summary
from director.answers.summary_warnings import energy_warnings, session_warnings
from director.energy.cells import Floats, Ints
from director.energy.channel_check import find_flaw
from director.energy.component_energy import Intervals, Source, component_energy
from director.energy.components import Component, build_tree, children, roots
from director.energy.energy_table import EnergyTableWriter
from director.energy.group_energy import component_figure, idle_watts, not_explained, total_figure, union
from director.phases.session_phases import read_phases
from director.phases.table import PhaseTable, write_phases
from director.session.files import SessionError, load_manifest, lost_files, write_durably
from director.session.manifest import Manifest, StreamFile
from director.session.session_clocks import SessionClocks
from director.session.trace_store import Piece
from drivers.contract import Channel

MOST_GROUPS = 100  # phase names listed in the summary; energies.parquet holds all
MOST_POINTS = 1000


@dataclass(frozen=True)
class _Group:
    name: str
    phases: Ints  # rows of the phase table
    intervals: Ints  # rows of the intervals: disjoint, of the same time
    duration_ns: int  # of the union


def write_results(session: Path, progress: Step = lambda _name, _done, _of: None) -> Summary:
    """Compute everything from the raw files of a complete session and write it beside them.

    Raises:
        SessionError: the session is not complete, or a raw file is missing or damaged.
    """
    manifest = load_manifest(session)
    if manifest.state not in ("complete", "recovered"):
        raise SessionError(f"{session} was not finished: run `power-director recover {session}` first")
    clocks = SessionClocks(session, manifest)
    begin_ns, end_ns = _span(manifest, clocks)
    table, points, problems = read_phases(session, manifest, clocks, begin_ns, end_ns)
    write_phases(session / "phases.parquet", table)
    groups, left_out, intervals, phases_of = _groups(table, manifest)
    timed = _Timed(clocks, intervals, phases_of, table)
    channels = [(h.name, channel) for h in manifest.hosts for file in h.streams for channel in file.stream.channels]
    flaws = [(host, channel, find_flaw(channel)) for host, channel in channels]
    tree = build_tree([(host, channel) for host, channel, flaw in flaws if not flaw])
    figures: list[dict[str, EnergyFigure]] = [{} for _ in groups]  # per group, by component
    idle: dict[str, float] = {}
    doubts = [f"{c.name} of {host} is left out: its driver tells of {flaw}" for host, c, flaw in flaws if flaw]
    doubts += lost_files(session, manifest)
    with EnergyTableWriter(session / "energies.parquet", len(table)) as writer:
        for number, component in enumerate(tree):  # one at a time: with many phases each takes much memory
            progress(component.name, number, len(tree))
            energy = component_energy(
                component, _sources(manifest, clocks, component), timed.on(component.host), begin_ns
            )
            writer.write(energy)
            doubts += energy_warnings(energy)
            watts = idle_watts(energy)
            if watts is not None:
                idle[component.name] = watts
            for group, found in zip(groups, figures, strict=True):
                found[component.name] = component_figure(energy, group.intervals)
    problems += clocks.warnings()
    cut = roots(tree)
    phases = [
        _phase_group(group, table, found, tree, cut, begin_ns) for group, found in zip(groups, figures, strict=True)
    ]
    run = next((p for p in phases if p.name == "run"), phases[0])
    workload = manifest.workload
    summary = Summary(
        session=manifest.session,
        label=manifest.label,
        tool_version=manifest.tool_version,
        command=workload.argv if workload is not None else [],
        exit_code=workload.exit_code if workload is not None else None,
        signal=workload.signal if workload is not None else None,
        estimate_only=bool(tree) and all(c.estimate for c in tree),
        scope_of_total=_scope_of_total(cut, tree),
        metrics=session_metrics(phases, manifest.factors),
        phases=phases,
        phases_left_out=left_out,
        idle_watts=idle,
        sampling=_sampling(manifest),
        points=[f"{(p.t_ns - begin_ns) * 1e-9:.3f} s {p.name}" for p in points[:MOST_POINTS]],
        warnings=session_warnings(manifest, tree, phases, run, [*doubts, *problems]),
    )
    write_durably(session / "summary.json", msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n")
    return summary


def _span(manifest: Manifest, clocks: SessionClocks) -> tuple[int, int]:
    """Begin and end of the command; where nothing was run or its edges were not seen, of the traces."""
    begin, end, _ = clocks.workload_span()
    if begin is None or end is None:
        first, last = None, None
        for host in manifest.hosts:
            for file in host.streams:
                for piece in clocks.pieces(host.name, file, []):
                    if len(piece.t_ns):
                        low, high = int(piece.t_ns.min()), int(piece.t_ns.max())
                        first = low if first is None else min(first, low)
                        last = high if last is None else max(last, high)
        if begin is None:
            begin = first if first is not None else (end if end is not None else 0)
        if end is None:
            end = last if last is not None and last > begin else begin
    return begin, end


class _Timed:
    """How wrong the edges of intervals may be against the readings of each host, kept for one host at a time."""

    def __init__(self, clocks: SessionClocks, intervals: Intervals, phases_of: list[Ints], table: PhaseTable) -> None:
        self._clocks = clocks
        self._intervals = intervals
        of_phases = table.host_code.astype(np.int64)
        unions = [of_phases[rows[0]] if (of_phases[rows] == of_phases[rows[0]]).all() else -1 for rows in phases_of]
        self._host_code = np.concatenate((of_phases, np.array(unions, np.int64)))
        self._hosts = table.hosts
        self._kept = ("", intervals)

    def on(self, host: str) -> Intervals:
        """The intervals with their bounds against this host's readings.

        Marks and readings of one host bear one clock, so that nothing which ties it to the session's comes between
        them. Where the marks are of another host, what ties either may be wrong.
        """
        if self._kept[0] != host:
            self._kept = host, self._with_bounds(host)
        return self._kept[1]

    def _with_bounds(self, host: str) -> Intervals:
        mine = self._bound(host)
        if mine is None:
            return self._intervals
        own = self._host_code == (self._hosts.index(host) if host in self._hosts else -2)
        bound = self._intervals.time_bound_ns
        return replace(self._intervals, time_bound_ns=np.where(own, np.maximum(bound - mine, 0.0), bound + mine))

    def _bound(self, host: str) -> Floats | None:
        edges = [self._clocks.bound_at(host, at) for at in (self._intervals.begin_ns, self._intervals.end_ns)]
        if edges[0] is None or edges[1] is None:
            return None
        return np.maximum(edges[0], edges[1]).astype(np.float64)


def _groups(table: PhaseTable, manifest: Manifest) -> tuple[list[_Group], int, Intervals, list[Ints]]:
    """Phases by name, the command and the run first, then the longest, and the intervals to give energies for.

    Of many names only those that last longest are told, and between them the number of the others. The first intervals
    are the phases themselves. A name whose phases overlap gets the union of its time besides; the last list holds,
    for each interval of those, the rows of its phases.
    """
    begins, ends, bounds = [table.begin_ns], [table.end_ns], [table.time_bound_ns.astype(np.float64)]
    count = len(table)
    groups: list[_Group] = []
    phases_of: list[Ints] = []
    lasting = np.bincount(table.name_code, weights=table.end_ns - table.begin_ns).tolist()
    codes = np.flatnonzero(np.bincount(table.name_code)).tolist()
    names = table.names
    longest = heapq.nsmallest(MOST_GROUPS, codes, key=lambda c: (c != 0, names[c] != "run", -lasting[c], names[c]))
    for code in longest:
        rows = np.flatnonzero(table.name_code == code)
        begin, end = union(table.begin_ns[rows], table.end_ns[rows])
        intervals = rows
        if len(begin) != len(rows):
            intervals = np.arange(count, count + len(begin))
            phases_of += [rows] * len(begin)
            count += len(begin)
            begins.append(begin)
            ends.append(end)
            bounds.append(np.full(len(begin), float(table.time_bound_ns[rows].max())))
        groups.append(_Group(names[code], rows, intervals, int((end - begin).sum())))
    idle = [(int(a), int(b)) for a, b in manifest.idle_ns]
    intervals_of_all = Intervals(np.concatenate(begins), np.concatenate(ends), np.concatenate(bounds), idle)
    return groups, len(codes) - len(groups), intervals_of_all, phases_of


def _sources(manifest: Manifest, clocks: SessionClocks, component: Component) -> list[Source]:
    """The component's channels with the way to read their rows."""

    def pieces(file: StreamFile, channel: Channel) -> Iterator[Piece]:
        return clocks.pieces(component.host, file, [channel])

    return [
        Source(channel, file.stream.rate_hz, partial(pieces, file, channel))
        for host in manifest.hosts
        if host.name == component.host
        for file in host.streams
        for channel in file.stream.channels
        if channel in component.channels
    ]


def _phase_group(
    group: _Group,
    table: PhaseTable,
    figures: dict[str, EnergyFigure],
    tree: Sequence[Component],
    cut: Sequence[Component],
    origin_ns: int,
) -> PhaseGroup:
    first = int(group.phases[table.begin_ns[group.phases].argmin()])
    parts = [(c, figures[c.name], c.channels[0].model) for c in cut]
    unexplained = [not_explained(c, figures, tree) for c in cut if children(c, tree)]
    work = {
        unit: float(np.nansum(amount[group.phases]))
        for unit, amount in table.work.items()
        if np.isfinite(amount[group.phases]).any()
    }
    return PhaseGroup(
        name=group.name,
        count=len(group.phases),
        lane_count=int(np.bincount(table.lane_code[group.phases]).max()),
        duration_s=group.duration_ns / 1e9,
        first_begin_s=float(table.begin_ns[first] - origin_ns) / 1e9,
        work=work,
        flagged=int(np.count_nonzero(table.flags[group.phases])),
        total=total_figure("total", parts),
        components=list(figures.values()),
        not_explained=[f for f in unexplained if f is not None],
        attributes={k: str(v) for k, v in table.attributes.get(first, {}).items()},
    )


def _scope_of_total(outer: Sequence[Component], tree: Sequence[Component]) -> str:
    """What the total covers and what it leaves out, in words."""
    if not tree:
        return "nothing: no power or energy was measured"
    names = [c.name for c in outer or tree]
    listed = ", ".join(names if len(names) <= 8 else [*names[:7], f"and {len(names) - 7} more"])
    if not outer:
        return f"nothing: which of {listed} contain each other is unknown, so they cannot be added up"
    if not outer[0].counted:
        return f"{listed}: whatever it feeds; its place in the machine is unknown"
    scopes = {c.scope for c in outer}
    if scopes == {"wall"}:
        return f"{listed}: all that the plug feeds"
    if scopes <= {"wall", "node"}:
        return f"{listed}: the whole machine"
    return f"{listed}: without fans, power supply losses, disks, network and whatever else has no sensor here"


def _sampling(manifest: Manifest) -> list[Sampling]:
    rows: list[Sampling] = []
    for host in manifest.hosts:
        ticks = {tick.stream: tick for tick in host.ticks}
        for file in host.streams:
            tick = ticks.get(file.stream.id)
            if tick is None:
                continue
            rows.append(
                Sampling(
                    stream=f"{host.name}/{file.stream.driver}.{file.stream.group}",
                    rate_hz=file.stream.rate_hz,
                    due=tick.due,
                    taken=tick.taken,
                    late=tick.late,
                    missed=tick.missed,
                    extra=tick.extra,
                    dropped_rows=tick.dropped_rows,
                    damaged_batches=file.damaged_batches,
                )
            )
    return rows
