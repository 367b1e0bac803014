"""Scores of published MLPerf Inference power sessions against what the official code makes of the same logs."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden_inference import GOLDEN, golden, needs_golden

from director.mlperf.finding import InferenceSession, find
from director.mlperf.inference.rules import RULES
from director.mlperf.inference.session_score import SessionScore, score_session

pytestmark = needs_golden


def session(row: dict[str, str], top: Path) -> InferenceSession:
    """The session under the folders that it was published in."""
    folder = top / row["repo"] / row["path"] / "performance"
    folder.mkdir(parents=True)
    for part in ("power", "ranging", "run_1"):
        (folder / part).symlink_to(GOLDEN / "sessions" / row["dev_name"] / part)
    (found,) = find([top])
    assert isinstance(found, InferenceSession)
    return found


def number(text: str) -> float | None:
    return float(text) if text not in ("", "null", "''") else None


@pytest.mark.parametrize("row", golden(), ids=lambda row: str(row["dev_name"]))
def test_figures_are_those_of_the_official_code(row: dict[str, str], tmp_path: Path) -> None:
    score = score_session(session(row, tmp_path), None)
    assert score.round == row["round"].removeprefix("v") and score.round_from == "named by a folder"
    assert (score.scenario, score.log_scenario) == (row["scenario"], row["log_scenario"])
    assert score.inferred == bool(int(row["inferred"]))
    # the same samples, added in the same order
    assert score.average_watts == float(row["run_1_avg_power_W"])
    assert score.samples == int(row["run_1_n_samples"])
    assert score.duration_s == float(row["run_1_duration_s"])
    assert score.performance_key == row["perf_metric_key"] or score.inferred
    assert score.performance == pytest.approx(float(row["perf_result_official"]), rel=1e-15)
    assert score.power_metric == float(row["power_metric"])
    assert score.efficiency == pytest.approx(float(row["efficiency_per_J"]), rel=1e-15)
    assert score.official_joules == pytest.approx(float(row["energy_J_avg_times_duration"]), rel=1e-15)
    assert not score.official_code_stops and not score.unreadable_lines and not score.notes
    if row["perf_unit"]:
        assert score.performance_unit == row["perf_unit"]
    assert score.efficiency_is_official == bool(row["efficiency_official"])


@pytest.mark.parametrize("row", golden(), ids=lambda row: str(row["dev_name"]))
def test_rules_of_another_round(row: dict[str, str], tmp_path: Path) -> None:
    found = session(row, tmp_path)
    new = score_session(found, "4.1")
    assert new.average_watts == float(row["run_1_avg_W_v4_1_positive_samples"])
    assert new.power_metric == number(row["v4_1_algorithm_power_metric"])
    assert bool(row["v4_1_algorithm_exception"]) == (new.power_metric is None)
    old = score_session(found, "1.0")
    assert old.average_watts == float(row["run_1_avg_W_v1_0_1_all_samples"])
    assert bool(row["v1_0_1_algorithm_exception"]) == bool(old.official_code_stops)


@pytest.mark.parametrize("row", golden(), ids=lambda row: str(row["dev_name"]))
def test_physical_energy_agrees_within_u(row: dict[str, str], tmp_path: Path) -> None:
    score = score_session(session(row, tmp_path), None)
    assert score.physical is not None and score.physical.joules and score.physical.expanded_joules
    assert score.physical.coverage > 0.998
    clean = float(row["run_1_avg_W_v4_1_positive_samples"]) * float(row["run_1_duration_s"])
    assert abs(score.physical.joules - clean) < min(score.physical.expanded_joules, 1e-3 * clean)
    parts = sum(cause.joules for cause in score.causes)
    assert score.official_joules is not None
    assert parts == pytest.approx(score.official_joules - score.physical.joules, abs=1e-6 * clean)


def test_every_round_scores_every_session(tmp_path: Path) -> None:
    for number_, row in enumerate(golden()):
        top = tmp_path / str(number_)
        top.mkdir()
        found = session(row, top)
        for name in RULES:
            score: SessionScore = score_session(found, name)
            assert score.average_watts is not None
            assert score.performance is not None or score.notes
