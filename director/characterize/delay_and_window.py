"""The delay and the window with which a channel follows a load: those with the least squares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from director.characterize.load import Load
from drivers.contract import Kind

Floats = npt.NDArray[np.float64]
Shape = Literal["mean", "low-pass", "counter"]

LONGEST_WINDOW = 1.5  # that is looked for, in median times between edges
_GRID = 21
_FINER = 7
_REFINEMENTS = 8
_HALVINGS = 14
_ALONG_THE_VALLEY = 9
_INSTANT_S = 1e-6  # a window that stands for none
_FLAT = 0.001  # of the load's step: by less the blur changes a value that no edge touches
_LEAST_FREEDOM = 10  # of the values that tell the levels and the noise
_LEAST_SPREAD = 0.2  # of the load that they show: some with it, and some without


@dataclass(frozen=True)
class Levels:
    """In the channel's unit, of a counter per second; each `_u` is an expanded uncertainty (k = 2)."""

    off: float
    off_u: float
    gain: float  # what the load adds
    on_u: float  # of both together
    noise: float  # standard deviation about the fit, in the channel's unit
    noise_u: float


@dataclass(frozen=True)
class Fit:
    """Delay and window in s, with their U (k = 2); the levels without and with load; what is left."""

    shape: Shape
    delay_s: float
    delay_u_s: float
    window_s: float
    window_u_s: float
    levels: Levels
    left: float  # standard deviation of all values about the fit
    squares: float
    at_the_limit: bool  # of the delays or windows that were looked at


def best_fit(
    kind: Kind, at_s: Floats, seen: Floats, load: Load, origin_ns: int, *, half_s: float, blur_s: float
) -> Fit:
    """The best fit of the shapes that a kind of channel may have.

    Args:
        kind: gauge or counter.
        at_s: when values were published, in seconds after `origin_ns`.
        seen: the values.
        load: when the load was on.
        origin_ns: on the clock of the load.
        half_s: median time between edges of the load.
        blur_s: how far an instant may be wrong.
    """
    shapes: tuple[Shape, ...] = ("counter",) if kind == "counter" else ("mean", "low-pass")
    fits = [_fit(_Problem(shape, at_s, seen, load, origin_ns), half_s, blur_s) for shape in shapes]
    return min(fits, key=lambda fit: fit.squares)


class _Problem:
    """Values, and how well the load explains them after a delay and behind a window."""

    def __init__(self, shape: Shape, at_s: Floats, seen: Floats, load: Load, origin_ns: int) -> None:
        self.shape = shape
        self.edges = len(load.edges_ns)
        self._at_s, self._load, self._origin_ns = at_s, load, origin_ns
        ones = np.ones_like(at_s)
        # A counter goes on without load too; what remains of all columns after these is compared.
        self._known = np.column_stack([ones, at_s]) if shape == "counter" else ones[:, None]
        self._axes, _ = np.linalg.qr(self._known)
        self._seen = seen - seen[0]
        self._start = float(seen[0])
        self._seen_rest = self._rest(self._seen)
        self._total = float(self._seen_rest @ self._seen_rest)

    def squares(self, delay_s: float, window_s: float) -> float:
        """Sum of squares that is left unexplained."""
        signal = self._rest(self._model(delay_s, window_s))
        power = float(signal @ signal)
        if power <= 1e-12 * len(signal):
            return self._total
        return max(0.0, self._total - float(signal @ self._seen_rest) ** 2 / power)

    def levels(self, delay_s: float, window_s: float, blur_s: float) -> Levels:
        """Levels and noise at a delay and a window.

        An instant that is wrong by the blur makes a value near an edge wrong, of a counter every value under load, and
        that is no noise of the device: such values are left out where enough others remain.
        """
        columns = np.column_stack([self._known, self._model(delay_s, window_s)])
        early, late = self._model(delay_s + blur_s, window_s), self._model(delay_s - blur_s, window_s)
        kept = np.abs(late - early) < _FLAT
        freedom = int(np.count_nonzero(kept)) - columns.shape[1]
        if freedom < _LEAST_FREEDOM or np.std(columns[kept, -1]) < _LEAST_SPREAD:
            kept, freedom = np.ones(len(kept), dtype=bool), self.freedom
        found, *_ = np.linalg.lstsq(columns[kept], self._seen[kept], rcond=None)
        rest = self._seen[kept] - columns[kept] @ found
        noise = float(np.sqrt(rest @ rest / freedom))
        spread = noise**2 * np.linalg.pinv(columns[kept].T @ columns[kept])
        place = 1 if self.shape == "counter" else 0
        both = spread[place, place] + spread[-1, -1] + 2 * spread[place, -1]
        return Levels(
            off=float(found[place]) + (0.0 if self.shape == "counter" else self._start),
            off_u=2 * float(np.sqrt(spread[place, place])),
            gain=float(found[-1]),
            on_u=2 * float(np.sqrt(max(0.0, both))),
            noise=noise,
            noise_u=2 * noise / float(np.sqrt(2 * freedom)),
        )

    @property
    def freedom(self) -> int:
        """Values less what is fitted to them."""
        found: int = max(1, len(self._at_s) - self._known.shape[1] - (2 if self.shape == "counter" else 3))
        return found

    def _rest(self, column: Floats) -> Floats:
        rest: Floats = column - self._axes @ (self._axes.T @ column)
        return rest

    def _model(self, delay_s: float, window_s: float) -> Floats:
        end_s = self._at_s - delay_s
        if self.shape == "counter":
            return self._load.seconds_on(end_s, self._origin_ns)
        if self.shape == "low-pass":
            return self._load.filtered(end_s, self._origin_ns, max(window_s / 2, _INSTANT_S))
        width_s = max(window_s, _INSTANT_S)
        on_s = self._load.seconds_on(end_s, self._origin_ns)
        return (on_s - self._load.seconds_on(end_s - width_s, self._origin_ns)) / width_s


def _fit(problem: _Problem, half_s: float, blur_s: float) -> Fit:
    has_window = problem.shape != "counter"
    delays = np.linspace(0.0, half_s, _GRID)
    windows = np.linspace(0.0, LONGEST_WINDOW * half_s, _GRID) if has_window else np.zeros(1)
    delay_s, window_s = _search(problem.squares, delays, windows)
    squares = problem.squares(delay_s, window_s)
    # What tells delay and window are the values near an edge, and those whose windows overlap are not independent.
    limit = squares * (1 + 4 / min(problem.freedom, problem.edges))

    # A window that is longer by 2 looks much like a delay that is longer by 1: one gives way to the other.
    def least_at_delay(delay: float) -> float:
        nearby = _nearby(window_s, 4 * (delay - delay_s)) if has_window else [0.0]
        return min(problem.squares(delay, window) for window in nearby)

    def least_at_window(window: float) -> float:
        return min(problem.squares(delay, window) for delay in _nearby(delay_s, window - window_s))

    return Fit(
        shape=problem.shape,
        delay_s=delay_s,
        delay_u_s=_reach(least_at_delay, delay_s, limit, half_s),
        window_s=window_s,
        window_u_s=_reach(least_at_window, window_s, limit, half_s) if has_window else 0.0,
        levels=problem.levels(delay_s, window_s, blur_s),
        left=float(np.sqrt(squares / problem.freedom)),
        squares=squares,
        at_the_limit=delay_s >= delays[-2] or (has_window and window_s >= windows[-2]),
    )


def _nearby(best: float, reach: float) -> list[float]:
    """Values about the best one, none below 0."""
    return [max(0.0, best + share * reach) for share in np.linspace(-1, 1, _ALONG_THE_VALLEY)]


def _search(squares: Callable[[float, float], float], delays: Floats, windows: Floats) -> tuple[float, float]:
    """The best delay and window: a grid, refined around its best point."""
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
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if squares(best + sign * middle) <= limit else (low, middle)
        reach = max(reach, high)
    return reach
