"""Energy of a channel over intervals, with coverage and its uncertainty budget.

Standard uncertainties follow the GUM; each term's formula and origin stand in `docs/formulas/uncertainty.md`. The
expanded uncertainty is U = 2·sqrt(Σ u²), k = 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from director.energy.align import Aligned
from director.energy.cells import Floats, Ints
from director.energy.channel_timing import Timing
from drivers.contract import Channel

TERMS = ("meter", "edge", "sync", "window", "step", "gap")
COVERAGE_K = 2.0
LEAST_COVERAGE = 0.5  # below this share of measured time no energy is given


@dataclass(frozen=True)
class Energies:
    """One channel over N intervals; arrays of length N. `terms` are standard uncertainties in joules."""

    joules: Floats  # NaN: not known
    duration_ns: Floats
    coverage: Floats  # measured share of the duration, 0 … 1; of an interval without length: 1 where the trace is
    peak_watts: Floats
    least_watts: Floats
    readings: Ints
    stale: Ints
    missing: Ints
    terms: dict[str, Floats]
    shift_joules: Floats  # standard uncertainty with a sign: by what a clock that sets both edges late moves the energy

    @property
    def expanded_joules(self) -> Floats:
        """U, k = 2."""
        return COVERAGE_K * np.sqrt(sum((u * u for u in self.terms.values()), np.zeros_like(self.joules)))


def interval_energies(
    channel: Channel, timing: Timing, aligned: Aligned, begin: Ints, end: Ints, time_bound_ns: Floats
) -> Energies:
    """Energies of intervals given by edge numbers, with `time_bound_ns`, how wrong each one's edges may be."""
    edges = aligned.edges_ns
    duration = edges[end] - edges[begin]
    inside = np.minimum(edges[end], aligned.end_ns) - np.maximum(edges[begin], aligned.begin_ns)
    inside = np.where(np.isfinite(inside), np.maximum(inside, 0.0), 0.0)
    joules = aligned.joules_at[end] - aligned.joules_at[begin]
    measured = aligned.measured_ns_at[end] - aligned.measured_ns_at[begin]
    peak, least = (
        _over(aligned.peak_watts, begin, end, np.maximum),
        _over(aligned.least_watts, begin, end, np.minimum),
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        coverage = np.where(duration > 0, measured / duration, np.where(inside == duration, 1.0, 0.0))
        coverage = np.clip(coverage, 0.0, 1.0)
        # time beyond the trace is given the mean power of the part inside; `gap` says how wrong that may be
        joules = np.where((inside < duration) & (inside > 0), joules * duration / inside, joules)
    known = (coverage >= LEAST_COVERAGE) & ((inside > 0) | (duration == 0)) & np.isfinite(aligned.begin_ns)
    joules = np.where(known, joules, np.nan)
    return Energies(
        joules=joules,
        duration_ns=duration,
        coverage=coverage,
        peak_watts=peak,
        least_watts=least,
        readings=aligned.readings_at[end] - aligned.readings_at[begin],
        stale=aligned.stale_at[end] - aligned.stale_at[begin],
        missing=aligned.missing_at[end] - aligned.missing_at[begin],
        terms=_terms(channel, timing, aligned, begin, end, joules, duration, duration - measured, time_bound_ns),
        shift_joules=time_bound_ns * 1e-9 / np.sqrt(3.0) * np.subtract(*_edge_watts(aligned, end, begin)),
    )


def meter_term(channel: Channel, joules: Floats, seconds: Floats) -> Floats:
    """Standard uncertainty in joules from the device's accuracy limits, which bound a rectangular distribution."""
    accuracy = channel.accuracy
    if accuracy is None:
        return np.zeros(len(joules))
    absolute = accuracy.absolute * (seconds if channel.kind == "gauge" else 1.0) + accuracy.per_second * seconds
    term: Floats = (accuracy.reading_fraction * np.abs(joules) + absolute) / np.sqrt(3.0)
    return term


def _over(values: Floats, begin: Ints, end: Ints, extreme: np.ufunc) -> Floats:
    """Extreme of `values[begin:end]` for each interval; of an empty one, of the segment that it lies in.

    A sparse table, one level at a time: intervals may overlap at will without costing their summed length.
    """
    found = np.full(len(begin), np.nan)
    if not len(values) or not len(begin):
        return found
    fill = -np.inf if extreme is np.maximum else np.inf
    level = np.where(np.isnan(values), fill, values)
    first = np.minimum(begin, len(level) - 1)
    length = np.maximum(end - first, 1)
    span = 1
    while len(level):  # level[i] is the extreme of the values i … i + span − 1
        mine = (length >= span) & (length < 2 * span)
        a, b = first[mine], first[mine] + length[mine] - span
        found[mine] = extreme(level[a], level[b])
        level = extreme(level[:-span], level[span:])
        span *= 2
    return np.where(np.isfinite(found), found, np.nan)


def _terms(
    channel: Channel,
    timing: Timing,
    aligned: Aligned,
    begin: Ints,
    end: Ints,
    joules: Floats,
    duration: Floats,
    unmeasured_ns: Floats,
    time_bound_ns: Floats,
) -> dict[str, Floats]:
    seconds = duration * 1e-9
    nothing = np.zeros(len(begin))
    meter = meter_term(channel, joules, seconds)
    spread = _near(aligned.edge_spread_watts, begin) + 0.0, _near(aligned.edge_spread_watts, end)
    power = _edge_watts(aligned, begin, end)
    cell = _near(aligned.edge_cell_ns, begin), _near(aligned.edge_cell_ns, end)
    hidden = aligned.edge_hidden_watts[begin], aligned.edge_hidden_watts[end]
    edge = [_edge(timing, channel, *near) for near in zip(spread, cell, hidden, strict=True)]
    # a marked instant and a reading's own instant each lie within their bound of the true one
    bound_s = (time_bound_ns + aligned.max_read_ns) * 1e-9
    sync = bound_s / np.sqrt(3.0) * np.hypot(power[0], power[1])
    window = nothing
    if timing.duty < 1.0:
        rough = aligned.roughness_at[end] - aligned.roughness_at[begin]
        window = np.sqrt(timing.spacing_ns * (1.0 - timing.duty) * np.maximum(rough, 0.0) / 6.0) * 1e-9
    step = nothing
    if channel.kind == "counter":
        step = np.hypot(power[0], power[1]) * timing.step_ns * 1e-9 / np.sqrt(12.0)
    highest, lowest = _extremes(aligned)
    gap = (highest - lowest) * np.maximum(unmeasured_ns, 0.0) * 1e-9 / np.sqrt(12.0)
    return {"meter": meter, "edge": np.hypot(*edge), "sync": sync, "window": window, "step": step, "gap": gap}


def _edge_watts(aligned: Aligned, *at: Ints) -> tuple[Floats, ...]:
    return tuple(_near(aligned.edge_watts, edges) for edges in at)


def _near(values: Floats, at: Ints) -> Floats:
    """Values at edges; where an edge lies beyond the trace, nothing (the gap term speaks for it)."""
    return np.nan_to_num(values[at])


def _extremes(aligned: Aligned) -> tuple[float, float]:
    peak = aligned.peak_watts[np.isfinite(aligned.peak_watts)]
    least = aligned.least_watts[np.isfinite(aligned.least_watts)]
    return (float(peak.max()), float(least.min())) if len(peak) else (0.0, 0.0)


def _edge(timing: Timing, channel: Channel, spread: Floats, cell_ns: Floats, hidden: Floats) -> Floats:
    """Standard uncertainty of the energy up to an edge that lies anywhere in the device's resolution.

    Within a cell of length h the power may have changed by `spread` anywhere. For a device that averages over the
    whole cell the error is spread·h times a kernel between 0.105 rms (change and edge independent) and 0.183 rms
    (change at the edge, as a workload makes it); for one that looks at an instant of it, 0.191 to 0.204; for a window
    W > h, at most 0.125·spread·W, of which 0.09 twice in quadrature, times k, covers both edges. A lag that is wrong by
    as much as its uncertainty moves the edge by that.
    """
    h = np.maximum(cell_ns, timing.spacing_ns if channel.kind == "gauge" else 0.0)
    w = np.maximum(h, timing.window_ns) if channel.kind == "counter" else np.full_like(h, timing.window_ns)
    visible = spread * np.where(w < h, 0.204 * h - 0.021 * w, 0.183 * h + 0.09 * np.maximum(w - h, 0.0))
    if timing.window_ns > 1.5 * timing.spacing_ns:  # white changes at the spacing, seen through the window
        inside = hidden * np.sqrt(timing.spacing_ns * timing.window_ns / 12.0)
    else:  # swings faster than a cell: their energy ripples by 0.87 of what cells differ by
        inside = 0.87 * hidden * h
    moved = spread * channel.delay_u_s / 2
    total: Floats = np.hypot(np.hypot(visible, inside) * 1e-9, moved)
    return total
