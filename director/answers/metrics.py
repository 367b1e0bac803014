"""Joules-to-train, inferences-per-watt and their kin, from the energies of phases that say what they did."""

from __future__ import annotations

import math
from collections.abc import Sequence

from director.answers.summary import EnergyFigure, Metric, PhaseGroup
from director.session.manifest import Factors

JOULES_PER_KWH = 3.6e6
_UNIT_OF_WORK = {"samples": "sample", "tokens": "token", "queries": "query", "streams": "stream"}

_STREAM_SCENARIOS = {"SingleStream": "stream", "MultiStream": "query"}
_OF_COMPLETED = (
    "result_completed_tokens_per_second",
    "result_inferred_completed_tokens_per_second",
    "result_completed_samples_per_sec",
)
_RESULT_KEYS = {  # LoadGen's names of the performance result, the one that counts first
    "Offline": ("result_tokens_per_second", "result_inferred_tokens_per_second", "result_samples_per_second"),
    "Server": _OF_COMPLETED,
    "Interactive": _OF_COMPLETED,
}


def session_metrics(phases: Sequence[PhaseGroup], factors: Factors) -> list[Metric]:
    """All metrics that the phases allow.

    The energy of a training is that of its `run` phase (run_start … run_stop): initialisation and data reformatting
    do not count (MLPerf Training rules). Without such a phase the figures are of the whole command and say so.
    """
    by_name = {phase.name: phase for phase in phases}
    run = by_name.get("run", by_name["command"])
    whole = run.name == "command"
    metrics: list[Metric] = []
    if run.total is not None and run.total.joules is not None:
        metrics += _run_metrics(run, whole)
        metrics += _factors(run, run.total, factors)
    for phase in phases:
        if phase.total is not None and phase.total.joules is not None and phase.total.joules > 0:
            metrics += _work_metrics(phase, phase.total)
            if phase.name == "epoch":
                metrics.append(_metric("energy per epoch", phase.total, 1.0 / phase.lane_count, "J", phase.name))
    return metrics


def _metric(name: str, figure: EnergyFigure, factor: float, unit: str, phase: str, note: str = "") -> Metric:
    """A figure proportional to an energy."""
    assert figure.joules is not None
    expanded = figure.expanded_joules
    return Metric(
        name=name,
        value=figure.joules * factor,
        expanded=None if expanded is None else expanded * factor,
        unit=unit,
        phase=phase,
        estimate=figure.estimate,
        note=note,
    )


def _per_joule(name: str, figure: EnergyFigure, amount: float, unit: str, phase: str, note: str = "") -> Metric:
    """A figure inversely proportional to an energy above zero; U to first order."""
    assert figure.joules is not None
    value = amount / figure.joules
    expanded = figure.expanded_joules
    return Metric(
        name=name,
        value=value,
        expanded=None if expanded is None else value * expanded / figure.joules,
        unit=unit,
        phase=phase,
        estimate=figure.estimate,
        note=note,
    )


def _run_metrics(run: PhaseGroup, whole: bool) -> list[Metric]:
    assert run.total is not None
    metrics: list[Metric] = []
    status = run.attributes.get("status", "")
    if whole:
        note = "of the whole command: no run phase was marked, so start-up is counted too"
        metrics.append(_metric("energy", run.total, 1.0, "J", run.name, note))
    elif "scenario" in run.attributes:
        metrics.append(_metric("energy of the run", run.total, 1.0, "J", run.name))
        metrics += _official(run, run.total)
    else:
        note = "" if status in ("", "success") else f"the run ended with status {status}: the target was not reached"
        metrics.append(_metric("joules-to-train", run.total, 1.0, "J", run.name, note))
        time = Metric(
            name="time-to-train", value=run.duration_s, expanded=None, unit="s", phase=run.name, estimate=False
        )
        metrics.append(time)
    metrics.append(_metric("energy-delay product", run.total, run.duration_s, "J·s", run.name))
    if run.total.above_idle_joules is not None:
        metrics.append(
            Metric(
                name="energy above idle",
                value=run.total.above_idle_joules,
                expanded=run.total.expanded_joules,
                unit="J",
                phase=run.name,
                estimate=run.total.estimate,
            )
        )
    return metrics


def _work_metrics(phase: PhaseGroup, figure: EnergyFigure) -> list[Metric]:
    metrics: list[Metric] = []
    for work, amount in phase.work.items():
        unit = _UNIT_OF_WORK[work]
        if amount <= 0 or (work == "queries" and phase.attributes.get("scenario") == "Offline"):
            continue  # offline, LoadGen hands over all samples as one query
        note = _counted_from(phase, work)
        metrics.append(_per_joule(f"{work} per joule", figure, amount, f"{unit}/J (= {unit}/s/W)", phase.name, note))
        if work in ("queries", "streams"):
            metrics.append(_metric(f"energy per {unit}", figure, 1.0 / amount, f"J/{unit}", phase.name, note))
    return metrics


def _counted_from(phase: PhaseGroup, work: str) -> str:
    """Where a count comes from that nobody counted, but that was worked out from a rate."""
    source = phase.attributes.get(f"{work}_from") or (phase.attributes.get("queries_from") if work != "tokens" else "")
    return f"counted by {source}" if source else ""


def _official(run: PhaseGroup, figure: EnergyFigure) -> list[Metric]:
    """What MLPerf Inference reports of a run with power, by its scenario (inference_policies, v4.1 of the checker).

    Server, Offline and Interactive: average power, and the performance result by it. SingleStream and MultiStream:
    energy per stream or query, in mJ. The power here is energy by duration; the checker takes the plain mean of the
    meter's samples inside the run.
    """
    scenario = run.attributes["scenario"]
    queries = run.work.get("queries", 0.0)
    if scenario in _STREAM_SCENARIOS and queries > 0:
        unit = _STREAM_SCENARIOS[scenario]
        note = _counted_from(run, "queries")
        return [_metric(f"MLPerf energy per {unit}", figure, 1e3 / queries, f"mJ/{unit}", run.name, note)]
    if scenario not in _RESULT_KEYS or run.duration_s <= 0:
        return []
    metrics = [_metric("MLPerf average power", figure, 1.0 / run.duration_s, "W", run.name)]
    results = ((key, _number(run.attributes.get(key))) for key in _RESULT_KEYS[scenario])
    key, rate = next((found for found in results if found[1] is not None), ("", None))
    if rate is not None and figure.joules:
        unit = "tokens/s/W" if "tokens" in key else "samples/s/W"
        note = f"{key} / average power"
        metrics.append(_per_joule("MLPerf efficiency", figure, rate * run.duration_s, unit, run.name, note))
    return metrics


def _number(text: str | None) -> float | None:
    """A log's number as written by another program; None for anything else."""
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _factors(run: PhaseGroup, figure: EnergyFigure, factors: Factors) -> list[Metric]:
    metrics: list[Metric] = []
    if factors.cost_per_kwh is not None:
        unit = factors.currency or "currency"
        metrics.append(
            _metric("cost", figure, factors.cost_per_kwh / JOULES_PER_KWH, unit, run.name, "at the given price")
        )
    if factors.carbon_g_per_kwh is not None:
        factor = factors.carbon_g_per_kwh / JOULES_PER_KWH
        metrics.append(_metric("carbon", figure, factor, "g CO2e", run.name, "at the given intensity"))
    return metrics


def olympic(runs: Sequence[tuple[float, float]]) -> tuple[list[int], float, float]:
    """Olympic score of repeated runs, as MLPerf Training takes it.

    `runs` holds (seconds, joules) per run. With three runs or more the fastest and the slowest are dropped, by time,
    and the energy is averaged over the same runs that are kept; of fewer, all are kept.

    Returns the kept runs' numbers, their mean seconds and mean joules.
    """
    if not runs:
        raise ValueError("no run to score")
    order = sorted(range(len(runs)), key=lambda i: (runs[i][0], i))
    kept = sorted(order[1:-1]) if len(runs) >= 3 else sorted(order)
    return kept, sum(runs[i][0] for i in kept) / len(kept), sum(runs[i][1] for i in kept) / len(kept)
