"""The logs of one training run as the rules look at them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from director.mlperf.audit.findings import Finding, finding
from director.mlperf.audit.half_hours import half_hours_off
from director.mlperf.audit.readings import Readings
from director.mlperf.text_blocks import NoLog
from director.mlperf.training.log_text import Unread, blocks, parse
from director.mlperf.training.power_log import READING, START, STOP, PowerLog, read_power_log
from director.mlperf.training.result_log import ResultLog, read_result_log
from director.phases.sources.mllog import Entry

_POWER_LOG = re.compile(r"(node|sw)_(\d*).*\.txt", re.DOTALL)


@dataclass(eq=False)
class LogOfRun:
    """A power log, and where it lies against the run."""

    log: PowerLog
    number: int | None  # of the node or switch, from its file's name
    shift_ms: float | None = 0.0  # whole half hours that bring it onto the run; None: none does

    @property
    def path(self) -> Path:
        return self.log.path

    def window_ms(self) -> tuple[float | None, float | None]:
        """Times of its last start line and last stop line."""
        starts = [event.time_ms for event in self.log.events if event.key == START]
        stops = [event.time_ms for event in self.log.events if event.key == STOP]
        return (max(starts) if starts else None), (max(stops) if stops else None)

    def readings(self, run_ms: tuple[float, float] | None) -> Readings:
        """Its readings, for the rules on readings."""
        pieces = list(self.log.in_file_order())
        t_ms = np.concatenate([piece[0] for piece in pieces]) if pieces else np.empty(0)
        watts = np.concatenate([piece[1] for piece in pieces]) if pieces else np.empty(0)
        origin = float(t_ms[0]) if len(t_ms) else 0.0
        window = None
        if run_ms is not None and self.shift_ms is not None:
            window = (run_ms[0] - self.shift_ms - origin) / 1000, (run_ms[1] - self.shift_ms - origin) / 1000
        path = self.path
        return Readings(
            path, (t_ms - origin) / 1000, watts, lambda place: line_of_reading(path, place, t_ms[place]), window
        )


@dataclass
class Run:
    """One run: its result log and its power logs."""

    result: Path
    power: Path  # their folder
    run_ms: tuple[float, float] | None = None
    nodes: list[LogOfRun] = field(default_factory=list)
    switches: list[LogOfRun] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)  # on reading it

    @property
    def measured(self) -> list[LogOfRun]:
        """Logs with readings."""
        return [log for log in (*self.nodes, *self.switches) if log.log.readings]


def read_run(result: Path, power: Path) -> Run:
    """Read what there is; what cannot be read becomes a finding."""
    run = Run(result, power)
    try:
        log = read_result_log(result, ("run_start", "run_stop"))
        run.findings += _unread(result, log.unread)
        run.findings += _run_times(run, log)
    except NoLog as error:
        run.findings.append(finding("run-times", f"{result.name} {error.why}", result))
    try:
        files = sorted(path for path in power.iterdir() if _POWER_LOG.fullmatch(path.name))
    except OSError as error:
        run.findings.append(finding("power-logs-missing", f"no power logs: {error.strerror}", power))
        return run
    for path in files:
        match = _POWER_LOG.fullmatch(path.name)
        assert match is not None
        try:
            found = LogOfRun(read_power_log(path), int(match[2][:9]) if match[2] else None)
        except NoLog as error:
            run.findings.append(finding("power-logs-missing", f"{path.name} {error.why}", path))
            continue
        run.findings += _unread(path, found.log.unread)
        if run.run_ms is not None and found.log.readings:
            found.shift_ms = half_hours_off(*run.run_ms, found.log.first_ms, found.log.last_ms)
        (run.nodes if match[1] == "node" else run.switches).append(found)
    if not run.nodes and not run.findings:
        run.findings.append(finding("power-logs-missing", "there is no node_*.txt", power))
    return run


def _run_times(run: Run, log: ResultLog) -> Iterator[Finding]:
    start, stop = log.run_ms()
    if start is not None and stop is not None and start < stop:
        run.run_ms = start, stop
        return
    missing = [name for name, time in (("run_start", start), ("run_stop", stop)) if time is None]
    text = f"{' and '.join(missing)} missing" if missing else "run_stop is not later than run_start"
    yield finding("run-times", text, run.result)


def _unread(path: Path, unread: Unread) -> Iterator[Finding]:
    if unread.count:
        line, why = unread.named[0]
        text = f"{unread.count} lines cannot be read; the first {why}"
        yield finding("unreadable-lines", text, path, line=line, value=unread.count, count=unread.count)


def line_of_reading(path: Path, place: int, time_ms: float) -> int | None:
    """The line of a log's reading at a place (from 0); None where it is not found there."""
    token, seen = READING.encode(), 0
    try:
        for first_line, block in blocks(path, Unread()):
            here = block.count(token)
            if seen + here <= place:
                seen += here
                continue
            at = -1
            for _ in range(place - seen + 1):
                at = block.find(token, at + 1)
            number = block.count(b"\n", 0, at)
            entry = parse(block[block.rfind(b"\n", 0, at) + 1 : block.find(b"\n", at)])
            is_it = isinstance(entry, Entry) and entry.key == READING and entry.time_ms == time_ms
            return first_line + number if is_it else None
    except NoLog:
        pass
    return None
