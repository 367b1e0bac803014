"""A session folder of MLPerf Inference's power measurement, written from two sessions and PTDaemon's log.

Samples, loads and times are ours; what PTDaemon said is taken from its own log and never made up. The official scripts
did not run, and the folder says so: `sources` names our files, so that the official check of the scripts fails.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from director.mlperf.export.new_folder import ExportRefused
from director.mlperf.export.power_readings import LONGEST_GAP_S, PowerReadings, finished_manifest, power_readings
from director.mlperf.export.ptd_messages import Message, last_session, read_messages
from director.mlperf.inference.checker_versions import PTD_VERSIONS, CheckerVersion, checker_that_fits
from director.mlperf.inference.official_checks import CheckResult, official_checks
from director.mlperf.inference.power_logs import RUNS, load_times, result_checksums
from director.mlperf.ptd_command import ptd_config
from director.mlperf.text_blocks import NoLog
from director.session.clock_pairs import WallClock
from director.session.log_files import LOADGEN_LOG
from director.session.manifest import Manifest
from drivers.contract import Scope, Status

STAGES = ("ranging", "testing")
SOURCES_CHECKS = ("Check client sources checksum", "Check server sources checksum")
SUMMARY_LOG = "mlperf_log_summary.txt"
NOT_OFFICIAL = "The official client.py and server.py did not run: power-director measured, and wrote this folder."
_SIDES = ("client", "server")
_SCOPES: tuple[Scope, ...] = ("wall",)
_MARKED = {Status.MISSING: -2.0}  # as PTDaemon marks a missed sample; any other that is not valid: −1, rejected
_CLOCKS_APART_S = 5.0


@dataclass(frozen=True)
class PtdRecord:
    """What PTDaemon left: its log, and the command line that it was started with, as the user gives them."""

    log: Path
    command: str


@dataclass(frozen=True)
class _Stage:
    name: str
    session: Path
    manifest: Manifest
    detail_log: Path
    readings: PowerReadings
    phase_times: list[list[float]]  # [wall, monotonic] in s: start asked, started, stop asked, stopped


def write_inference_folder(
    folder: Path, sessions: Sequence[Path], record: PtdRecord, channel: str | None
) -> tuple[CheckerVersion, list[CheckResult]]:
    """Write ranging and testing. Returns the checker of the round and its outcomes, of which only the sources fail.

    Raises:
        ExportRefused: it cannot be exported honestly, or another official check fails.
        SessionError: a session is damaged.
        OSError: a file cannot be written.
    """
    if len(sessions) != len(STAGES):
        raise ExportRefused(f"name two sessions, ranging and then testing; there are {len(sessions)}")
    try:
        name, messages = last_session(read_messages(record.log))
    except (NoLog, ValueError) as error:
        raise ExportRefused(f"PTDaemon's log: {error}") from error
    if not name:
        raise ExportRefused(f"{record.log} has no stages with the marks NAME_ranging and NAME_testing")
    version, identity = _version(record.log, messages)
    stages = [_stage(stage, path, channel) for stage, path in zip(STAGES, sessions, strict=True)]
    if stages[0].phase_times[-1][0] > stages[1].phase_times[0][0]:
        raise ExportRefused(f"{sessions[0]} ended after {sessions[1]} had begun: ranging comes first, then testing")
    _refuse_other_log(record.log, name, messages, stages)
    for stage, run in zip(stages, RUNS, strict=True):
        _write_run(folder / run, stage, f"{name}_{stage.name}")
    _write_power(folder, name, record, messages, stages, version, identity)
    results = official_checks(folder, version)
    failed = [result for result in results if result.outcome == "FAIL" and result.name not in SOURCES_CHECKS]
    if failed:
        told = "\n".join(f"  {result.name}: {result.text}" for result in failed)
        raise ExportRefused(f"the official checker of round {version.name} would refuse this:\n{told}")
    return version, results


def _version(log: Path, messages: Sequence[Message]) -> tuple[CheckerVersion, str]:
    identity = next((message.reply for message in messages if message.cmd == "Identify"), "")
    found = identity.partition(",version=")[2].partition("-")[0]
    version, _ = checker_that_fits(found, "")
    if found not in version.ptd_versions:
        known = ", ".join(PTD_VERSIONS)
        raise ExportRefused(f"{log}: PTDaemon {found or 'of unknown version'}; there are checkers for {known}")
    return version, identity


def _stage(name: str, session: Path, channel: str | None) -> _Stage:
    manifest = finished_manifest(session)
    if len(manifest.hosts) != 1:
        raise ExportRefused(f"{session} is of {len(manifest.hosts)} hosts; a power session has one meter log")
    source = next((source for source in manifest.phase_sources if source.kind == "loadgen"), None)
    if source is None or not (session / source.file).is_file():
        raise ExportRefused(f"{session} has no log of LoadGen: measure with `power-director run --loadgen DIR -- …`")
    host = manifest.hosts[0]
    readings = power_readings(session, host, _SCOPES, channel, None)
    try:
        begin_s, end_s = _load(session / source.file)
    except (NoLog, ValueError) as error:
        raise ExportRefused(str(error)) from error
    _refuse_gaps(session, readings, begin_s, end_s)
    edges = readings.t_ns[[0, 0, -1, -1]]
    walls, _ = WallClock.from_file(session / host.clock_file).to_wall(edges)
    times = [[wall / 1e9, at / 1e9] for wall, at in zip(walls.tolist(), edges.tolist(), strict=True)]
    return _Stage(name, session, manifest, session / source.file, readings, times)


def _load(detail_log: Path) -> tuple[float, float]:
    if detail_log.name != LOADGEN_LOG:
        raise ValueError(f"{detail_log} is not called {LOADGEN_LOG}")
    return load_times(detail_log.parent, 0)


def _refuse_gaps(session: Path, readings: PowerReadings, begin_s: float, end_s: float) -> None:
    at_s = readings.wall_ms[readings.is_new] / 1000
    inside = at_s[(at_s > begin_s) & (at_s < end_s)]
    gaps = np.diff(np.concatenate(([begin_s], inside, [end_s])))
    if not len(inside) or gaps.max() > LONGEST_GAP_S:
        raise ExportRefused(
            f"{session}: {float(gaps.max()):.1f} s of the load are without a valid reading of "
            f"{readings.channels[0].name}; {LONGEST_GAP_S} s are allowed. Measure again"
        )


def _refuse_other_log(log: Path, name: str, messages: Sequence[Message], stages: Sequence[_Stage]) -> None:
    """PTDaemon must have measured while we did, by a clock in UTC."""
    for stage in stages:
        go = next(m for m in messages if m.cmd.startswith("Go,") and m.cmd.endswith(f",{name}_{stage.name}"))
        began_s, ended_s = stage.phase_times[0][0], stage.phase_times[-1][0]
        if go.at_s is None or not began_s - _CLOCKS_APART_S <= go.at_s <= ended_s:
            raise ExportRefused(
                f"{log} began {stage.name} at {_utc(go.at_s)}, and {stage.session} has readings from {_utc(began_s)} "
                f"to {_utc(ended_s)}: it is the log of another measurement, or its clock is not UTC (set TZ=UTC)"
            )


def _utc(at_s: float | None) -> str:
    return "an unknown time" if at_s is None else f"{datetime.fromtimestamp(at_s, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def _write_run(run: Path, stage: _Stage, mark: str) -> None:
    run.mkdir()
    shutil.copyfile(stage.detail_log, run / LOADGEN_LOG)
    shutil.copyfile(_summary_log(stage), run / SUMMARY_LOG)
    readings = stage.readings
    with (run / "spl.txt").open("w", encoding="ascii") as file:
        rows = zip(readings.wall_ms.tolist(), readings.watts.tolist(), readings.statuses.tolist(), strict=True)
        for at_ms, watts, status in rows:
            if status == Status.STALE:
                continue
            value = watts if status == Status.NEW else _MARKED.get(status, -1.0)
            # Volts, amperes and power factor are not in the session: −1, as PTDaemon writes what it does not know.
            parts = f"Watts,{value:.6f},Volts,-1.000000,Amps,-1.000000,PF,-1.000000,Mark,{mark}"
            file.write(f"Time,{_stamp(at_ms)},{parts}\n")


def _stamp(at_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms // 1000, timezone.utc)
    return f"{at:%m-%d-%Y %H:%M:%S}.{at_ms % 1000:03d}"


def _summary_log(stage: _Stage) -> Path:
    """LoadGen's summary, from the session, or from beside the detail log that the session has a copy of."""
    own = stage.detail_log.with_name(SUMMARY_LOG)
    if own.is_file():
        return own
    origin = next(Path(s.origin) for s in stage.manifest.phase_sources if s.kind == "loadgen")
    folder = origin if origin.is_dir() else origin.parent
    detail, summary = folder / LOADGEN_LOG, folder / SUMMARY_LOG
    if summary.is_file() and detail.is_file() and detail.read_bytes() == stage.detail_log.read_bytes():
        return summary
    raise ExportRefused(f"{summary} of this run is not there: copy LoadGen's {SUMMARY_LOG} to {own}")


def _write_power(
    folder: Path,
    name: str,
    record: PtdRecord,
    messages: Sequence[Message],
    stages: Sequence[_Stage],
    version: CheckerVersion,
    identity: str,
) -> None:
    power = folder / "power"
    power.mkdir()
    shutil.copyfile(record.log, power / "ptd_logs.txt")
    sessions = ", ".join(f"{stage.name} {stage.manifest.session}" for stage in stages)
    for side in _SIDES:
        (power / f"{side}.log").write_text(f"{NOT_OFFICIAL}\nSessions: {sessions}.\n", encoding="utf-8")
    common: dict[str, Any] = {
        "version": "1.0",
        "timezone": 0,
        "modules": {},
        "sources": _own_sources(),
        "messages": _messages(name, stages),
        "uuid": {side: str(uuid.uuid4()) for side in _SIDES},
        "session_name": name,
        "phases": {stage.name: stage.phase_times for stage in stages},
        "exported_by": f"power-director export. {NOT_OFFICIAL} One program did the work of both sides: messages were "
        "not sent over a network, and phase times are the first and the last reading.",
    }
    # client.json names what the client measured, server.json what the meter's side did
    client = {"power/client.log"} | {f"{run}/{log}" for run in RUNS for log in (LOADGEN_LOG, SUMMARY_LOG)}
    sums = result_checksums(folder, with_client=False)
    of_client = {path: sha for path, sha in sums.items() if path in client}
    _write_json(power / "client.json", {**common, "results": of_client})
    server = {
        **common,
        "results": {path: sha for path, sha in sums.items() if path not in client},
        "ptd_messages": [{"cmd": message.cmd, "reply": message.reply} for message in messages],
        "ptd_config": _ptd_config(record, version, identity),
        "debug": False,
    }
    _write_json(power / "server.json", server)


def _own_sources() -> dict[str, str]:
    """SHA-1 of the files that wrote this, in the place of the official scripts."""
    here = Path(__file__).parent
    files = sorted(here.glob("*.py"))
    return {f"director/mlperf/export/{file.name}": _sha1(file) for file in files}


def _sha1(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()


def _messages(name: str, stages: Sequence[_Stage]) -> list[dict[str, Any]]:
    """The official exchange that the two measurements stand for."""
    began, ended = stages[0].phase_times[0][0], stages[-1].phase_times[-1][0]
    steps = [("mlcommons/power client v3", "mlcommons/power server v3", began)]
    for stage in stages:
        for word, at in (("start", stage.phase_times[0][0]), ("stop", stage.phase_times[2][0])):
            steps.append((f"session,{name},{word},{stage.name}", "OK", at))
    steps.append((f"session,{name},done", "OK", ended))
    return [{"cmd": cmd, "cmd_time": at, "reply": reply, "reply_time": at} for cmd, reply, at in steps]


def _ptd_config(record: PtdRecord, version: CheckerVersion, identity: str) -> Any:
    try:
        return ptd_config(record.command, identity.split(",")[0], version)
    except ValueError as error:
        raise ExportRefused(str(error)) from error


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
