"""Rules on the readings of one log: a node's, a switch's or a power analyzer's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from director.energy.cells import Bools, Floats, Ints
from director.mlperf.audit.findings import Finding, Severity, finding

_LONGEST_STEP_S = 1.1  # usual step that still counts as one reading a second: timers jitter
_UNEVEN, _GAP, _BURST = 1.5, 2.5, 0.25  # in usual steps, docs/formulas/coverage.md
_BURST_WITHIN = 3  # steps after a gap
_MOST_MISSING = 0.01  # of the run
_LEAST_READINGS = 60
_FROZEN = 60  # readings


@dataclass
class Readings:
    """A log's readings in the order of the file. Seconds count from the first."""

    file: Path
    t_s: Floats
    watts: Floats
    line_of: Callable[[int], int | None]  # of the reading at a place
    window_s: tuple[float, float] | None = None  # the run or load, where the log reaches it

    @cached_property
    def order(self) -> Ints:
        """Places in the order of time."""
        return np.argsort(self.t_s, kind="stable")

    @cached_property
    def steps_s(self) -> Floats:
        """From each reading to the next in time."""
        return np.diff(self.t_s[self.order])

    @cached_property
    def usual_s(self) -> float:
        """Median step between different times, and no less than a second."""
        steps = self.steps_s[self.steps_s > 0]
        return max(1.0, float(np.median(steps))) if len(steps) else 1.0

    @cached_property
    def long(self) -> tuple[Ints, Ints]:
        """Steps that are gaps, and those of them that a burst follows."""
        gaps = (self.steps_s > _GAP * self.usual_s).nonzero()[0]
        after = gaps[:, None] + np.arange(1, _BURST_WITHIN + 1)
        short = np.append(self.steps_s < _BURST * self.usual_s, False)[np.minimum(after, len(self.steps_s))]
        burst: Bools = short.any(axis=1)
        return gaps[~burst], gaps[burst]

    def line_after(self, step: int) -> int | None:
        """Line of the reading that ends a step."""
        return self.line_of(int(self.order[step + 1]))


def rate(readings: Readings) -> Iterator[Finding]:
    steps = readings.steps_s[readings.steps_s > 0]
    if len(steps) and readings.usual_s > _LONGEST_STEP_S:
        mean = len(readings.steps_s) / float(readings.steps_s.sum())
        text = f"a reading every {readings.usual_s:.2f} s ({mean:.2f} a second on average)"
        yield finding("rate", text, readings.file, value=readings.usual_s, count=int((steps > _LONGEST_STEP_S).sum()))


def uneven(readings: Readings) -> Iterator[Finding]:
    steps = readings.steps_s / readings.usual_s
    found = ((steps > _UNEVEN) & (steps <= _GAP)).nonzero()[0]
    if len(found):
        worst = int(found[np.argmax(steps[found])])
        longest = float(readings.steps_s[worst])
        text = f"{len(found)} of {len(steps)} steps are uneven, the longest {longest:.2f} s"
        line = readings.line_after(worst)
        yield finding("uneven", text, readings.file, line=line, value=longest, count=len(found))


def gaps(readings: Readings) -> Iterator[Finding]:
    yield from _long(readings, readings.long[0], "gap", "without readings")


def stalls(readings: Readings) -> Iterator[Finding]:
    yield from _long(readings, readings.long[1], "stall", "held up, then readings in a burst")


def _long(readings: Readings, found: Ints, rule: str, what: str) -> Iterator[Finding]:
    if not len(found):
        return
    worst = int(found[np.argmax(readings.steps_s[found])])
    longest = float(readings.steps_s[worst])
    missing = _inside_s(readings, found)
    window = readings.window_s
    share = missing / (window[1] - window[0]) if window is not None and window[1] > window[0] else 0.0
    text = f"{longest:.1f} s {what}"
    if len(found) > 1:
        text = f"{len(found)} times, {float(readings.steps_s[found].sum()):.1f} s in all, the longest {text}"
    text += f"; {share:.1%} of the run" if share else ""
    severity: Severity | None = "error" if share > _MOST_MISSING else None
    line = readings.line_after(worst)
    yield finding(rule, text, readings.file, line=line, value=longest, count=len(found), severity=severity)


def _inside_s(readings: Readings, found: Ints) -> float:
    """What of these steps lies in the window and beyond a usual step."""
    if readings.window_s is None:
        return 0.0
    t = readings.t_s[readings.order]
    begin = np.clip(t[found] + readings.usual_s, *readings.window_s)
    end = np.clip(t[found + 1], *readings.window_s)
    return float(np.maximum(end - begin, 0.0).sum())


def frozen(readings: Readings) -> Iterator[Finding]:
    watts = readings.watts
    if len(watts) < _FROZEN or float(watts.min()) == float(watts.max()):
        return
    changes = np.concatenate(([0], (np.diff(watts) != 0).nonzero()[0] + 1, [len(watts)]))
    lengths = np.diff(changes)
    long = (lengths >= _FROZEN).nonzero()[0]
    if len(long):
        worst = int(long[np.argmax(lengths[long])])
        at, most = int(changes[worst]), int(lengths[worst])
        text = f"{most} readings in a row of {watts[at]:g} W"
        yield finding("frozen", text, readings.file, line=readings.line_of(at), value=float(watts[at]), count=len(long))


def repeated_stamps(readings: Readings) -> Iterator[Finding]:
    found = (readings.steps_s == 0).nonzero()[0]
    if len(found):
        text = f"{len(found)} of {len(readings.t_s)} readings repeat a time"
        line = readings.line_after(int(found[0]))
        yield finding("repeated-stamps", text, readings.file, line=line, value=len(found), count=len(found))


def backward_stamps(readings: Readings) -> Iterator[Finding]:
    steps = np.diff(readings.t_s)
    found = (steps < 0).nonzero()[0]
    if len(found):
        worst = int(np.argmin(steps))
        text = f"times go back {len(found)} times, by up to {-steps[worst]:.3f} s"
        line = readings.line_of(worst + 1)
        yield finding("backward-stamps", text, readings.file, line=line, value=float(steps[worst]), count=len(found))


def non_positive(readings: Readings) -> Iterator[Finding]:
    found = (readings.watts <= 0).nonzero()[0]
    if not len(found):
        return
    worst = int(found[np.argmin(readings.watts[found])])
    window = readings.window_s
    inside = 0 if window is None else int(((readings.t_s[found] > window[0]) & (readings.t_s[found] < window[1])).sum())
    text = f"{len(found)} readings of 0 W or less, down to {readings.watts[worst]:g} W; {inside} of them in the run"
    value = float(readings.watts[worst])
    severity: Severity | None = None if inside or window is None else "warning"
    line = readings.line_of(worst)
    yield finding("non-positive", text, readings.file, line=line, value=value, count=len(found), severity=severity)


def sixty_samples(readings: Readings) -> Iterator[Finding]:
    if len(readings.t_s) < _LEAST_READINGS:
        yield finding("sixty-samples", f"{len(readings.t_s)} readings", readings.file, value=len(readings.t_s))


RULES_OF_READINGS: tuple[Callable[[Readings], Iterator[Finding]], ...] = (
    rate,
    uneven,
    gaps,
    stalls,
    frozen,
    repeated_stamps,
    backward_stamps,
    non_positive,
    sixty_samples,
)
