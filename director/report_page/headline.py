"""The answer of a session in sentences that need no knowledge of the field."""

from __future__ import annotations

from dataclasses import dataclass

from director.answers.host_text import common_host
from director.answers.metrics import JOULES_PER_KWH
from director.answers.number_text import duration_text, figure_text, share_text
from director.answers.summary import EnergyFigure, Metric, PhaseGroup, Summary

_EFFICIENCY = ("MLPerf efficiency", "samples per joule", "tokens per joule", "queries per joule")
_PER_UNIT = ("MLPerf energy per stream", "MLPerf energy per query")
_SECONDS_PER_WATT = {"sample": "inferences", "token": "tokens", "query": "queries", "stream": "streams"}


@dataclass(frozen=True)
class Headline:
    """`before figure after`, as "Training used" "49 ± 28 J" "of electrical energy in 18.2 s."; then what it means."""

    before: str
    figure: str  # empty: there is no answer
    after: str
    estimate: str  # "", "ESTIMATE" or "ESTIMATE in part"
    more: list[str]  # sentences


def chief_phase(summary: Summary) -> PhaseGroup:
    """The phase that the main figures stand for: the run, else the whole command."""
    return next((p for p in summary.phases if p.name == "run"), summary.phases[0])


def headline(summary: Summary) -> Headline:
    """The main answer: joules-to-train, inferences per watt, or the energy of what was run."""
    run = chief_phase(summary)
    metrics = {m.name: m for m in summary.metrics if m.phase == run.name}
    took = duration_text(run.duration_s)
    efficiency = _first(metrics, _EFFICIENCY) if "scenario" in run.attributes else None
    energy = _first(metrics, ("joules-to-train", "energy of the run", "energy"))
    if energy is None or run.total is None:
        return Headline(
            "No energy can be given", "", f"for {_of(run)}.", "", ["What is missing, and what to do, is told below."]
        )
    more = []
    chief = energy
    if energy.name == "joules-to-train":
        before, after = "Training used", f"of electrical energy and took {took}."
        if energy.note:
            before = "Training did not reach its target. It used"
    elif efficiency is not None:
        chief = efficiency
        unit = efficiency.unit.partition(" ")[0].partition("/")[0].removesuffix("s")
        unit = {"querie": "query"}.get(unit, unit)
        before = "The system served"
        after = f"{_SECONDS_PER_WATT.get(unit, unit + 's')} per second for each watt that it drew."
        more.append(f"The run used {figure_text(energy.value, energy.expanded, 'J')}{_kwh(energy)} in {took}.")
    elif (per_unit := _first(metrics, _PER_UNIT)) is not None:
        chief = per_unit
        before, after = f"Each {per_unit.unit.rpartition('/')[2]} used", "of electrical energy."
        more.append(f"The run used {figure_text(energy.value, energy.expanded, 'J')}{_kwh(energy)} in {took}.")
    else:
        before, after = f"{_of(run).capitalize()} used", f"of electrical energy in {took}."
    if chief is energy:
        more += [f"That is {_kwh(energy)[2:-1]}."] if _kwh(energy) else []
    return Headline(
        before, _figure(chief), after, _estimate(summary, chief), [*more, *_trust(summary, chief, run.total)]
    )


def _first(metrics: dict[str, Metric], names: tuple[str, ...]) -> Metric | None:
    return next((metrics[name] for name in names if name in metrics), None)


def _of(run: PhaseGroup) -> str:
    return "the run" if run.name == "run" else "the command"


def _figure(metric: Metric) -> str:
    if metric.unit == "J":
        return figure_text(metric.value, metric.expanded, "J")
    if metric.unit.startswith("mJ/"):
        return figure_text(metric.value / 1e3, None if metric.expanded is None else metric.expanded / 1e3, "J")
    return figure_text(metric.value, metric.expanded, "")  # the sentence says of what


def _kwh(energy: Metric) -> str:
    """` (12.3 kWh)`; empty where nobody would count in kWh."""
    if energy.value < JOULES_PER_KWH / 1000:
        return ""
    expanded = None if energy.expanded is None else energy.expanded / JOULES_PER_KWH
    return f" ({figure_text(energy.value / JOULES_PER_KWH, expanded, 'kWh')})"


def _estimate(summary: Summary, metric: Metric) -> str:
    if not metric.estimate:
        return ""
    return "ESTIMATE" if summary.estimate_only else "ESTIMATE in part"


def _trust(summary: Summary, metric: Metric, total: EnergyFigure) -> list[str]:
    """How far the figure can be believed, and what it is of."""
    told = []
    if metric.estimate:
        what = "Nothing here was measured: the figure is" if summary.estimate_only else "A part of it is"
        told.append(f"{what} modelled from how busy the processors were.")
    if metric.expanded is not None and metric.value > 0:
        share = share_text(metric.expanded / metric.value)
        told.append(f"The true value lies within ± {share} of it with about 95 % confidence.")
    if not total.accuracy_known:
        told.append("Nobody states how accurate the device is, so that its own error is not in the ±.")
    if total.coverage < 0.9995:
        told.append(f"{total.coverage:.1%} of the time was measured; the rest is interpolated.")
    devices, _, meaning = summary.scope_of_total.partition(": ")
    names = ", ".join(name.removeprefix(common_host(summary.phases)) for name in devices.split(", "))
    told.append(f"It covers {names}{f' ({meaning})' if meaning else ''}.")
    return told + [f"{note[:1].upper()}{note[1:]}." for note in summary.notes]
