"""Readings become cells: consecutive stretches of time, each with a mean power.

A gauge's reading stands for the time half-way to its neighbours, shifted back by the channel's lag. Two readings of a
counter bound a cell whose energy is exactly their difference, in integers. Where readings are too far apart, a gauge
leaves a gap, which is bridged by a straight line and never counted as measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from director.energy.channel_timing import Timing
from drivers.contract import Channel, Status

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]  # raw values: int64 of a counter or state, float64 of a gauge
Bools = npt.NDArray[np.bool_]

GAP_FACTOR = 2.5  # readings further apart than this many spacings leave a gap
LARGEST_WATTS = 1e9  # of any gauge: a power station; what says more is broken
MOST_PLAUSIBLE_WATTS = 3000.0  # of one counter's domain: a "wrap" that would mean more is a reset


@dataclass(frozen=True)
class Readings:
    """Valid readings of one channel, strictly ascending in time. `t_ns` counts from the session's origin."""

    t_ns: Floats
    value: Numbers  # raw, before `Channel.scale`
    stale: Bools
    missing_t_ns: Floats  # instants of the rows that gave no valid value
    max_read_ns: float


@dataclass(frozen=True)
class Cells:
    """Consecutive cells in ascending order. Cell i is followed by a gap where right[i] < left[i + 1]."""

    left_ns: Floats
    right_ns: Floats
    watts: Floats
    energy: Floats  # in raw units; whole numbers for a counter, so that their sums are exact
    joules_per_raw: float
    measured: Bools  # False: a counter was reset within the cell, its energy is not known
    stale: Bools


def readings_from(
    t_ns: Ints,
    read_ns: Ints,
    value: Numbers,
    status: npt.NDArray[np.uint8],
    origin_ns: int,
    after_ns: float,
    largest: float = np.inf,
) -> Readings:
    """Keep the rows that hold a valid value, of a gauge below `largest`, later than `after_ns` and than all before."""
    t = (t_ns - origin_ns).astype(np.float64)
    longest = float(read_ns.max()) if len(read_ns) else 0.0
    finite = value.dtype.kind != "f" or bool((np.abs(value) < largest).all())  # not true of NaN, too
    if finite and not status.any() and len(t) and t[0] > after_ns and bool((t[1:] > t[:-1]).all()):
        return Readings(t, value, np.zeros(len(t), dtype=bool), np.empty(0), longest)
    stale = status == Status.STALE
    valid = (status == Status.NEW) | stale
    if not finite:
        valid &= np.abs(value) < largest
    if len(t):
        valid &= t > np.maximum.accumulate(np.concatenate(([after_ns], t[:-1])))
    return Readings(t[valid], value[valid], stale[valid], t[~valid], longest)


def gauge_cells(channel: Channel, timing: Timing, t_ns: Floats, value: Numbers, stale: Bools) -> Cells:
    """Cells of consecutive readings of a power gauge; one cell per reading.

    The first and last cell reach half a spacing outwards.
    """
    at = t_ns - timing.lag_ns
    watts = value * channel.scale if channel.scale != 1.0 else value
    half_ns = timing.spacing_ns / 2
    middle = 0.5 * (at[1:] + at[:-1])
    left = np.concatenate(([at[0] - half_ns], middle))
    right = np.concatenate((middle, [at[-1] + half_ns]))
    apart = at[1:] - at[:-1]
    gap = apart > GAP_FACTOR * timing.spacing_ns
    if gap.any():
        i = np.nonzero(gap)[0]
        right[i] = at[i] + half_ns
        left[i + 1] = at[i + 1] - half_ns
    if timing.update_known and timing.update_ns > timing.poll_ns:
        stale = stale.copy()
        stale[1:] |= (watts[1:] == watts[:-1]) & (apart < timing.update_ns)
    return Cells(left, right, watts, watts * (right - left), 1e-9, np.ones(len(at), dtype=bool), stale)


def unwrap(channel: Channel, timing: Timing, t_ns: Floats, value: Numbers) -> tuple[Ints, Bools]:
    """Differences of a counter's consecutive readings, in raw counts, and which of them are known.

    A decrease is a wrap when the counter has a modulus and the energy it would mean is plausible for the time that
    passed; any other decrease is a reset, and what happened across it is not known.
    """
    delta = value[1:] - value[:-1]
    known = np.ones(len(delta), dtype=bool)
    fell = delta < 0
    if fell.any():
        i = np.nonzero(fell)[0]
        if channel.modulus is None:
            known[i] = False
        else:
            if channel.modulus >= 2**63:  # the counter is as wide as our integers: their overflow is its wrap
                wrapped = delta[i].astype(np.float64) + float(channel.modulus)
                exact = (value[i + 1].astype(np.uint64) - value[i].astype(np.uint64)).astype(np.int64)
            else:
                exact = delta[i] + channel.modulus
                wrapped = exact.astype(np.float64)
            seconds = (t_ns[i + 1] - t_ns[i]) * 1e-9
            plausible = wrapped * channel.scale <= MOST_PLAUSIBLE_WATTS * np.maximum(seconds, timing.poll_ns * 1e-9)
            delta[i] = np.where(plausible, exact, 0)
            known[i] = plausible
        delta[~known] = 0
    return delta, known


def counter_cells(channel: Channel, timing: Timing, t_ns: Floats, value: Numbers, stale: Bools) -> Cells:
    """Cells of consecutive readings of an energy counter; one cell fewer than readings.

    The caller has already left out readings that repeat the value before while the device's step was not over.
    """
    at = t_ns - timing.lag_ns
    delta, known = unwrap(channel, timing, t_ns, value)
    width = at[1:] - at[:-1]
    energy = delta.astype(np.float64)
    watts = energy * (channel.scale * 1e9) / width
    if known.any() and not known.all():  # as a gap: bridged from cell to cell, and never called measured
        unknown = np.flatnonzero(~known)
        middle = 0.5 * (at[1:] + at[:-1])
        watts[unknown] = np.interp(middle[unknown], middle[known], watts[known])
        energy[unknown] = watts[unknown] * width[unknown] / (channel.scale * 1e9)
    return Cells(at[:-1], at[1:], watts, energy, channel.scale, known, stale[1:])


def first_sights(timing: Timing, value: Numbers) -> Bools:
    """Which of a counter's readings to keep: where it is polled faster than it steps, the first of each value.

    The last reading is always kept, so that a counter that stands still is known to have stood still.
    """
    keep = np.ones(len(value), dtype=bool)
    if timing.update_known and timing.poll_ns < timing.update_ns and len(value):
        keep[1:] = value[1:] != value[:-1]
        keep[-1] = True
    return keep


def with_context(blocks: Iterable[Readings], context: int) -> Iterator[tuple[Readings, int, int]]:
    """Join blocks so that each comes with up to `context` readings before and after it.

    Yields (readings, first, last): readings[first:last] are this block's own.
    """
    before: Readings | None = None
    pending: Readings | None = None
    for block in blocks:
        if pending is None:
            pending = block
            continue
        if len(block.t_ns) < context or len(pending.t_ns) < context:
            pending = _joined(pending, block)
            continue
        yield _framed(before, pending, block, context)
        before, pending = pending, block
    if pending is not None:
        yield _framed(before, pending, None, context)


def _joined(one: Readings, two: Readings) -> Readings:
    return Readings(
        np.concatenate((one.t_ns, two.t_ns)),
        np.concatenate((one.value, two.value)),
        np.concatenate((one.stale, two.stale)),
        np.concatenate((one.missing_t_ns, two.missing_t_ns)),
        max(one.max_read_ns, two.max_read_ns),
    )


def _framed(before: Readings | None, own: Readings, after: Readings | None, n: int) -> tuple[Readings, int, int]:
    parts = [own]
    first = 0
    if before is not None and len(before.t_ns):
        first = min(n, len(before.t_ns))
        parts.insert(0, Readings(before.t_ns[-n:], before.value[-n:], before.stale[-n:], np.empty(0), 0.0))
    if after is not None:
        parts.append(Readings(after.t_ns[:n], after.value[:n], after.stale[:n], np.empty(0), 0.0))
    if len(parts) == 1:
        return own, 0, len(own.t_ns)
    joined = Readings(
        np.concatenate([p.t_ns for p in parts]),
        np.concatenate([p.value for p in parts]),
        np.concatenate([p.stale for p in parts]),
        own.missing_t_ns,
        own.max_read_ns,
    )
    return joined, first, first + len(own.t_ns)
