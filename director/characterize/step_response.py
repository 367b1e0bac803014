"""Update period, averaging window, delay and noise of a channel, from its readings while a known load goes on and off.

A value that a device publishes at u is taken to be b + a·y(u − D), where y is the load (1 on, 0 off), either averaged
over the W before, or behind a low-pass filter of first order. For each D and W the best a and b are those of least
squares; D and W are those whose squares are least. docs/formulas/step-response.md tells it in full.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from director.characterize.delay_and_window import Fit, Shape, best_fit
from director.characterize.load import Load
from drivers.contract import Kind, Status

Floats = npt.NDArray[np.float64]

LEAST_UPDATES = 30
LEAST_EDGES = 6
LEAST_STEP = 3.0  # of the load, in standard deviations of what is left unexplained
POLLS_PER_UPDATE = 2.5  # below that many, polling hides how often the device has a new value
MORE = "more --cycles or a longer --period"


class CannotTell(Exception):
    """The readings do not show what was looked for: why, and what to do."""


@dataclass(frozen=True)
class StepResponse:
    """What was found. Each `_u` is an expanded uncertainty (k = 2) in the unit of its value."""

    update_period_s: float | None  # None: it has a new value at least as often as it was read, or nearly
    update_period_u_s: float
    update_low_s: float  # 5th and 95th percentile of the time between new values
    update_high_s: float
    poll_s: float  # median time between readings
    delay_s: float  # from the end of what a value describes to its publication; to its reading where both are None:
    # update_period_s here and the period that the driver tells
    delay_u_s: float
    shape: Shape
    window_s: float  # of a mean: its length; of a low-pass filter: twice its time constant, which lags as much
    window_u_s: float
    off_value: float  # in the channel's unit; of a counter: per second
    off_value_u: float
    on_value: float
    on_value_u: float
    noise: float  # standard deviation of the values about the fit
    noise_u: float
    updates: int  # new values that were seen
    edges: int


def step_response(
    t_ns: npt.NDArray[np.int64],
    values: Floats,
    statuses: npt.NDArray[np.uint8],
    *,
    kind: Kind,
    stamped: bool,
    told_period_s: float | None = None,
    load: Load,
) -> StepResponse:
    """Work out how a channel follows a load.

    Args:
        t_ns: instants of its readings, rising.
        values: in the channel's unit.
        statuses: one Status per reading.
        kind: gauge or counter.
        stamped: the instants are the device's own, of its updates.
        told_period_s: the update period that the driver tells, for where polling hides it.
        load: when the load was on.

    Raises:
        CannotTell: too few readings, new values or edges, or the load does not show.
    """
    usable = ((statuses == Status.NEW) | (statuses == Status.STALE)) & np.isfinite(values)
    t_ns, values, statuses = t_ns[usable], values[usable], statuses[usable]
    if len(load.edges_ns) < LEAST_EDGES:
        raise CannotTell(f"the load was switched {len(load.edges_ns)} times; {LEAST_EDGES} are needed: more --cycles")
    if len(t_ns) < LEAST_UPDATES:
        raise CannotTell(f"there are {len(t_ns)} readings; {LEAST_UPDATES} are needed: {MORE}")
    origin_ns = int(t_ns[0])
    t_s: Floats = np.multiply(t_ns - origin_ns, 1e-9, dtype=np.float64)
    poll_s = float(np.median(np.diff(t_s)))
    is_new = _new(t_s, values, statuses, stamped)
    updates = int(np.count_nonzero(is_new))
    if updates < LEAST_UPDATES:
        raise CannotTell(f"it showed {updates} new values; {LEAST_UPDATES} are needed: {MORE}")
    period_s, period_u_s, low_s, high_s = _period(t_s[is_new], 0.0 if stamped else poll_s)
    if stamped:
        seen_late_s, hidden_s = 0.0, 0.0
    elif period_s is not None:
        seen_late_s, hidden_s = poll_s / 2, poll_s  # of each value its first sight, half a poll late on average
    elif kind == "counter":
        seen_late_s, hidden_s = min(told_period_s or 0.0, poll_s) / 2, poll_s
    else:
        # A value that is read at any moment is half an update old on average; at nearly equal rates it may stay young.
        seen_late_s, hidden_s = (told_period_s or 0.0) / 2, told_period_s or poll_s
        is_new = np.ones(len(t_s), dtype=bool)
    # Edges fall anywhere between new values, which show them the more finely the more edges there are.
    hidden_s += 2 * (period_s or poll_s) / len(load.edges_ns)
    half_s = float(np.median(np.diff(load.edges_ns))) * 1e-9
    found = best_fit(
        kind,
        t_s[is_new] - seen_late_s,
        values[is_new],
        load,
        origin_ns,
        half_s=half_s,
        blur_s=0.0 if stamped else poll_s,
    )
    _check(found, half_s)
    return StepResponse(
        update_period_s=period_s,
        update_period_u_s=period_u_s,
        update_low_s=low_s,
        update_high_s=high_s,
        poll_s=poll_s,
        delay_s=found.delay_s,
        delay_u_s=float(np.hypot(found.delay_u_s, hidden_s / 2)),
        shape=found.shape,
        window_s=found.window_s,
        window_u_s=float(np.hypot(found.window_u_s, hidden_s)) if kind == "gauge" else 0.0,
        off_value=found.levels.off,
        off_value_u=found.levels.off_u,
        on_value=found.levels.off + found.levels.gain,
        on_value_u=found.levels.on_u,
        noise=found.levels.noise,
        noise_u=found.levels.noise_u,
        updates=updates,
        edges=len(load.edges_ns),
    )


def _new(t_s: Floats, values: Floats, statuses: npt.NDArray[np.uint8], stamped: bool) -> npt.NDArray[np.bool_]:
    """Which readings show a new value: as the device says where it ever says that one is stale, else a change."""
    told_new: npt.NDArray[np.bool_] = np.equal(statuses, Status.NEW)
    if stamped:
        told_new[1:] &= np.diff(t_s) > 0
        return told_new
    if np.any(statuses == Status.STALE):
        return told_new
    return np.concatenate([[False], np.diff(values) != 0])


def _period(new_s: Floats, poll_s: float) -> tuple[float | None, float, float, float]:
    """The update period and its U, None where polling hides it, and percentiles of the times between values.

    An update that brings the value it replaces is not seen, so that some times are multiples of the period.
    """
    apart_s = np.diff(new_s)
    single_s = apart_s[apart_s < 1.5 * np.percentile(apart_s, 20) + poll_s]
    period_s = float(np.mean(single_s))
    low_s, high_s = (float(x) for x in np.percentile(single_s, [5, 95]))
    # Times in a row add up to one that polling blurs at its ends alone.
    u_s = float(np.hypot(2 * np.std(single_s) / np.sqrt(len(single_s)), poll_s / len(single_s)))
    return (period_s if period_s > POLLS_PER_UPDATE * poll_s else None), u_s, low_s, high_s


def _check(found: Fit, half_s: float) -> None:
    gain, left = found.levels.gain, found.left
    if abs(gain) < LEAST_STEP * left or gain == 0:
        raise CannotTell(
            f"the load does not show: it changes the reading by {gain:.3g}, and {left:.3g} is unexplained; "
            "does this device measure what the load runs on? Otherwise a heavier load"
        )
    if found.at_the_limit:
        raise CannotTell(
            f"it follows the load more slowly than can be told while the load changes every {half_s:.3g} s: a longer "
            "--period"
        )
