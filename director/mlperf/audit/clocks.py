"""Rules on clocks: whole half hours between a log and the run, and nodes that run behind others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from director.energy.cells import Floats
from director.mlperf.audit.findings import Finding, finding
from director.mlperf.audit.half_hours import HALF_HOUR_MS
from director.mlperf.audit.training_logs import LogOfRun, Run
from director.mlperf.training.power_log import ESTIMATE

_DAY_MS = 86_400_000.0
_MOST_LAG_S = 60
_LEAST_LAG_S = 2
_ALIKE = 0.85  # correlation of two nodes' power at the lag …
_BETTER = 0.1  # … and how much less it is without
_MOST_SECONDS = 20_000  # of power that is compared
_LONGEST_GAP_S = 10.0  # a log that was held up for longer seems to lag, and its clock does not


def clock_offset(run: Run) -> Iterator[Finding]:
    """Logs that lie beside the run."""
    if run.run_ms is None:
        return
    for found in run.measured:
        if found.shift_ms:
            hours = -found.shift_ms / HALF_HOUR_MS / 2
            text = f"its clock is {hours:+g} h off that of {run.result.name}"
            yield finding("clock-offset", text, found.path, line=1, value=hours)
        elif found.shift_ms is None:
            off_s = ((found.log.first_ms + found.log.last_ms) - sum(run.run_ms)) / 2000
            text = f"it lies {off_s:+.0f} s off the run of {run.result.name}, which no whole half hours explain"
            yield finding("clock-offset", text, found.path, line=1, value=off_s)


def clock_lag(run: Run) -> Iterator[Finding]:
    """Nodes of a run rise and fall together: one whose power fits the others' better when moved has another clock."""
    nodes = [node for node in run.nodes if node.shift_ms is not None and 0 < _longest_gap_s(node) <= _LONGEST_GAP_S]
    if len(nodes) < 3:
        return
    begin = max(node.log.first_ms + (node.shift_ms or 0) for node in nodes) / 1000
    end = min(node.log.last_ms + (node.shift_ms or 0) for node in nodes) / 1000
    seconds = np.arange(begin, min(end, begin + _MOST_SECONDS))
    if len(seconds) < 4 * _MOST_LAG_S:
        return
    curves = np.array([_curve(node, seconds) for node in nodes])
    for node, curve in zip(nodes, curves, strict=True):
        others = np.median(curves[[other is not node for other in nodes]], axis=0)
        lag, there, here = _best_lag(curve, others)
        if abs(lag) >= _LEAST_LAG_S and there >= _ALIKE and there - here >= _BETTER:
            text = f"its power runs {abs(lag)} s {'behind' if lag > 0 else 'before'} that of the other nodes"
            text += f" (correlation {there:.2f}, {here:.2f} as logged)"
            yield finding("clock-lag", text, node.path, value=lag)


def _longest_gap_s(node: LogOfRun) -> float:
    """Between readings; 0 where there are less than two, or none is above 0 W."""
    if not any((watts > 0).any() for _, watts, _ in node.log.in_time_order()):
        return 0.0
    return max((float(np.diff(t).max()) / 1000 for t, _, _ in node.log.in_time_order() if len(t) > 1), default=0.0)


def _curve(node: LogOfRun, seconds: Floats) -> Floats:
    pieces = list(node.log.in_time_order())
    t_s = (np.concatenate([piece[0] for piece in pieces]) + (node.shift_ms or 0)) / 1000
    watts = np.concatenate([piece[1] for piece in pieces])
    curve = np.interp(seconds, t_s[watts > 0], watts[watts > 0])
    clipped: Floats = np.clip(curve, *np.percentile(curve, (1, 99)))  # one odd reading would outweigh all others
    return clipped


def _best_lag(curve: Floats, others: Floats) -> tuple[int, float, float]:
    """Seconds by which a curve comes later than another, the correlation there, and that at no lag."""
    inner = slice(_MOST_LAG_S, -_MOST_LAG_S)
    lags = range(-_MOST_LAG_S, _MOST_LAG_S + 1)
    found = {
        lag: _correlation(curve[_MOST_LAG_S + lag : len(curve) - _MOST_LAG_S + lag], others[inner]) for lag in lags
    }
    best = max(lags, key=lambda lag: (found[lag], -abs(lag)))
    return best, found[best], found[0]


def _correlation(a: Floats, b: Floats) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def stamp_far_off(run: Run) -> Iterator[Finding]:
    """A stated interconnect power whose stamp is from another day."""
    for switch in run.switches:
        for event in switch.log.events:
            if event.key == ESTIMATE and run.run_ms is not None and abs(event.time_ms - run.run_ms[0]) > _DAY_MS:
                days = (event.time_ms - run.run_ms[0]) / _DAY_MS
                text = f"{ESTIMATE} is stamped {abs(days):.0f} days {'after' if days > 0 else 'before'} the run"
                yield finding("stamp-far-off", text, switch.path, line=event.line, value=days)
