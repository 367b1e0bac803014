"""Energy of a component over intervals: every method that its channels allow, and the one to believe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from director.energy.align import Aligned, align
from director.energy.cells import Floats, Ints
from director.energy.channel_timing import Timing, timing_of
from director.energy.components import Component
from director.energy.interval_energy import Energies, interval_energies, meter_term
from director.session.trace_store import Piece
from drivers.contract import Channel

COUNTER_PREFERENCE = 1.1  # a counter is believed unless its U is more than this times that of integrated power
SELF_CHECK_S = 5.0
SELF_CHECK_LIMIT = 0.05
SHORT_PHASE_SPACINGS = 100.0  # a phase is short for a channel below this many readings


@dataclass(frozen=True)
class Source:
    """Where a channel's rows come from."""

    channel: Channel
    rate_hz: float
    pieces: Callable[[], Iterable[Piece]]


@dataclass(frozen=True)
class Intervals:
    """What to give energies for. Instants in monotonic nanoseconds."""

    begin_ns: Ints
    end_ns: Ints
    time_bound_ns: Floats
    idle: list[tuple[int, int]]  # baseline before and after the work


@dataclass(frozen=True)
class Method:
    """One way to tell a component's energy."""

    channel: Channel
    name: str  # "counter", "integrated" (power over time), "padded" (minus idle)
    energies: Energies
    idle_watts: float | None
    demoted: str = ""  # why it is not believed


@dataclass(frozen=True)
class ComponentEnergy:
    """All methods of a component, the one chosen for each interval, and its energies."""

    component: Component
    methods: list[Method]
    chosen: Ints  # per interval, into methods
    energies: Energies  # of the chosen
    warnings: list[str]


def component_energy(
    component: Component, sources: Sequence[Source], intervals: Intervals, origin_ns: int
) -> ComponentEnergy:
    """Cut every channel of the component at the intervals' edges and choose per interval.

    A counter comes first. Integrated power takes its place where the counter is so coarse that its U is larger, and
    everywhere when the two differ by more than 5 % over at least 5 s of the whole trace.
    """
    methods: list[Method] = []
    whole: dict[str, float] = {}
    for source in sources:
        found, total_watts = _channel_methods(source, intervals, origin_ns)
        methods += found
        if total_watts is not None:
            whole[source.channel.name] = total_watts
    methods, warnings = _self_check(component, methods, whole)
    expanded = np.stack([np.where(np.isfinite(m.energies.joules), m.energies.expanded_joules, np.inf) for m in methods])
    # U does not know of what was not seen: where a device fell silent, the method that saw most of it comes first.
    expanded /= np.maximum(np.stack([m.energies.coverage for m in methods]), 1e-9)
    expanded *= np.array([[1 / COUNTER_PREFERENCE if m.name == "counter" else 1.0] for m in methods])
    # of U that nobody states there is nothing to compare
    trust = np.array([[2 if m.demoted else 1 if m.channel.accuracy is None else 0] for m in methods])
    trust = np.where(np.isfinite(expanded), trust, 3)
    expanded = np.where(trust == trust.min(axis=0), expanded, np.inf)
    chosen = expanded.argmin(axis=0).astype(np.int64)
    return ComponentEnergy(component, methods, chosen, _pick([m.energies for m in methods], chosen), warnings)


def _channel_methods(source: Source, intervals: Intervals, origin_ns: int) -> tuple[list[Method], float | None]:
    channel = source.channel
    timing = timing_of(channel, source.rate_hz)
    begin, end = intervals.begin_ns, intervals.end_ns
    pad_ns = round(timing.window_ns + timing.spacing_ns)
    short = (end - begin) < SHORT_PHASE_SPACINGS * timing.spacing_ns
    padded = short & (len(intervals.idle) > 0) & (channel.kind == "gauge")
    idle = np.array(intervals.idle, dtype=np.int64).reshape(-1, 2)
    wanted = [begin, end, idle.ravel()]
    pads = [begin[padded] - 2 * pad_ns, begin[padded] - pad_ns, end[padded] + pad_ns, end[padded] + 2 * pad_ns]
    edges = np.sort(np.concatenate([*wanted, *pads]))
    edges = edges[np.concatenate(([True], edges[1:] > edges[:-1]))]  # np.unique takes ten times as long
    aligned = align(channel, timing, source.pieces(), edges, origin_ns)

    def energies(a: Ints, b: Ints, bound: Floats) -> Energies:
        return interval_energies(channel, timing, aligned, np.searchsorted(edges, a), np.searchsorted(edges, b), bound)

    name = "counter" if channel.kind == "counter" else "integrated"
    direct = energies(begin, end, intervals.time_bound_ns)
    idle_watts = _mean_watts(energies(idle[:, 0], idle[:, 1], np.zeros(len(idle))))
    methods = [Method(channel, name, direct, idle_watts)]
    if idle_watts is not None and padded.any():
        method = _padded(
            methods[0],
            timing,
            padded,
            [energies(p, q, np.zeros(len(p))) for p, q in ((pads[0], pads[1]), (pads[1], pads[2]), (pads[2], pads[3]))],
        )
        if method is not None:
            methods.append(method)
    return methods, _whole_watts(aligned)


def _mean_watts(energies: Energies) -> float | None:
    known = np.isfinite(energies.joules) & (energies.duration_ns > 0)
    if not known.any():
        return None
    return float(energies.joules[known].sum() / (energies.duration_ns[known].sum() * 1e-9))


def _whole_watts(aligned: Aligned) -> float | None:
    """Mean power between the first and the last edge inside the trace, if that is long enough to judge by."""
    inside = np.nonzero((aligned.edges_ns >= aligned.begin_ns) & (aligned.edges_ns <= aligned.end_ns))[0]
    if len(inside) < 2:
        return None
    a, b = inside[0], inside[-1]
    seconds = (aligned.edges_ns[b] - aligned.edges_ns[a]) * 1e-9
    if seconds < SELF_CHECK_S:
        return None
    return float((aligned.joules_at[b] - aligned.joules_at[a]) / seconds)


def _padded(direct: Method, timing: Timing, rows: np.ndarray, parts: list[Energies]) -> Method | None:
    """The phase widened until its edges lie in idle time, minus the idle energy of what was added.

    Only for phases whose surroundings are as idle as the baseline. With W = h the rule has no edge error; with a
    window shorter than the spacing its standard deviation is spread·(h − W)/√6 (two edges).
    """
    before, wide, after = parts
    idle = direct.idle_watts
    if idle is None:
        return None
    energies = direct.energies
    seconds = energies.duration_ns[rows] * 1e-9
    added_s = wide.duration_ns * 1e-9 - seconds
    busy = np.maximum(wide.peak_watts - idle, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        off = [np.abs(e.joules / (e.duration_ns * 1e-9) - idle) for e in (before, after)]
    quiet = (off[0] <= 0.05 * busy) & (off[1] <= 0.05 * busy) & (wide.coverage > 0.99)
    if not quiet.any():
        return None
    joules = np.full(len(rows), np.nan)
    joules[rows] = np.where(quiet, wide.joules - idle * added_s, np.nan)
    u_idle = np.maximum(off[0], off[1]) / np.sqrt(3.0) * added_s
    edge = np.zeros(len(rows))
    edge[rows] = np.hypot(busy * max(timing.spacing_ns - timing.window_ns, 0.0) * 1e-9 / np.sqrt(6.0), u_idle)
    terms = {**energies.terms, "edge": edge}
    # What is integrated is the wide interval; of short phases the direct energy may hold next to nothing.
    for name in ("window", "step", "gap"):
        terms[name] = terms[name].copy()
        terms[name][rows] = wide.terms[name]
    terms["meter"] = meter_term(direct.channel, joules, energies.duration_ns * 1e-9)
    return Method(direct.channel, "padded", replace(energies, joules=joules, terms=terms), idle)


def _self_check(component: Component, methods: list[Method], whole: dict[str, float]) -> tuple[list[Method], list[str]]:
    """Compare each counter with integrated power over the whole trace."""
    power = [whole[m.channel.name] for m in methods if m.channel.kind == "gauge" and m.channel.name in whole]
    warnings: list[str] = []
    checked: list[Method] = []
    for method in methods:
        mine = whole.get(method.channel.name)
        if method.channel.kind == "counter" and mine is not None and power and power[0] > 0:
            off = mine / power[0] - 1.0
            if abs(off) > SELF_CHECK_LIMIT:
                text = (
                    f"{component.name}: the energy counter {method.channel.name} gives {off:+.1%} against integrated "
                    f"power over the whole trace; integrated power is used instead. Compare both with a wall meter."
                )
                warnings.append(text)
                method = replace(method, demoted=text)
        checked.append(method)
    return checked, warnings


def _pick(options: Sequence[Energies], chosen: Ints) -> Energies:
    """For each interval, the figures of the option chosen there."""
    column = np.arange(len(chosen))

    def of(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(values)[chosen, column]

    first = options[0]
    if len(options) == 1:
        return first
    return Energies(
        joules=of([o.joules for o in options]),
        duration_ns=first.duration_ns,
        coverage=of([o.coverage for o in options]),
        peak_watts=of([o.peak_watts for o in options]),
        least_watts=of([o.least_watts for o in options]),
        readings=of([o.readings for o in options]),
        stale=of([o.stale for o in options]),
        missing=of([o.missing for o in options]),
        terms={term: of([o.terms[term] for o in options]) for term in first.terms},
        shift_joules=of([o.shift_joules for o in options]),
    )
