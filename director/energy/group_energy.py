"""Figures of a phase name: its phases' energies summed per component, over the cut, and what stays unexplained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from director.answers.summary import Alternative, EnergyFigure
from director.energy.cells import Floats, Ints
from director.energy.component_energy import ComponentEnergy
from director.energy.components import Component, children
from director.energy.interval_energy import COVERAGE_K, LEAST_COVERAGE, TERMS, Energies


def union(begin_ns: Ints, end_ns: Ints) -> tuple[Ints, Ints]:
    """Disjoint intervals that cover the same time as the given ones, in ascending order."""
    order = np.argsort(begin_ns, kind="stable")
    begin, end = begin_ns[order], np.maximum.accumulate(end_ns[order])
    first = np.ones(len(begin), dtype=bool)
    first[1:] = begin[1:] > end[:-1]
    return begin[first], end[np.append(first[1:], True)[: len(end)]]


def component_figure(energy: ComponentEnergy, rows: Ints) -> EnergyFigure:
    """Sum of one component over disjoint intervals.

    The device's own error is the same for all of them and adds linearly, and so does that of gaps, one of which may
    swallow many intervals. Their edges are late by independent times, or all by one where a clock is: the worse counts,
    and no correlation in between is worse than both. The rest is independent (GUM 5.1, 5.2).
    """
    e = energy.energies
    component = energy.component
    seconds = float(e.duration_ns[rows].sum()) * 1e-9
    joules, terms = _sum(e, rows)
    used = np.flatnonzero(np.bincount(energy.chosen[rows])).tolist()
    idle = idle_watts(energy)
    known = bool(np.isfinite(joules))
    peak = e.peak_watts[rows]
    return EnergyFigure(
        name=component.name,
        scope=component.scope,
        method=" + ".join(dict.fromkeys(energy.methods[m].name for m in used)),
        joules=joules if known else None,
        expanded_joules=_expanded(terms) if known else None,
        mean_watts=joules / seconds if known and seconds > 0 else None,
        peak_watts=float(np.nanmax(peak)) if np.isfinite(peak).any() else None,
        coverage=_coverage(e.coverage[rows], e.duration_ns[rows]),
        estimate=any(energy.methods[m].channel.estimate for m in used),
        accuracy_known=all(energy.methods[m].channel.accuracy is not None for m in used),
        readings=int(e.readings[rows].sum()),
        stale=int(e.stale[rows].sum()),
        missing=int(e.missing[rows].sum()),
        above_idle_joules=joules - idle * seconds if known and idle is not None else None,
        terms=terms if known else {},
        channels=list(dict.fromkeys(energy.methods[m].channel.name for m in used)),
        alternatives=_alternatives(energy, rows, joules, used),
    )


def total_figure(name: str, parts: Sequence[tuple[Component, EnergyFigure, str]]) -> EnergyFigure | None:
    """Sum over the cut; each part comes with its device model.

    Devices of one model share their error, which adds linearly, and devices of one host share that of its clock; all
    else is independent.
    """
    if not parts:
        return None
    figures = [figure for _, figure, _ in parts]
    known = all(f.joules is not None for f in figures)
    joules = sum(f.joules or 0.0 for f in figures)
    terms = {term: float(np.sqrt(sum(f.terms.get(term, 0.0) ** 2 for f in figures))) for term in TERMS}
    terms["meter"] = _meter_term(parts)
    terms["sync"] = _shared([(component.host, figure.terms.get("sync", 0.0)) for component, figure, _ in parts])
    above = [f.above_idle_joules for f in figures]
    mean = [f.mean_watts for f in figures]
    return EnergyFigure(
        name=name,
        scope="total",
        method="sum" if len(figures) > 1 else figures[0].method,
        joules=joules if known else None,
        expanded_joules=_expanded(terms) if known else None,
        mean_watts=sum(m for m in mean if m is not None) if None not in mean else None,
        peak_watts=figures[0].peak_watts if len(figures) == 1 else None,
        coverage=min(f.coverage for f in figures),
        estimate=any(f.estimate for f in figures),
        accuracy_known=all(f.accuracy_known for f in figures),
        readings=sum(f.readings for f in figures),
        stale=sum(f.stale for f in figures),
        missing=sum(f.missing for f in figures),
        above_idle_joules=sum(a for a in above if a is not None) if None not in above else None,
        terms=terms if known else {},
        channels=list(dict.fromkeys(c for f in figures for c in f.channels)),
    )


def _meter_term(parts: Sequence[tuple[Component, EnergyFigure, str]]) -> float:
    return _shared([(model or component.name, figure.terms.get("meter", 0.0)) for component, figure, model in parts])


def _shared(errors: Sequence[tuple[str, float]]) -> float:
    """Of standard uncertainties with what they come from: linear where that is the same, else in quadrature."""
    by_source: dict[str, float] = {}
    for source, u in errors:
        by_source[source] = by_source.get(source, 0.0) + u
    return float(np.sqrt(sum(u * u for u in by_source.values())))


def not_explained(
    outer: Component, figures: dict[str, EnergyFigure], components: Sequence[Component]
) -> EnergyFigure | None:
    """What a component sees and the components inside it do not add up to."""
    found = [c for c in children(outer, components) if c.counted]
    inside = [figures[c.name] for c in found]
    whole = figures[outer.name]
    if not inside or whole.joules is None or any(f.joules is None for f in inside):
        return None
    joules = whole.joules - sum(f.joules for f in inside if f.joules is not None)
    parts = [whole, *inside]
    terms = {term: float(np.sqrt(sum(f.terms.get(term, 0.0) ** 2 for f in parts))) for term in TERMS}
    shared = _meter_term([(c, f, c.channels[0].model) for c, f in zip(found, inside, strict=True)])
    terms["meter"] = float(np.hypot(whole.terms.get("meter", 0.0), shared))
    mean = [f.mean_watts for f in inside]
    return EnergyFigure(
        name=f"{outer.name} not explained",
        scope=outer.scope,
        method="difference",
        joules=joules,
        expanded_joules=_expanded(terms),
        mean_watts=(
            whole.mean_watts - sum(m for m in mean if m is not None)
            if whole.mean_watts is not None and None not in mean
            else None
        ),
        peak_watts=None,
        coverage=min(f.coverage for f in parts),
        estimate=any(f.estimate for f in parts),
        accuracy_known=all(f.accuracy_known for f in parts),
        terms=terms,
    )


def idle_watts(energy: ComponentEnergy) -> float | None:
    """Mean power in the baseline, by the first method that has one."""
    return next((m.idle_watts for m in energy.methods if m.idle_watts is not None and not m.demoted), None)


def _sum(energies: Energies, rows: Ints) -> tuple[float, dict[str, float]]:
    """Joules of disjoint intervals together, NaN where too little of them was measured, and their uncertainties.

    Intervals that are not known, such as steps within a gap, are given the mean power of the others, as time that was
    not measured is within an interval; their gap term says how wrong that may be.
    """
    finite = np.isfinite(energies.joules[rows])
    known, unknown = rows[finite], rows[~finite]
    share = 1.0
    if len(unknown):
        measured = _coverage(energies.coverage[rows], energies.duration_ns[rows])
        not_for_gaps = energies.coverage[unknown] >= LEAST_COVERAGE  # a method that does not apply to them
        if measured < LEAST_COVERAGE or not_for_gaps.any():
            return float("nan"), {}
        share = float(energies.duration_ns[known].sum() / energies.duration_ns[rows].sum())
    joules = float(energies.joules[known].sum())
    terms = {term: float(np.sqrt((u[known] ** 2).sum())) for term, u in energies.terms.items()}
    terms["meter"] = float(energies.terms["meter"][known].sum()) / share
    terms["sync"] = max(terms["sync"], abs(float(energies.shift_joules[known].sum())) / share)
    terms["gap"] = float(energies.terms["gap"][rows].sum())
    return joules / share, terms


def _expanded(terms: dict[str, float]) -> float:
    return COVERAGE_K * float(np.sqrt(sum(u * u for u in terms.values())))


def _coverage(coverage: Floats, duration_ns: Floats) -> float:
    whole = float(duration_ns.sum())
    return float((coverage * duration_ns).sum() / whole) if whole > 0 else float(coverage.min(initial=1.0))


def _alternatives(energy: ComponentEnergy, rows: Ints, joules: float, used: Sequence[int]) -> list[Alternative]:
    others: list[Alternative] = []
    for i, method in enumerate(energy.methods):
        if used == [i]:
            continue
        value, terms = _sum(method.energies, rows)
        known = bool(np.isfinite(value))
        others.append(
            Alternative(
                channel=method.channel.name,
                method=method.name,
                joules=value if known else None,
                expanded_joules=_expanded(terms) if known else None,
                difference=(value - joules) / joules if known and np.isfinite(joules) and joules else None,
                not_used_because=method.demoted,
            )
        )
    return others
