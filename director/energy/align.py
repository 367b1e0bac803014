"""Cut a channel's trace at the edges of phases, in one pass and bounded memory.

The instants at which any phase begins or ends cut time into segments. For each segment the pass gathers what adds up
(energy, measured time, roughness, counts) and what is the largest and smallest (power); for each edge it notes what
the power did around it. A phase is a run of consecutive segments, so the parts of a phase always sum to the phase.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from director.energy.cells import (
    LARGEST_WATTS,
    Bools,
    Cells,
    Floats,
    Ints,
    Readings,
    counter_cells,
    first_sights,
    gauge_cells,
    readings_from,
    with_context,
)
from director.energy.channel_timing import Timing
from director.session.trace_store import Piece
from drivers.contract import Channel

MOST_NEIGHBOURS = 256  # cells looked at on each side of an edge
RIPPLE_SPACINGS = 8  # spacings on each side in which ripples of a full-window device are judged


@dataclass(frozen=True)
class Aligned:
    """One channel cut at edges. Arrays per edge have M values, arrays per segment M − 1."""

    edges_ns: Floats  # ascending, from the session's origin
    joules_at: Floats  # energy from the trace's begin to each edge
    measured_ns_at: Floats
    roughness_at: Floats  # running ∫ (second difference of power)² dt, W²·ns
    readings_at: Ints  # valid readings before each edge
    stale_at: Ints
    missing_at: Ints
    peak_watts: Floats  # largest mean power of a cell that touches the segment; NaN: none
    least_watts: Floats
    edge_watts: Floats  # power at the edge
    edge_spread_watts: Floats  # largest minus smallest power near the edge
    edge_hidden_watts: Floats  # standard deviation of what averaging hides near the edge, as its traces betray it
    edge_cell_ns: Floats  # length of the cell that holds the edge
    begin_ns: float  # the time that the trace covers; NaN: it has no reading
    end_ns: float
    max_read_ns: float


class _Cut:
    """The running state of one pass."""

    def __init__(self, edges_ns: Floats) -> None:
        n = len(edges_ns)
        self.edges = edges_ns
        self.energy = np.zeros(n)
        self.measured = np.zeros(n)
        self.roughness = np.zeros(n)
        self.readings = np.zeros(n, dtype=np.int64)
        self.stale = np.zeros(n, dtype=np.int64)
        self.peak = np.full(n + 1, -np.inf)  # of the segment that ends at each edge
        self.least = np.full(n + 1, np.inf)
        self.watts = np.full(n, np.nan)
        self.spread = np.full(n, np.nan)
        self.hidden = np.zeros(n)
        self.cell = np.full(n, np.nan)
        self.total_energy = 0.0
        self.total_measured = 0.0
        self.total_roughness = 0.0
        self.total_readings = 0
        self.total_stale = 0
        self.last_right: float | None = None
        self.last_watts = 0.0
        self.joules_per_raw = 1.0


def align(
    channel: Channel, timing: Timing, pieces: Iterable[Piece], edges_ns: Ints, origin_ns: int, column: int = 0
) -> Aligned:
    """Cut the channel's trace at `edges_ns` (ascending, unique, monotonic nanoseconds).

    `column` is the channel's place in each piece. Memory grows with the number of edges, not with the trace.
    """
    edges = (edges_ns - origin_ns).astype(np.float64)
    cut = _Cut(edges)
    reach = max(timing.spacing_ns, timing.window_ns) / 2 + timing.spacing_ns
    neighbours = int(min(MOST_NEIGHBOURS, np.ceil(reach / timing.poll_ns) + 1))
    step = max(1, round(timing.spacing_ns / timing.poll_ns))  # cells between independent readings
    largest = LARGEST_WATTS / abs(channel.scale)
    is_counter = channel.kind == "counter"
    if is_counter:
        step = 1
    context = max(neighbours, (RIPPLE_SPACINGS + 1) * step) + 2
    missing_parts: list[Floats] = []
    span: list[float] = [np.nan, np.nan]
    longest_read = 0.0

    def blocks() -> Iterable[Readings]:
        nonlocal longest_read
        after = -np.inf
        for piece in pieces:
            readings = readings_from(
                piece.t_ns, piece.read_ns, piece.values[column], piece.statuses[column], origin_ns, after, largest
            )
            longest_read = max(longest_read, readings.max_read_ns)
            if len(readings.missing_t_ns):
                missing_parts.append(readings.missing_t_ns)
            if not len(readings.t_ns):
                continue
            after = float(readings.t_ns[-1])
            if is_counter:
                keep = first_sights(timing, readings.value)
                if not keep.all():
                    readings = Readings(
                        readings.t_ns[keep], readings.value[keep], readings.stale[keep], np.empty(0), 0.0
                    )
            yield readings

    for readings, first, last in with_context(blocks(), context):
        if is_counter:
            if len(readings.t_ns) < 2:
                continue
            cells = counter_cells(channel, timing, readings.t_ns, readings.value, readings.stale)
            first, last = max(first - 1, 0), last - 1
        else:
            cells = gauge_cells(channel, timing, readings.t_ns, readings.value, readings.stale)
        _take(cut, cells, first, last, timing, neighbours, step)
        if np.isnan(span[0]):
            span[0] = float(cells.left_ns[first])
        span[1] = float(cells.right_ns[last - 1])

    missing = np.sort(np.concatenate(missing_parts)) if missing_parts else np.empty(0)
    beyond = edges > span[1]
    cut.energy[beyond] = cut.total_energy
    cut.measured[beyond] = cut.total_measured
    cut.roughness[beyond] = cut.total_roughness
    cut.readings[beyond] = cut.total_readings
    cut.stale[beyond] = cut.total_stale
    return Aligned(
        edges_ns=edges,
        joules_at=cut.energy * cut.joules_per_raw,
        measured_ns_at=cut.measured,
        roughness_at=cut.roughness,
        readings_at=cut.readings,
        stale_at=cut.stale,
        missing_at=np.searchsorted(missing, edges).astype(np.int64),
        peak_watts=np.where(np.isfinite(cut.peak[1:-1]), cut.peak[1:-1], np.nan),
        least_watts=np.where(np.isfinite(cut.least[1:-1]), cut.least[1:-1], np.nan),
        edge_watts=cut.watts,
        edge_spread_watts=cut.spread,
        edge_hidden_watts=cut.hidden,
        edge_cell_ns=cut.cell,
        begin_ns=span[0],
        end_ns=span[1],
        max_read_ns=longest_read,
    )


def _take(cut: _Cut, cells: Cells, first: int, last: int, timing: Timing, neighbours: int, step: int) -> None:
    """Add cells[first:last] to the running state."""
    left, right = cells.left_ns[first:last], cells.right_ns[first:last]
    watts = cells.watts[first:last]
    cut.joules_per_raw = cells.joules_per_raw
    x, energy, measured = _running(cells, first, last)
    rough = _roughness(cells, first, last, step)
    rough_at = np.concatenate(([0.0], np.cumsum(rough)))
    if cut.last_right is None:
        lo = int(np.searchsorted(cut.edges, left[0], side="left"))
    else:
        lo = int(np.searchsorted(cut.edges, cut.last_right, side="right"))
        if left[0] > cut.last_right:  # a gap since the block before
            bridge = 0.5 * (cut.last_watts + watts[0]) * (left[0] - cut.last_right) * (1e-9 / cells.joules_per_raw)
            x = np.concatenate(([cut.last_right], x))
            energy = np.concatenate(([0.0], energy + bridge))
            measured = np.concatenate(([0.0], measured))
    hi = int(np.searchsorted(cut.edges, right[-1], side="right"))
    edges = cut.edges[lo:hi]
    # the cell that each edge lies in; an edge in a gap belongs to the cell before
    index = np.clip(np.searchsorted(left, edges, side="right") - 1, 0, len(left) - 1)
    if len(edges):
        cut.energy[lo:hi] = cut.total_energy + np.interp(edges, x, energy)
        cut.measured[lo:hi] = cut.total_measured + np.interp(edges, x, measured)
        into = np.clip((edges - left[index]) / (right[index] - left[index]), 0.0, 1.0)
        cut.roughness[lo:hi] = cut.total_roughness + rough_at[index] + into * rough[index]
        cut.readings[lo:hi] = cut.total_readings + index + (into >= 0.5)
        stale_at = np.concatenate(([0], np.cumsum(cells.stale[first:last])))
        cut.stale[lo:hi] = cut.total_stale + stale_at[index + (into >= 0.5)]
        cut.watts[lo:hi] = watts[index]
        cut.cell[lo:hi] = right[index] - left[index]
        _look_around(cut, cells, first + index, lo, timing, neighbours, step)
    _extremes(cut, watts, index, lo, hi)
    cut.total_energy += energy[-1]
    cut.total_measured += measured[-1]
    cut.total_roughness += rough_at[-1]
    cut.total_readings += len(left)
    cut.total_stale += int(cells.stale[first:last].sum())
    cut.last_right = float(right[-1])
    cut.last_watts = float(watts[-1])


def _running(cells: Cells, first: int, last: int) -> tuple[Floats, Floats, Floats]:
    """Break points of time, and energy (raw) and measured time (ns) from the first cell's left to each."""
    left, right = cells.left_ns[first:last], cells.right_ns[first:last]
    raw = cells.energy[first:last]
    known = cells.measured[first:last]
    gap = left[1:] - right[:-1]
    if known.all() and not (gap > 0).any():
        x = np.concatenate((left[:1], right))
        return x, np.concatenate(([0.0], np.cumsum(raw))), x - left[0]
    watts = cells.watts[first:last]
    n = len(left)
    x = np.empty(2 * n)
    x[0::2], x[1::2] = left, right
    steps = np.zeros(2 * n)
    steps[1::2] = raw
    steps[2::2] = 0.5 * (watts[1:] + watts[:-1]) * np.maximum(gap, 0.0) * (1e-9 / cells.joules_per_raw)
    seen = np.zeros(2 * n)
    seen[1::2] = (right - left) * known
    return x, np.cumsum(steps), np.cumsum(seen)


def _roughness(cells: Cells, first: int, last: int, step: int) -> Floats:
    """(P[i−step] − 2·P[i] + P[i+step])² × length of cell i; zero where a neighbour is missing."""
    watts = cells.watts
    n = len(watts)
    lo, hi = max(first, step), min(last, n - step)
    rough = np.zeros(last - first)
    if hi > lo:
        second = watts[lo - step : hi - step] - 2.0 * watts[lo:hi] + watts[lo + step : hi + step]
        second *= second
        second *= cells.right_ns[lo:hi] - cells.left_ns[lo:hi]
        rough[lo - first : hi - first] = second
    return rough


def _look_around(cut: _Cut, cells: Cells, index: Ints, lo: int, timing: Timing, neighbours: int, step: int) -> None:
    """Note for each edge how much the power changes within the device's resolution around it.

    Edges in one cell, as those of short phases, are looked at once.
    """
    fresh = np.concatenate(([True], index[1:] != index[:-1]))
    same_as, index = np.cumsum(fresh) - 1, index[fresh]
    spread, hidden = np.empty(len(index)), np.zeros(len(index))
    watts = cells.watts
    last = len(watts) - 1
    offsets = np.arange(-neighbours, neighbours + 1)
    wide = np.arange(-RIPPLE_SPACINGS, RIPPLE_SPACINGS + 1) * step
    at_once = max(1, (1 << 20) // len(offsets))
    for begin in range(0, len(index), at_once):
        part = index[begin : begin + at_once, None]
        where = slice(begin, begin + len(part))
        near = watts[np.clip(part + offsets, 0, last)]
        spread[where] = near.max(axis=1) - near.min(axis=1)
        if timing.window_ns > 1.5 * timing.spacing_ns:
            # v(t) − v(t−h) = h/W · (P around t − P around t−W): small ripples of a long average betray large swings
            change = watts[np.clip(part + offsets + step, 0, last)] - near
            gain = timing.window_ns / timing.spacing_ns
            hidden[where] = np.sqrt((change**2).mean(axis=1) / 2.0) * gain
        elif timing.duty == 1.0:
            around = part + wide
            second = (
                watts[np.clip(around - step, 0, last)]
                - 2.0 * watts[np.clip(around, 0, last)]
                + watts[np.clip(around + step, 0, last)]
            )
            hidden[where] = np.sqrt((second**2).mean(axis=1) / 6.0)
    cut.spread[lo : lo + len(same_as)] = spread[same_as]
    cut.hidden[lo : lo + len(same_as)] = hidden[same_as]


def _extremes(cut: _Cut, watts: Floats, index: Ints, lo: int, hi: int) -> None:
    """Largest and smallest power per segment: segment k lies between edge k−1 and edge k."""
    starts = np.concatenate(([0], index))
    segments = np.arange(lo, hi + 1)
    for extreme, target in ((np.maximum, cut.peak), (np.minimum, cut.least)):
        found = extreme.reduceat(watts, starts)
        # reduceat stops before the next start; the cell that holds the edge touches both segments
        if len(index):
            found[:-1] = extreme(found[:-1], watts[index])
        target[segments] = extreme(target[segments], found)


def outside(aligned: Aligned, begin: Ints, end: Ints) -> Bools:
    """Which phases (by edge numbers) reach beyond the trace, or have none."""
    edges = aligned.edges_ns
    return ~((edges[begin] >= aligned.begin_ns) & (edges[end] <= aligned.end_ns))
