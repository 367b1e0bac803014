"""All phases of a session: marks and logs read, put on the session's clock, and made one table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from director.phases import builder as phase_builder
from director.phases.builder import LOG_RESOLUTION_NS, Point
from director.phases.sources import IsEarly, Problems, line_pattern, loadgen, mark_files, mllog
from director.phases.table import PhaseTable
from director.session.clock_pairs import ClockFileError, Instants, WallClock
from director.session.manifest import Host, Manifest, PhaseSource
from power_agent.messages import MarkEvent, ReplayClockSpec


def read_phases(
    session: Path, manifest: Manifest, begin_ns: int, end_ns: int
) -> tuple[PhaseTable, list[Point], list[str]]:
    """Build the phase table of a session. Row 0 spans begin_ns … end_ns.

    Returns the table, the points in time that were marked, and what is wrong with the sources, in plain words.
    """
    host = manifest.hosts[0] if manifest.hosts else Host(name="")
    warnings: list[str] = []
    clock: WallClock | None = None
    try:
        clock = WallClock.from_file(session / host.clock_file)
        warnings += _steps(clock, host.name)
    except ClockFileError as error:
        if any(source.kind != "marks" for source in manifest.phase_sources):
            warnings.append(f"phases stamped in wall time are left out: {error}")
    problems = Problems()

    def is_early(wall_ns: Instants) -> tuple[Instants, npt.NDArray[np.bool_]]:
        assert clock is not None
        at, bound = clock.to_monotonic(wall_ns)
        return at, at + bound + LOG_RESOLUTION_NS < begin_ns

    def events() -> Iterator[MarkEvent]:
        for source in manifest.phase_sources:
            for event in _events(session, source, host.boot_id, problems, is_early if clock is not None else None):
                yield _on_session_clock(event, manifest.replay_clock)
            for one in manifest.hosts if source.kind == "marks" else []:  # of a fleet, a folder for each
                for event in mark_files.read(session / source.file / one.name, problems, one.boot_id or None):
                    placed = _on_session_clock(event, manifest.replay_clock)
                    yield _of_host(placed, one.name) if len(manifest.hosts) > 1 else placed

    place = clock.to_monotonic if clock is not None else None
    table, found, points = phase_builder.build(events(), begin_ns=begin_ns, end_ns=end_ns, wall_to_session=place)
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


def _of_host(event: MarkEvent, host: str) -> MarkEvent:
    """Processes of two hosts may have the same number."""
    key = f"{host}/{event.key}" if event.key else ""
    return msgspec.structs.replace(
        event, host=host, lane=f"{host}/{event.lane}", key=key, source=f"{host}/{event.source}"
    )


def _on_session_clock(event: MarkEvent, replay: ReplayClockSpec | None) -> MarkEvent:
    """A replayed session runs on the trace's clock; marks carry the real one."""
    if replay is None or event.clock == "wall":
        return event
    since_ns = event.t_ns - replay.monotonic_origin_ns
    return msgspec.structs.replace(event, t_ns=replay.monotonic_origin_ns + round(since_ns * replay.speed))
