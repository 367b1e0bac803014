"""A benchmark folder: which runs count, the Olympic score of time and energy, and the physical energy of the same runs.

Runs are sorted by time to train; the k fastest and the k slowest are dropped, k = 4 for unet3d and else 1. A run that
fails the checks is one of the dropped slowest; more than k of them, and there is no score. Energy is the mean over the
runs that count for time. Both are multiplied by the scaling factor (mlcommons/training_policies; result_summarizer).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from director.mlperf.difference import Cause
from director.mlperf.finding import TrainingBenchmark
from director.mlperf.training.compliance_rules import ROUNDS
from director.mlperf.training.run_score import RunScore, difference
from director.phases.sources.log_lines import finite


@dataclass
class BenchmarkScore:
    """A benchmark folder under the rules of one round. Figures are None where they are not known; `notes` say why."""

    found: TrainingBenchmark
    round: str
    round_from: str  # why this round, in words
    runs: list[RunScore]  # in order of their names
    dropped: dict[str, str] = field(default_factory=dict)  # by run's name: "fastest", "slowest" or "fails checks"
    scaling_factor: float | None = 1.0
    unscaled_minutes: float | None = None
    unscaled_joules: float | None = None
    physical_joules: float | None = None  # mean of the runs that count, not scaled
    physical_expanded_joules: float | None = None
    physical_is_estimate: bool = False  # a part of it was never measured
    coverage: float | None = None
    is_official: bool = True
    causes: list[Cause] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def minutes(self) -> float | None:
        """Time to train: the score."""
        return _product(self.unscaled_minutes, self.scaling_factor)

    @property
    def joules(self) -> float | None:
        """Energy to train: the score."""
        return _product(self.unscaled_joules, self.scaling_factor)

    @property
    def difference(self) -> float | None:
        """Official over physical energy, less 1."""
        return difference(self.joules, self.physical_joules)

    @property
    def counted(self) -> list[RunScore]:
        """The runs that make the score."""
        return [run for run in self.runs if run.name not in self.dropped]


def score_benchmark(
    found: TrainingBenchmark, runs: Sequence[dict[str, RunScore]], wanted_round: str | None
) -> BenchmarkScore:
    """Combine the runs of a folder, each scored under the rounds of `rounds_to_score`."""
    name, why = _choose_round(found, runs, wanted_round)
    score = BenchmarkScore(found, name, why, [run[name] for run in runs])
    score.scaling_factor = _scaling_factor(found.path / "scaling.json", score.notes)
    _drop(score, 4 if found.benchmark == "unet3d" else 1)
    counted = score.counted
    if not counted:
        return score
    score.unscaled_minutes = sum(run.train_ms or 0.0 for run in counted) / 60 / 1000 / len(counted)
    if not found.has_power:
        return score
    without = [run.name for run in counted if run.official_joules is None]
    if without:
        score.notes.append(f"no energy score: there is no energy of {', '.join(without)}")
        return score
    score.is_official = all(run.is_official for run in counted)
    score.unscaled_joules = _mean([run.official_joules for run in counted])
    score.physical_joules = _mean([run.physical_joules for run in counted])
    if score.physical_joules is None:
        score.notes.append("no physical energy: less than half of a run that counts was measured")
        return score
    # Runs are independent, but for what their meters and clocks have in common, of which nothing is stated.
    score.physical_expanded_joules = sum((run.physical_expanded_joules or 0.0) ** 2 for run in counted) ** 0.5 / len(
        counted
    )
    score.physical_is_estimate = any(run.physical_estimate_joules for run in counted)
    score.coverage = min((run.coverage for run in counted if run.coverage is not None), default=None)
    score.causes = _mean_causes(score, counted)
    return score


def rounds_to_score(found: TrainingBenchmark, wanted_round: str | None) -> tuple[str, ...]:
    """The rounds under which a folder's runs must be scored: all, where nothing says which."""
    name = wanted_round or found.round
    return (name,) if name in ROUNDS else ROUNDS


def _choose_round(
    found: TrainingBenchmark, runs: Sequence[dict[str, RunScore]], wanted_round: str | None
) -> tuple[str, str]:
    if wanted_round:
        return wanted_round, "as asked for"
    if found.round in ROUNDS:
        return found.round, "the folder names it"
    passing = {name: sum(run[name].counts for run in runs) for name in ROUNDS}
    most = max(passing.values())
    if not most:
        return ROUNDS[-1], "the newest; no folder names one, and no run passes the checks of any"
    name = next(name for name in reversed(ROUNDS) if passing[name] == most)
    return name, f"no folder names one; the newest whose checks {'all' if most == len(runs) else most} runs pass"


def _scaling_factor(file: Path, notes: list[str]) -> float | None:
    """The factor by which the review scaled a score, because its runs converged too fast (RCP); 1 without a file."""
    try:
        content = msgspec.json.decode(file.read_bytes())
    except FileNotFoundError:
        return 1.0
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        notes.append(f"no score: {file.name} cannot be read ({error})")
        return None
    factor = finite(content.get("scaling_factor")) if isinstance(content, dict) else None
    if factor is None:
        notes.append(f"no score: {file.name} holds no number scaling_factor")
    return factor


def _drop(score: BenchmarkScore, k: int) -> None:
    failing = [run for run in score.runs if not run.counts]
    score.dropped = dict.fromkeys((run.name for run in failing), "fails checks")
    passing = sorted((run for run in score.runs if run.counts), key=lambda run: run.train_ms or 0.0)
    if len(failing) > k:
        score.notes.append(f"no score: {len(failing)} of {len(score.runs)} runs fail the checks, and {k} may")
        score.dropped |= dict.fromkeys((run.name for run in passing), "no score")
        return
    slowest = passing[max(k, len(passing) - (k - len(failing))) :]
    score.dropped |= dict.fromkeys((run.name for run in slowest), "slowest")
    score.dropped |= dict.fromkeys((run.name for run in passing[:k]), "fastest")
    if len(passing) <= k + k - len(failing):
        score.notes.append(f"no score: of {len(score.runs)} runs none is left when {k} at each end are dropped")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _mean_causes(score: BenchmarkScore, counted: Sequence[RunScore]) -> list[Cause]:
    by_kind: dict[str, list[Cause]] = {}
    for run in counted:
        for cause in run.causes:
            by_kind.setdefault(cause.kind, []).append(cause)
    causes = []
    for kind, found in by_kind.items():
        largest = max(found, key=lambda cause: abs(cause.joules))
        causes.append(Cause(kind, sum(cause.joules for cause in found) / len(counted), largest.text))
    if score.scaling_factor not in (None, 1.0) and score.unscaled_joules is not None and score.joules is not None:
        text = f"the score is scaled by {score.scaling_factor:.6g}"
        causes.append(Cause("scaling", score.joules - score.unscaled_joules, text))
    return causes


def _product(value: float | None, factor: float | None) -> float | None:
    return value * factor if value is not None and factor is not None else None
