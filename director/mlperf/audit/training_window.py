"""Rules on the window in which power was logged."""

from __future__ import annotations

from collections.abc import Iterator

from director.mlperf.audit.findings import Finding, Severity, finding
from director.mlperf.audit.training_logs import LogOfRun, Run
from director.mlperf.training.official_energy import window_mean_watts
from director.mlperf.training.power_log import START, STOP

_SHORT_S = 60.0
_MOST_OFF, _FAR_OFF = 0.01, 0.05  # the rules' target for meters is 5 %


def short_run(run: Run) -> Iterator[Finding]:
    if run.run_ms is not None and run.run_ms[1] - run.run_ms[0] < _SHORT_S * 1000:
        seconds = (run.run_ms[1] - run.run_ms[0]) / 1000
        yield finding("short-run", f"the run takes {seconds:.1f} s", run.result, value=seconds)


def window_lines(run: Run) -> Iterator[Finding]:
    for node in run.nodes:
        start, stop = node.window_ms()
        line = next((event.line for event in node.log.events if event.key == STOP), None)
        if start is None or stop is None:
            missing = " and ".join(name for name, time in ((START, start), (STOP, stop)) if time is None)
            yield finding("window-lines", f"no {missing}", node.path, value=missing)
        elif stop <= start:
            text = f"{STOP} is not later than {START}: newer official code divides by zero"
            yield finding("window-lines", text, node.path, line=line, value=(stop - start) / 1000)


def window_covers_run(run: Run) -> Iterator[Finding]:
    """By the lines as written; where a line is missing or impossible, by the readings."""
    for node in _on_run(run):
        assert run.run_ms is not None
        start, stop = _window(node)
        late, early = (start - run.run_ms[0]) / 1000, (run.run_ms[1] - stop) / 1000
        if late > 0 or early > 0:
            parts = [f"begins {late:.3f} s after run_start"] if late > 0 else []
            parts += [f"ends {early:.3f} s before run_stop"] if early > 0 else []
            key = START if late >= early else STOP
            line = next((event.line for event in reversed(node.log.events) if event.key == key), None)
            text = f"the power window {' and '.join(parts)}"
            yield finding("window-covers-run", text, node.path, line=line, value=max(late, early))


def window_dilutes(run: Run) -> Iterator[Finding]:
    for node in _on_run(run):
        assert run.run_ms is not None
        start, stop = _window(node)
        shift = node.shift_ms or 0.0
        inside = window_mean_watts(node.log, run.run_ms[0] - shift, run.run_ms[1] - shift)
        if not inside > 0 or stop <= start:
            continue
        off = window_mean_watts(node.log, start - shift, stop - shift) / inside - 1
        if abs(off) > _MOST_OFF:
            lead, lag = (run.run_ms[0] - start) / 1000, (stop - run.run_ms[1]) / 1000
            begin = f"{abs(lead):.1f} s {'before' if lead > 0 else 'after'} run_start"
            end = f"{abs(lag):.1f} s {'after' if lag > 0 else 'before'} run_stop"
            text = (
                f"mean power from {begin} to {end} is {abs(off):.1%} {'below' if off < 0 else 'above'} that of the run"
            )
            severity: Severity | None = "error" if abs(off) > _FAR_OFF else None
            yield finding("window-dilutes", text, node.path, value=off, severity=severity)


def _on_run(run: Run) -> list[LogOfRun]:
    if run.run_ms is None:
        return []
    return [node for node in run.nodes if node.log.readings and node.shift_ms is not None]


def _window(node: LogOfRun) -> tuple[float, float]:
    """Begin and end on the run's clock, in ms."""
    start, stop = node.window_ms()
    start = node.log.first_ms if start is None else start
    stop = max(stop or 0.0, node.log.last_ms) if stop is None or stop <= start else stop
    return start + (node.shift_ms or 0.0), stop + (node.shift_ms or 0.0)


RULES_OF_WINDOWS = (short_run, window_lines, window_covers_run, window_dilutes)
