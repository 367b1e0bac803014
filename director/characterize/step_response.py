"""Update period, averaging window, delay and noise of a channel, from its readings while a known load goes on and off.

A value that a device publishes at u is taken to be b + a·y(u), where y is the load (1 on, 0 off) as it was D before,
either averaged over the W before that, or through a low-pass filter of first order. For each D and W the best a and b
are those of least squares; D and W are those whose squares are least. docs/formulas/step-response.md tells it in full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from drivers.contract import Kind, Status

Floats = npt.NDArray[np.float64]

LEAST_UPDATES = 30
LEAST_EDGES = 6
LEAST_STEP = 3.0  # of the load, in standard deviations of what is left unexplained
POLLS_PER_UPDATE = 2.5  # below that many, polling hides how often the device has a new value
_GRID = 41
_FINER = 11
_REFINEMENTS = 6


class CannotTell(Exception):
    """The readings do not show what was looked for: why, and what to do."""


@dataclass(frozen=True)
class Load:
    """When the load was on: instants of its edges in ns on the clock of the readings, on first, then off, and so on."""

    edges_ns: npt.NDArray[np.int64]

    def seconds_on(self, at_s: Floats, origin_ns: int) -> Floats:
        """How long it has been on up to each instant, given in seconds after `origin_ns`."""
        edges_s = (self.edges_ns - origin_ns) * 1e-9
        on_s = np.concatenate([[0.0], np.cumsum(np.diff(edges_s) * (np.arange(len(edges_s) - 1) % 2 == 0))])
        after = np.where(np.searchsorted(edges_s, at_s, side="right") % 2 == 1, 1.0, 0.0)
        index = np.clip(np.searchsorted(edges_s, at_s, side="right") - 1, 0, len(edges_s) - 1)
        found: Floats = np.where(at_s < edges_s[0], 0.0, on_s[index] + after * (at_s - edges_s[index]))
        return found

    def filtered(self, at_s: Floats, origin_ns: int, time_constant_s: float) -> Floats:
        """The load behind a low-pass filter of first order, at instants in seconds after `origin_ns`."""
        edges_s = (self.edges_ns - origin_ns) * 1e-9
        level, levels = 0.0, []
        for number, edge_s in enumerate(edges_s):
            if number:
                target = float(number % 2)  # since the edge before it, which has the other parity
                level = target + (level - target) * np.exp(-(edge_s - edges_s[number - 1]) / time_constant_s)
            levels.append(level)
        count = np.searchsorted(edges_s, at_s, side="right")
        index = np.clip(count - 1, 0, len(edges_s) - 1)
        target_at = (count % 2).astype(np.float64)
        decay = np.exp(-np.maximum(at_s - edges_s[index], 0.0) / time_constant_s)
        found: Floats = np.where(count == 0, 0.0, target_at + (np.array(levels)[index] - target_at) * decay)
        return found


@dataclass(frozen=True)
class StepResponse:
    """What was found. Each `_u` is an expanded uncertainty (k = 2) in the unit of its value."""

    update_period_s: float | None  # None: it has a new value at least as often as it was read
    update_low_s: float  # 5th and 95th percentile of the time between new values
    update_high_s: float
    poll_s: float  # median time between readings
    delay_s: float  # from the end of what a value describes to its publication
    delay_u_s: float
    shape: Literal["mean", "low-pass", "counter"]
    window_s: float  # of a mean: its length; of a low-pass filter: twice its time constant, which lags as much
    window_u_s: float
    off_value: float  # in the channel's unit; of a counter: per second
    on_value: float
    noise: float  # standard deviation of the values about the fit
    updates: int
    edges: int


def step_response(
    t_ns: npt.NDArray[np.int64],
    values: Floats,
    statuses: npt.NDArray[np.uint8],
    *,
    kind: Kind,
    stamped: bool,
    load: Load,
) -> StepResponse:
    """Work out how a channel follows a load.

    Args:
        t_ns: instants of its readings, rising.
        values: in the channel's unit.
        statuses: one Status per reading.
        kind: gauge or counter.
        stamped: the instants are the device's own, of its updates.
        load: when the load was on.

    Raises:
        CannotTell: too few readings, new values or edges, or the load does not show.
    """
    usable = (statuses == Status.NEW) | (statuses == Status.STALE)
    t_ns, values, statuses = t_ns[usable], values[usable], statuses[usable]
    if len(load.edges_ns) < LEAST_EDGES:
        raise CannotTell(f"the load was switched {len(load.edges_ns)} times; {LEAST_EDGES} are needed: more --cycles")
    if len(t_ns) < LEAST_UPDATES:
        raise CannotTell(f"there are {len(t_ns)} readings; {LEAST_UPDATES} are needed: a longer --period, more --cycles")
    origin_ns = int(t_ns[0])
    t_s = (t_ns - origin_ns) * 1e-9
    poll_s = float(np.median(np.diff(t_s)))
    is_new = _new(values, statuses)
    if np.count_nonzero(is_new) < LEAST_UPDATES:
        raise CannotTell(
            f"it showed {np.count_nonzero(is_new)} new values; {LEAST_UPDATES} are needed: a longer --period, more --cycles"
        )
    new_s = t_s[is_new]
    period_s, low_s, high_s = _period(new_s, poll_s)
    # A value is seen on average half a poll after it came, where polling is what finds it.
    seen_late_s = 0.0 if stamped else min(poll_s, period_s or poll_s) / 2
    at_s, seen = new_s - seen_late_s, values[is_new]
    # Edges fall anywhere between new values, which show them the more finely the more edges there are.
    hidden_s = (0.0 if stamped else poll_s) + 2 * (period_s or poll_s) / len(load.edges_ns)
    half_s = float(np.median(np.diff(load.edges_ns))) * 1e-9
    fits = [_fit(shape, at_s, seen, load, origin_ns, half_s) for shape in _shapes(kind)]
    best = min(fits, key=lambda fit: fit.squares)
    if abs(best.gain) < LEAST_STEP * best.noise:
        raise CannotTell(
            f"the load does not show: it changes the reading by {best.gain:.3g}, and {best.noise:.3g} is unexplained; "
            "does this device measure what the load runs on? Otherwise a heavier load"
        )
    return StepResponse(
        update_period_s=period_s,
        update_low_s=low_s,
        update_high_s=high_s,
        poll_s=poll_s,
        delay_s=best.delay_s,
        delay_u_s=float(np.hypot(best.delay_u_s, hidden_s / 2)),
        shape=best.shape,
        window_s=best.window_s,
        window_u_s=float(np.hypot(best.window_u_s, hidden_s)) if kind == "gauge" else 0.0,
        off_value=best.base,
        on_value=best.base + best.gain,
        noise=best.noise,
        updates=len(new_s),
        edges=len(load.edges_ns),
    )


def _new(values: Floats, statuses: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which readings show a new value: as the device says where it ever says that one is stale, else a change."""
    if np.any(statuses == Status.STALE):
        return statuses == Status.NEW
    return np.concatenate([[False], np.diff(values) != 0])


def _period(new_s: Floats, poll_s: float) -> tuple[float | None, float, float]:
    """The update period, None where polling hides it, and the 5th and 95th percentile of the times between values.

    An update that brings the value it replaces is not seen, so that some times are multiples of the period.
    """
    apart_s = np.diff(new_s)
    single_s = apart_s[apart_s < 1.5 * np.percentile(apart_s, 20)]
    period_s = float(np.mean(single_s))
    low_s, high_s = (float(x) for x in np.percentile(single_s, [5, 95]))
    return (period_s if period_s > POLLS_PER_UPDATE * poll_s else None), low_s, high_s


Shape = Literal["mean", "low-pass", "counter"]


def _shapes(kind: Kind) -> tuple[Shape, ...]:
    return ("counter",) if kind == "counter" else ("mean", "low-pass")


@dataclass(frozen=True)
class _Fit:
    shape: Shape
    delay_s: float
    delay_u_s: float
    window_s: float
    window_u_s: float
    base: float
    gain: float
    noise: float
    squares: float


def _fit(
    shape: Shape, at_s: Floats, seen: Floats, load: Load, origin_ns: int, half_s: float
) -> _Fit:
    """The delay and window with the least squares: a grid, refined around its best point."""

    def model(delay_s: float, window_s: float) -> Floats:
        end_s = at_s - delay_s
        if shape == "counter":
            return load.seconds_on(end_s, origin_ns)
        if shape == "low-pass":
            return load.filtered(end_s, origin_ns, max(window_s / 2, 1e-6))
        width_s = max(window_s, 1e-6)
        found: Floats = (
            load.seconds_on(end_s, origin_ns) - load.seconds_on(end_s - width_s, origin_ns)
        ) / width_s
        return found

    if shape == "counter":
        def left(signal: Floats) -> tuple[float, float, float]:
            return _least_squares(np.column_stack([np.ones_like(at_s), at_s, signal]), seen)
    else:
        def left(signal: Floats) -> tuple[float, float, float]:
            return _least_squares(np.column_stack([np.ones_like(at_s), signal]), seen)

    delays = np.linspace(0.0, half_s, _GRID)
    windows = np.zeros(1) if shape == "counter" else np.linspace(0.0, 1.5 * half_s, _GRID)
    delay_s, window_s = _search(lambda d, w: left(model(d, w))[0], delays, windows)
    squares, base, gain = left(model(delay_s, window_s))
    freedom = max(1, len(at_s) - 4)
    # What tells delay and window are the values near an edge, and those whose windows overlap are not independent.
    limit = squares * (1 + 4 / min(freedom, len(load.edges_ns)))
    delay_u_s = _reach(lambda d: left(model(d, window_s))[0], delay_s, limit, half_s)
    window_u_s = 0.0
    if shape != "counter":
        window_u_s = _reach(lambda w: left(model(delay_s, w))[0], window_s, limit, half_s)
    return _Fit(
        shape, delay_s, delay_u_s, window_s, window_u_s, base, gain, float(np.sqrt(squares / freedom)), squares
    )


def _least_squares(columns: Floats, seen: Floats) -> tuple[float, float, float]:
    """Sum of squares that is left, the level without load (of a counter its rate) and what the load adds."""
    shift = seen - seen[0]
    found, *_ = np.linalg.lstsq(columns, shift, rcond=None)
    rest = shift - columns @ found
    base = float(found[0] + seen[0]) if columns.shape[1] == 2 else float(found[1])
    return float(rest @ rest), base, float(found[-1])


def _search(squares: Callable[[float, float], float], delays: Floats, windows: Floats) -> tuple[float, float]:
    for refinement in range(_REFINEMENTS + 1):
        table = np.array([[squares(delay, window) for window in windows] for delay in delays])
        row, column = np.unravel_index(int(np.argmin(table)), table.shape)
        delay, window = float(delays[row]), float(windows[column])
        if refinement < _REFINEMENTS:
            delays = _around(delays, delay)
            windows = _around(windows, window)
    return delay, window


def _around(grid: Floats, best: float) -> Floats:
    if len(grid) == 1:
        return grid
    step = float(grid[1] - grid[0])
    return np.linspace(max(0.0, best - step), best + step, _FINER)


def _reach(squares: Callable[[float], float], best: float, limit: float, most: float) -> float:
    """How far from `best` the squares stay below the limit, on the side where that is farther."""
    reach = 0.0
    for sign, farthest in ((-1.0, best), (1.0, most)):
        low, high = 0.0, farthest
        if squares(best + sign * farthest) <= limit:
            reach = max(reach, farthest)
            continue
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if squares(best + sign * middle) <= limit else (low, middle)
        reach = max(reach, high)
    return reach
