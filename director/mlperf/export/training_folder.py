"""A benchmark folder of MLPerf Training with power, written from sessions: result_*.txt and power/<run>/node_*.txt.

A node's log begins at its last reading before run_start and ends at its first after run_stop, so that the official
formula, whose energy is the mean power of the whole log times the time to train, has next to no idle time to dilute it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from director.answers.report_command import SUMMARY
from director.answers.summary import EnergyFigure, Summary
from director.mlperf.export.new_folder import ExportRefused
from director.mlperf.export.power_readings import LONGEST_GAP_S, PowerReadings, finished_manifest, power_readings
from director.mlperf.text_blocks import NoLog
from director.mlperf.training.power_log import EFFICIENCY, ESTIMATE, READING, START, STOP
from director.mlperf.training.result_log import read_result_log
from director.phases.sources.mllog import TOKEN
from director.session.manifest import Manifest
from drivers.contract import Scope

LEAST_READINGS = 60  # in a run (training_policies, power)
LEAST_HZ = 0.99  # one reading a second, but for the jitter of whoever reads
LEAST_COVERAGE = 0.99
_SCOPES: tuple[Scope, ...] = ("wall", "node")
_MARGIN_MS = 60_000.0


@dataclass(frozen=True)
class Conversion:
    """What the user states about the machine; nothing is assumed."""

    efficiency: float | None = None  # of the power supplies, AC to DC
    interconnect_watts: float | None = None  # an estimate for all switches


@dataclass(frozen=True)
class ExportedRun:
    """One run as written."""

    name: str  # of the result file, without .txt
    session: Path
    readings: int  # of the node with the fewest
    physical_joules: float | None  # of all nodes inside the run, times the efficiency
    expanded_joules: float | None  # U, k = 2; the efficiency counts as exact
    notes: tuple[str, ...] = ()


def write_training_folder(
    folder: Path, sessions: Sequence[Path], conversion: Conversion, channel: str | None
) -> list[ExportedRun]:
    """Write the sessions as the runs result_0, result_1, … of a benchmark.

    Raises:
        ExportRefused: a session cannot be exported honestly.
        SessionError: one is damaged.
        OSError: a file cannot be written.
    """
    return [_write_run(folder, f"result_{n}", path, conversion, channel) for n, path in enumerate(sessions)]


def _write_run(folder: Path, name: str, session: Path, conversion: Conversion, channel: str | None) -> ExportedRun:
    manifest = finished_manifest(session)
    log = _result_log(session, manifest)
    start_ms, stop_ms = _run_ms(session, log)
    physical = _physical(session)
    shutil.copyfile(log, folder / f"{name}.txt")
    power = folder / "power" / name
    power.mkdir(parents=True)
    counts, notes = [], []
    for number, host in enumerate(sorted(manifest.hosts, key=lambda host: host.name)):
        span = start_ms - _MARGIN_MS, stop_ms + _MARGIN_MS
        readings = power_readings(session, host, _SCOPES, channel, span)
        window = _window(f"{session}, {host.name}", readings, start_ms, stop_ms)
        left_out = int((~readings.is_new[window]).sum())
        if left_out:
            notes.append(f"{left_out} readings of {host.name} were stale, missing or invalid, and are not in the log")
        counts.append(_write_node(power / f"node_{number}.txt", readings, window, conversion.efficiency))
    if conversion.interconnect_watts is not None:
        told = {"estimate": True, "source": "stated by the user"}
        line = _line(ESTIMATE, round(start_ms), conversion.interconnect_watts, told)
        (power / "sw_0.txt").write_text(line, encoding="utf-8")
    efficiency = 1.0 if conversion.efficiency is None else conversion.efficiency
    joules, expanded = physical.joules, physical.expanded_joules
    return ExportedRun(
        name=name,
        session=session,
        readings=min(counts),
        physical_joules=None if joules is None else joules * efficiency,
        expanded_joules=None if expanded is None else expanded * efficiency,
        notes=tuple(notes),
    )


def _result_log(session: Path, manifest: Manifest) -> Path:
    source = next((source for source in manifest.phase_sources if source.kind == "mllog"), None)
    if source is None:
        raise ExportRefused(f"{session} has no MLLOG log: measure with `power-director run --mllog FILE -- …`")
    path = session / source.file
    if not path.is_file():
        raise ExportRefused(f"{session} lacks its MLLOG log {source.file}, which was not there when the run ended")
    return path


def _run_ms(session: Path, path: Path) -> tuple[float, float]:
    try:
        log = read_result_log(path, ("run_start", "run_stop"))
    except NoLog as error:
        raise ExportRefused(f"{path} {error.why}") from error
    if [entry.key for entry in log.entries].count("run_start") > 1:
        raise ExportRefused(
            f"{path} holds several run_start lines; a result log is of one run: start each with a new log"
        )
    start, stop = log.run_ms()
    if start is None or stop is None or stop <= start:
        missing = "run_start" if start is None else "a run_stop after its run_start"
        raise ExportRefused(f"{path} has no {missing}: the training did not end; leave {session} out")
    return start, stop


def _physical(session: Path) -> EnergyFigure:
    """Our own figure of the run, which says how much was measured."""
    path = session / SUMMARY
    again = f"compute it again: power-director report {session}"
    try:
        summary = msgspec.json.decode(path.read_bytes(), type=Summary)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ExportRefused(f"{path} cannot be read; {again}") from error
    run = next((phase for phase in summary.phases if phase.name == "run"), None)
    if run is None or run.total is None:
        raise ExportRefused(f"{path} has no energy of the phase run; {again}")
    if run.total.estimate:
        raise ExportRefused(f"{session}: the energy of the run is an ESTIMATE in part, and no result may rest on it")
    if run.total.coverage < LEAST_COVERAGE:
        raise ExportRefused(
            f"{session}: {run.total.coverage:.1%} of the run were measured, and {LEAST_COVERAGE:.0%} are needed: "
            "readings are missing; measure again"
        )
    return run.total


def _window(where: str, readings: PowerReadings, start_ms: float, stop_ms: float) -> slice:
    """Rows from the last reading before the run to the first after it.

    Raises:
        ExportRefused: the readings do not cover the run as the rules ask.
    """
    new = np.flatnonzero(readings.is_new)
    times = readings.wall_ms[new]
    first = int(np.searchsorted(times, start_ms, "right")) - 1
    last = int(np.searchsorted(times, stop_ms, "left"))
    if first < 0 or last >= len(times):
        early = "" if first >= 0 else "before run_start"
        late = "" if last < len(times) else "after run_stop"
        missing = " and ".join(part for part in (early, late) if part)
        raise ExportRefused(f"{where}: there is no reading {missing}; measure the whole command, with --idle 5")
    times = times[first : last + 1]
    inside = len(times) - 2
    rate_hz = (len(times) - 1) / max((int(times[-1]) - int(times[0])) / 1000, 1e-3)
    gap_s = float(np.diff(times).max()) / 1000
    problems = []
    if inside < LEAST_READINGS:
        problems.append(f"{inside} readings in the run, {LEAST_READINGS} are needed (a shorter run is to be looped)")
    if rate_hz < LEAST_HZ:
        problems.append(f"{rate_hz:.2f} readings a second, 1 is needed (--rate DRIVER=HZ)")
    if gap_s > LONGEST_GAP_S:
        problems.append(f"{gap_s:.1f} s without a reading, {LONGEST_GAP_S} s are allowed")
    if problems:
        raise ExportRefused(f"{where}, {readings.channels[0].name}: {'; '.join(problems)}")
    return slice(int(new[first]), int(new[last]) + 1)


def _write_node(path: Path, readings: PowerReadings, window: slice, efficiency: float | None) -> int:
    new = readings.is_new[window]
    times = readings.wall_ms[window][new].tolist()
    watts = readings.watts[window][new].tolist()
    about = {
        "host": readings.host,
        "channels": [channel.name for channel in readings.channels],
        "measurement_type": "as read" if efficiency is None else "AC",
        "written_by": "power-director export",
    }
    with path.open("w", encoding="utf-8") as file:
        file.write(_line(START, times[0], None, about))
        if efficiency is not None:
            file.write(_line(EFFICIENCY, times[0], efficiency, {"source": "stated by the user"}))
        # The first reading stands for the time before the log; its instant is the start.
        file.writelines(_line(READING, at, value, {}) for at, value in zip(times[1:], watts[1:], strict=True))
        file.write(_line(STOP, times[-1], None, {}))
    return len(times) - 1


def _line(key: str, time_ms: int, value: float | None, metadata: dict[str, Any]) -> str:
    kind = {START: "INTERVAL_START", STOP: "INTERVAL_END"}.get(key, "POINT_IN_TIME")
    content = {"namespace": "", "time_ms": time_ms, "event_type": kind, "key": key, "value": value}
    return f"{TOKEN.decode()}{json.dumps({**content, 'metadata': metadata}, allow_nan=False)}\n"
