"""All phases of a session: marks and logs read, put on the session's clock, and made one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from director.phases import builder as phase_builder
from director.phases.builder import LOG_RESOLUTION_NS, Point
from director.phases.sources import IsEarly, Problems, line_pattern, loadgen, mark_files, mllog
from director.phases.table import PhaseTable
from director.session.clock_pairs import ClockFileError, Instants, WallClock
from director.session.fleet_record import Fleet
from director.session.manifest import Host, Manifest, PhaseSource
from director.session.session_clocks import SessionClocks
from power_agent.messages import MarkEvent, ReplayClockSpec


def read_phases(
    session: Path, manifest: Manifest, clocks: SessionClocks, begin_ns: int, end_ns: int
) -> tuple[PhaseTable, list[Point], list[str]]:
    """Build the phase table of a session. Row 0 spans begin_ns … end_ns.

    Returns the table, the points in time that were marked, and what is wrong with the sources, in plain words.
    """
    hosts = {host.name: host for host in manifest.hosts} or {"": Host(name="")}
    if manifest.director is not None:
        hosts.setdefault(manifest.director.name, manifest.director)
    sources = [(hosts.get(source.host, next(iter(hosts.values()))), source) for source in manifest.phase_sources]
    sources += [of_host for _, source in sources for of_host in _folders(session, hosts, source)]
    warnings: list[str] = []
    walls: dict[str, WallClock] = {}
    for host in hosts.values():
        try:
            walls[host.name] = WallClock.from_file(session / host.clock_file)
            warnings += _steps(walls[host.name], host.name)
        except ClockFileError as error:
            if any(mine is host and source.kind != "marks" for mine, source in sources):
                warnings.append(f"phases stamped in wall time are left out: {error}")
    problems = Problems()
    several = bool(manifest.reference_boot_id) or len(manifest.hosts) > 1

    def place(name: str, clock: str, at: Instants) -> tuple[Instants, Instants] | None:
        host = name or next(iter(hosts))
        if host in clocks.lost or (clock == "wall" and host not in walls):
            return None
        of_wall = np.zeros(len(at), np.int64)
        if clock == "wall":
            at, of_wall = walls[host].to_monotonic(at)
        at, bound = clocks.to_session(host, at)
        return at, of_wall + bound

    def is_early(host: str, wall_ns: Instants) -> tuple[Instants, npt.NDArray[np.bool_]]:
        placed = place(host, "wall", wall_ns)
        assert placed is not None
        at, bound = placed
        return at, at + bound + LOG_RESOLUTION_NS < begin_ns

    def events() -> Iterator[MarkEvent]:
        for host, source in sources:
            early = partial(is_early, host.name) if host.name in walls and host.name not in clocks.lost else None
            for event in _events(session, source, host.boot_id, problems, early):
                yield _of_host(event, host.name) if several else _on_session_clock(event, manifest.replay_clock)
        if work is None:  # else the command is all that is measured of the last stage
            yield from _stages(manifest.fleet)

    work = manifest.workload
    stages = manifest.fleet.spans if manifest.fleet is not None else []
    table, found, points = phase_builder.build(
        events(),
        begin_ns=begin_ns,
        end_ns=end_ns,
        place=place,
        host=work.host if several and work is not None else "",
        bound_ns=clocks.workload_span()[2],
        earlier_ns=stages[0].begin_ns if work is not None and len(stages) > 1 else None,
    )
    return table, points, [*warnings, *problems, *found]


def _steps(clock: WallClock, host: str) -> list[str]:
    return [
        f"the wall clock of {host} was set by {step.jump_ns * 1e-9:+.3f} s during the measurement; durations are not "
        "touched, phases stamped in wall time near that instant may be"
        for step in clock.steps
    ]


def _events(
    session: Path, source: PhaseSource, boot_id: str, problems: Problems, is_early: IsEarly | None
) -> Iterator[MarkEvent]:
    path = session / source.file
    if source.kind == "marks":
        return mark_files.read(path, problems, boot_id or None)
    if source.kind == "mllog":
        return mllog.read(path, problems, is_early)
    if source.kind == "loadgen":
        return loadgen.read(path, problems)
    arrivals = session / source.arrival_file if source.arrival_file else None
    return line_pattern.read(path, source.pattern, problems, arrivals, is_early)


def _folders(session: Path, hosts: Mapping[str, Host], source: PhaseSource) -> Iterator[tuple[Host, PhaseSource]]:
    """Marks of several hosts lie in a folder for each."""
    if source.kind == "marks" and not source.host:
        for host in hosts.values():
            if host.name and (session / source.file / host.name).is_dir():
                yield host, msgspec.structs.replace(source, file=f"{source.file}/{host.name}", host=host.name)


def _of_host(event: MarkEvent, host: str) -> MarkEvent:
    """Lanes and keys hold the numbers of processes, which several hosts may share."""
    key = f"{host}/{event.key}" if event.key else ""
    return msgspec.structs.replace(event, host=host, lane=f"{host}/{event.lane}", key=key)


def _stages(fleet: Fleet | None) -> Iterator[MarkEvent]:
    """The stages of a session of two are phases; that of a session of one is its whole."""
    if fleet is None or len(fleet.stages) < 2:
        return
    for span in fleet.spans:
        begin = MarkEvent(
            t_ns=span.begin_ns, clock="monotonic", op="begin", name=span.stage, key=f"stage {span.stage}", lane="stages"
        )
        yield begin
        if span.end_ns is not None:
            yield msgspec.structs.replace(begin, t_ns=span.end_ns, op="end")


def _on_session_clock(event: MarkEvent, replay: ReplayClockSpec | None) -> MarkEvent:
    """A replayed session runs on the trace's clock; marks carry the real one."""
    if replay is None or event.clock == "wall":
        return event
    since_ns = event.t_ns - replay.monotonic_origin_ns
    return msgspec.structs.replace(event, t_ns=replay.monotonic_origin_ns + round(since_ns * replay.speed))
