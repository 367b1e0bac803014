"""Log files that tell of phases: named before the run, copied into the session when it has ended."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from director.session.files import SPOOL, sync_directory
from director.session.manifest import Manifest, PhaseSource

STDOUT_LOG = "stdout.log"
STDOUT_ARRIVALS = "stdout.arrivals"
LOADGEN_LOG = "mlperf_log_detail.txt"
_MTIME_SLACK_NS = 2_000_000_000  # the coarsest time stamps of a file system in use


def plan_sources(
    mllog: str | None, loadgen: str | None, patterns: list[str], pattern_log: str | None
) -> list[PhaseSource]:
    """Where the phases of a run will come from: marks always, and what the user named; `-` is standard output."""

    def at(path: str) -> str:
        return str(Path(path).absolute())  # whoever recovers the session may stand elsewhere

    sources = [PhaseSource(kind="marks", file="marks")]
    if mllog is not None:
        sources.append(
            _stdout("mllog") if mllog == "-" else PhaseSource(kind="mllog", file="logs/mllog", origin=at(mllog))
        )
    if loadgen is not None:
        sources.append(PhaseSource(kind="loadgen", file=f"logs/{LOADGEN_LOG}", origin=at(loadgen)))
    for pattern in patterns:
        if pattern_log is None:
            sources.append(_stdout("regex", pattern))
        else:
            sources.append(PhaseSource(kind="regex", file="logs/phase-log", pattern=pattern, origin=at(pattern_log)))
    return sources


def reads_stdout(sources: list[PhaseSource]) -> bool:
    """Whether a source needs the command's standard output."""
    return any(source.file == f"logs/{STDOUT_LOG}" for source in sources)


def collect_logs(session: Path, manifest: Manifest) -> list[str]:
    """Copy every source's file into the session, unless it is there; what could not be had, in plain words."""
    # A replayed trace brings the logs of its own time.
    not_before_ns = 0 if manifest.replay_clock is not None else manifest.created_wall_ns - _MTIME_SLACK_NS
    copied: dict[str, str] = {}
    for source in manifest.phase_sources:
        if source.kind == "marks":
            continue
        if source.origin:
            copied[source.file] = _collect(session, source, Path(source.origin), not_before_ns)
        else:
            for name in (STDOUT_LOG, STDOUT_ARRIVALS):
                copied[f"logs/{name}"] = _copy(session / SPOOL / name, session / "logs" / name)
    return [problem for problem in copied.values() if problem]


def _stdout(kind: str, pattern: str = "") -> PhaseSource:
    log, arrivals = f"logs/{STDOUT_LOG}", f"logs/{STDOUT_ARRIVALS}"
    if kind == "mllog":
        return PhaseSource(kind="mllog", file=log, arrival_file=arrivals)
    return PhaseSource(kind="regex", file=log, arrival_file=arrivals, pattern=pattern)


def _collect(session: Path, source: PhaseSource, origin: Path, not_before_ns: int) -> str:
    if source.kind == "loadgen" and origin.is_dir():
        origin = origin / LOADGEN_LOG
    target = session / source.file
    if target.exists():
        return ""
    try:
        written_ns = origin.stat().st_mtime_ns
    except OSError as error:
        return f"the {source.kind} log {origin} cannot be read ({error.strerror}): its phases are not in this session"
    if written_ns < not_before_ns:
        return f"the {source.kind} log {origin} was not written during this run, but before: it was not taken"
    return _copy(origin, target)


def _copy(origin: Path, target: Path) -> str:
    """Copy in bounded pieces; the copy appears whole or not at all."""
    if target.exists():
        return ""
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(exist_ok=True)
    try:
        source = origin.open("rb")
    except OSError as error:
        return f"the log {origin} cannot be read ({error.strerror}): its phases are not in this session"
    with source, part.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
    part.rename(target)
    sync_directory(target.parent)
    return ""
