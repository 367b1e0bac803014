"""Why the official energy of a run differs from the physical one, in joules and words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from director.mlperf.difference import Cause
from director.mlperf.training.log_score import LogScore
from director.mlperf.training.official_energy import OfficialEnergy, window_mean_watts
from director.mlperf.training.physical_energy import PhysicalEnergy
from director.mlperf.training.power_log import PowerLog

_AT_RUN_EDGE_MS = 500.0
_FULL_COVERAGE = 0.995


def node_causes(
    logs: Sequence[PowerLog], official: Sequence[OfficialEnergy], run_ms: tuple[float, float], physical: PhysicalEnergy
) -> list[Cause]:
    """What the formula's window does, and what its weighting of readings does."""
    train_s = (run_ms[1] - run_ms[0]) / 1000
    in_run = sum(physical.joules[: len(logs)])
    over_window = sum(
        energy.efficiency * window_mean_watts(log, energy.start_ms, energy.stop_ms) * train_s
        for log, energy in zip(logs, official, strict=True)
        if log.readings
    )
    counted = sum(energy.joules for energy in official)
    window = Cause("window", over_window - in_run, _window_text(official, run_ms))
    return [window, Cause("readings", counted - over_window, _readings_text(logs, physical))]


def switch_cause(switches: Sequence[LogScore]) -> list[Cause]:
    """Switches whose measured power the formula does not count."""
    joules = sum((log.official_joules or 0.0) - (log.physical_joules or 0.0) for log in switches)
    if not joules:
        return []
    names = ", ".join(log.name for log in switches)
    return [Cause("switch", joules, f"the power measured in {names} does not count, only a stated one would")]


def _window_text(official: Sequence[OfficialEnergy], run_ms: tuple[float, float]) -> str:
    lead = [run_ms[0] - energy.start_ms for energy in official if np.isfinite(energy.start_ms)]
    lag = [energy.stop_ms - run_ms[1] for energy in official if np.isfinite(energy.stop_ms)]
    if not lead or not lag:
        return "the power log has no window"
    begin = _edge_text(lead, "before run_start", "after run_start")
    end = _edge_text(lag, "after run_stop", "before run_stop")
    return f"the mean power from {begin} to {end} stands for that of the run"


def _edge_text(margins_ms: Sequence[float], outside: str, inside: str) -> str:
    least, most = min(margins_ms), max(margins_ms)
    if max(abs(least), abs(most)) < _AT_RUN_EDGE_MS:
        return outside.split()[-1]
    widest = most if most > 0 else least
    text = f"{abs(widest) / 1000:.1f} s {outside if widest > 0 else inside}"
    return text if most - least < _AT_RUN_EDGE_MS else f"up to {text}"


def _readings_text(logs: Sequence[PowerLog], physical: PhysicalEnergy) -> str:
    reasons = []
    coverage = min(physical.coverage[: len(logs)])
    if coverage < _FULL_COVERAGE:
        reasons.append(f"gaps (coverage {coverage:.1%})")
    repeated, readings = sum(log.repeated for log in logs), sum(log.readings for log in logs)
    if repeated:
        reasons.append(f"{repeated / readings:.1%} of the readings repeat a time and weigh nothing")
    if not all(log.is_sorted for log in logs):
        reasons.append("times step backwards")
    negative = sum(log.not_positive for log in logs)
    if negative:
        reasons.append(f"{negative} readings of 0 W or less count")
    return "each reading stands for the time before it" + (": " if reasons else "") + ", ".join(reasons)
