"""One power session as the rules look at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from director.mlperf.audit.findings import Finding, finding
from director.mlperf.audit.half_hours import half_hours_off
from director.mlperf.audit.readings import Readings
from director.mlperf.finding import InferenceSession
from director.mlperf.inference.checker_versions import CheckerVersion, checker_of_round, checker_that_fits
from director.mlperf.inference.power_logs import RUNS, load_times
from director.mlperf.inference.sample_log import SampleLog, Window
from director.mlperf.inference.session_files import CLIENT, SERVER, analyzer_logs, read_description
from director.mlperf.inference.session_score import ptd_version
from director.mlperf.text_blocks import NoLog, text_blocks

STAGES = dict(zip(("ranging", "testing"), RUNS, strict=True))


@dataclass
class Stage:
    """Ranging or testing: its load and samples. Times in s since 1970 as logged."""

    folder: Path
    load_s: tuple[float, float] | None = None
    readings: Readings | None = None  # as `Readings`, from the first sample
    first_s: float = 0.0  # of the first sample
    shift_s: float | None = 0.0  # brings the samples onto the load

    @property
    def spl(self) -> Path:
        return self.folder / "spl.txt"

    def mean_watts(self) -> float | None:
        """Of the samples above 0 W within the load."""
        if self.readings is None or self.readings.window_s is None:
            return None
        t, watts = self.readings.t_s, self.readings.watts
        inside = (t > self.readings.window_s[0]) & (t < self.readings.window_s[1]) & (watts > 0)
        return float(watts[inside].mean()) if inside.any() else None


@dataclass
class Session:
    """A session. Descriptions are {} where they cannot be read."""

    path: Path
    version: CheckerVersion
    client: Mapping[str, Any]
    server: Mapping[str, Any]
    stages: dict[str, Stage]
    analyzers: int
    findings: list[Finding] = field(default_factory=list)  # on reading it

    @property
    def server_file(self) -> Path:
        return self.path / SERVER

    @property
    def ptd_log(self) -> Path:
        return self.path / "power" / "ptd_logs.txt"

    def messages(self) -> Iterator[tuple[str, str]]:
        """Commands to PTDaemon and its replies."""
        messages = self.server.get("ptd_messages")
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, dict):
                yield str(message.get("cmd")), str(message.get("reply"))

    @property
    def meter(self) -> str:
        """PTDaemon's name of the meter; "" where it is not known."""
        return next((reply.split(",")[0] for command, reply in self.messages() if command == "Identify"), "")


def read_session(found: InferenceSession) -> Session:
    """Read what there is; what cannot be read becomes a finding."""
    findings: list[Finding] = []
    client, server = (_description(found.path / name, findings) for name in (CLIENT, SERVER))
    version = checker_of_round(found.round) or checker_that_fits(ptd_version(dict(server)), found.round, server)[0]
    stages = {name: _stage(found.path / run, findings) for name, run in STAGES.items()}
    analyzers = max(1, len(analyzer_logs(found.path / "run_1")))
    return Session(found.path, version, client, server, stages, analyzers, findings)


def _description(path: Path, findings: list[Finding]) -> dict[str, Any]:
    try:
        return read_description(path)
    except NoLog as error:
        findings.append(finding("file-missing", f"{path.name} {error.why}", path))
        return {}


def _stage(folder: Path, findings: list[Finding]) -> Stage:
    stage = Stage(folder)
    try:
        begin, end = load_times(folder, 0)
        if not begin < end:
            raise ValueError("power_end is not later than power_begin")
        stage.load_s = begin, end
    except (NoLog, ValueError) as error:
        why = error.why if isinstance(error, NoLog) else str(error)
        findings.append(finding("load-unknown", why, folder / "mlperf_log_detail.txt"))
    log = SampleLog(stage.spl, Window(0, 0))
    try:
        blocks = list(log.samples())
    except NoLog as error:
        findings.append(finding("file-missing", f"spl.txt {error.why}", stage.spl))
        return stage
    if log.unreadable_lines:
        line, _, why = next(iter(log.problems)).removeprefix(f"{stage.spl}:").partition(": ")
        text = f"{log.unreadable_lines} lines cannot be read; the first {why}"
        where = int(line) if line.isdecimal() else None
        findings.append(finding("unreadable-lines", text, stage.spl, line=where, value=log.unreadable_lines))
    t_us, watts, lines = (
        np.concatenate([np.empty(0, kind), *(getattr(block, name) for block in blocks)])
        for name, kind in (("t_us", np.int64), ("watts", np.float64), ("line", np.int64))
    )
    known = ~np.isnan(watts)
    t_us, watts, lines = t_us[known], watts[known], lines[known]
    if not len(t_us):
        findings.append(finding("samples-cover-load", "the log holds no sample", stage.spl))
        return stage
    stage.first_s = float(t_us[0]) / 1e6
    last_s = float(t_us.max()) / 1e6
    window = None
    if stage.load_s is not None:
        begin, end = stage.load_s
        shift_ms = half_hours_off(begin * 1e3, end * 1e3, float(t_us.min()) / 1e3, last_s * 1e3)
        stage.shift_s = None if shift_ms is None else shift_ms / 1e3
        if stage.shift_s is not None:
            origin = stage.first_s + stage.shift_s
            window = begin - origin, end - origin
    seconds = (t_us - t_us[0]) / 1e6
    stage.readings = Readings(stage.spl, seconds, watts, lambda place: int(lines[place]), window)
    return stage


def line_of_text(path: Path, text: str, nth: int = 1) -> int | None:
    """The line of a file in which a text comes for the nth time."""
    wanted = text.encode("utf-8", "replace")
    try:
        for block in text_blocks(path):
            at = -1
            while nth and (at := block.text.find(wanted, at + 1)) >= 0:
                nth -= 1
            if not nth:
                return block.first_line + block.text.count(b"\n", 0, at)
    except NoLog:
        pass
    return None
