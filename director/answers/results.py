"""From a session's raw files to its answers: phases.parquet, energies.parquet and summary.json.

Everything is computed from raw files alone and in a fixed order, so that a second time gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from director.answers.host_results import Gathered, host_warnings, names_text, over_hosts, told_hosts, tree_of
from director.answers.meter_places import check_measured, counted_twice
from director.answers.metrics import session_metrics
from director.answers.phase_intervals import HostIntervals, IntervalMaker, PhaseName, join_hosts, phase_names
from director.answers.progress import Step
from director.answers.questions import NO_QUESTIONS, Questions
from director.answers.scaling import scaling
from director.answers.summary import EnergyFigure, OverHosts, PhaseGroup, Sampling, Summary
from director.answers.summary_warnings import energy_warnings, session_warnings
from director.energy.channel_check import find_flaw
from director.energy.component_energy import Source, component_energy
from director.energy.components import Component, roots
from director.energy.energy_table import EnergyTableWriter
from director.energy.group_energy import idle_watts, not_explained, total_figure
from director.phases.session_phases import read_phases
from director.phases.table import PhaseTable, write_phases
from director.session.files import SessionError, load_manifest, lost_files, write_durably
from director.session.fleet_record import stage_notes
from director.session.manifest import Manifest, StreamFile
from director.session.session_clocks import SessionClocks
from director.session.trace_store import Piece
from drivers.contract import Channel

MOST_POINTS = 1000
MOST_FIGURES = 20_000  # of devices, over all phase names, that summary.json lists


def write_results(
    session: Path, progress: Step = lambda _name, _done, _of: None, questions: Questions = NO_QUESTIONS
) -> Summary:
    """Compute everything from the raw files of a complete session and write it beside them.

    Raises:
        SessionError: the session is not complete, a raw file is missing or damaged, or it cannot answer a question.
    """
    manifest = load_manifest(session)
    if manifest.state not in ("complete", "recovered"):
        raise SessionError(f"{session} was not finished: run `power-director recover {session}` first")
    clocks = SessionClocks(session, manifest)
    begin_ns, end_ns = _span(manifest, clocks)
    table, points, problems = read_phases(session, manifest, clocks, begin_ns, end_ns)
    names, left_out = phase_names(table)
    hosts = [host.name for host in manifest.hosts]
    together = join_hosts(table, names, hosts) if len(hosts) > 1 else None
    write_phases(session / "phases.parquet", table, None if together is None else together.joined)
    channels = [(h.name, channel) for h in manifest.hosts for file in h.streams for channel in file.stream.channels]
    flaws = [(host, channel, find_flaw(channel)) for host, channel in channels]
    check_measured(questions.measures, hosts)
    tree = tree_of([(host, channel) for host, channel, flaw in flaws if not flaw], questions)
    cut = roots(tree)
    gathered = Gathered(names, together)
    idle: dict[str, float] = {}
    doubts = [f"{c.name} of {host} is left out: its driver tells of {flaw}" for host, c, flaw in flaws if flaw]
    doubts += lost_files(session, manifest)
    idle_ns = [(int(a), int(b)) for a, b in manifest.idle_ns]
    maker = IntervalMaker(table, names, idle_ns, together, clocks.bound_at)
    outermost = {component.name for component in cut}
    with EnergyTableWriter(session / "energies.parquet") as writer:
        made: tuple[tuple[str, str], HostIntervals] | None = None
        for number, component in enumerate(tree):  # one at a time: with many phases each takes much memory
            progress(component.name, number, len(tree))
            if made is None or made[0] != (component.host, component.measures):
                made = (component.host, component.measures), maker.of(component.host, component.measures)
            intervals = made[1]
            sources = _sources(manifest, clocks, component)
            energy = component_energy(component, sources, intervals.intervals, begin_ns)
            writer.write(energy, intervals.phases)
            doubts += energy_warnings(energy)
            watts = idle_watts(energy)
            if watts is not None:
                idle[component.name] = watts
            gathered.take(energy, intervals, outermost=component.name in outermost)
    problems += clocks.warnings()
    twice = counted_twice(cut, _hosts_at_work(manifest, table)) if together is not None else []
    inside = _inside(tree)
    listed = len(tree) * len(names) <= MOST_FIGURES
    phases = [
        _phase_group(name, table, found, inside, cut, begin_ns, listed=listed or name.name in ("command", "run"))
        for name, found in zip(names, gathered.figures, strict=True)
    ]
    if not listed:
        doubts.append(
            f"{len(tree)} devices: summary.json lists them for command and run only; energies.parquet has all"
        )
    run = next((p for p in phases if p.name == "run"), phases[0])
    workload = manifest.workload
    asked = together is not None or questions.about_interconnect
    over = over_hosts(manifest, table, gathered, tree, phases, maker, questions) if asked else msgspec.UNSET
    summary = Summary(
        session=manifest.session,
        label=manifest.label,
        tool_version=manifest.tool_version,
        command=workload.argv if workload is not None else [],
        exit_code=workload.exit_code if workload is not None else None,
        signal=workload.signal if workload is not None else None,
        estimate_only=bool(tree) and all(c.estimate for c in tree),
        scope_of_total=_scope_of_total(cut, tree, over),
        metrics=session_metrics(phases, manifest.factors),
        phases=phases,
        phases_left_out=left_out,
        idle_watts=idle,
        sampling=_sampling(manifest),
        points=[f"{(p.t_ns - begin_ns) * 1e-9:.3f} s {p.name}" for p in points[:MOST_POINTS]],
        warnings=session_warnings(
            manifest, tree, phases, run, [*twice, *host_warnings(over), *doubts, *problems], told_hosts(over)
        ),
        notes=stage_notes(manifest.fleet) if manifest.fleet is not None and workload is not None else [],
        over_hosts=over,
    )
    if questions.against is not None:
        found = scaling(session, summary, questions.against)
        summary = msgspec.structs.replace(summary, scaling=found)
    write_durably(session / "summary.json", msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n")
    return summary


def _hosts_at_work(manifest: Manifest, table: PhaseTable) -> set[str]:
    """Hosts that marked a phase, or ran the command."""
    marked = {table.hosts[code] for code in np.unique(table.host_code).tolist()}
    return marked | ({manifest.workload.host} if manifest.workload is not None else set())


def _span(manifest: Manifest, clocks: SessionClocks) -> tuple[int, int]:
    """Begin and end of the command; where none was run, of the stages; where its edges were not seen, of the traces."""
    begin, end, _ = clocks.workload_span()
    spans = manifest.fleet.spans if manifest.fleet is not None else []
    if manifest.workload is None and spans and spans[-1].end_ns is not None:
        return spans[0].begin_ns, spans[-1].end_ns
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


def _inside(tree: Sequence[Component]) -> dict[str, list[Component]]:
    """By component, those that lie directly inside it."""
    found: dict[str, list[Component]] = {}
    for component in tree:
        if component.parent is not None:
            found.setdefault(component.parent.name, []).append(component)
    return found


def _phase_group(
    group: PhaseName,
    table: PhaseTable,
    figures: dict[str, EnergyFigure],
    inside: dict[str, list[Component]],
    cut: Sequence[Component],
    origin_ns: int,
    *,
    listed: bool,
) -> PhaseGroup:
    first = int(group.phases[table.begin_ns[group.phases].argmin()])
    parts = [(c, figures[c.name], c.channels[0].model) for c in cut]
    unexplained = [not_explained(c, figures, inside[c.name]) for c in cut if c.name in inside] if listed else []
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
        components=list(figures.values()) if listed else [],
        not_explained=[f for f in unexplained if f is not None],
        attributes={k: str(v) for k, v in table.attributes.get(first, {}).items()},
    )


def _scope_of_total(outer: Sequence[Component], tree: Sequence[Component], over: OverHosts | msgspec.UnsetType) -> str:
    """What the total covers and what it leaves out, in words."""
    if isinstance(over, OverHosts) and over.without_data and tree:
        missing = names_text([gap.host for gap in over.without_data])
        return f"{_scope_of_total(outer, tree, msgspec.UNSET)}; without {missing}, where nothing was measured"
    if not tree:
        return "nothing: no power or energy was measured"
    names = [c.name for c in outer or tree]
    listed = ", ".join(names if len(names) <= 8 else [*names[:7], f"and {len(names) - 7} more"])
    if not outer:
        return f"nothing: which of {listed} contain each other is unknown, so they cannot be added up"
    if any(not c.counted for c in outer):
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
