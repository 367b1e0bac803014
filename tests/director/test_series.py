"""`--repeat`: runs that stop at a failure, and figures over runs that can be worked out by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from director.answers.summary import Metric, Summary
from director.running.series import load_series, olympic_score, spread
from director.session.files import SessionError, load_manifest


def director(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "director.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def summary(**values: float) -> Summary:
    units = {"time_to_train": "s"}
    return Summary(
        session="s",
        label="",
        tool_version="0",
        command=["job"],
        exit_code=0,
        signal=None,
        estimate_only=False,
        scope_of_total="",
        metrics=[
            Metric(
                name=name.replace("_", "-"),
                value=value,
                expanded=None,
                unit=units.get(name, "J"),
                phase="run",
                estimate=name == "guess",
            )
            for name, value in values.items()
        ],
        phases=[],
        phases_left_out=0,
        idle_watts={},
        sampling=[],
        points=[],
        warnings=[],
    )


def test_the_spread_is_the_samples() -> None:
    found = spread([summary(energy=10.0), summary(energy=12.0, guess=1.0), summary(energy=17.0)])
    energy, guess = found
    # Mean 13, squares 9 + 1 + 16 over n − 1 = 2.
    assert (energy.name, energy.runs, energy.mean) == ("energy", 3, 13.0)
    assert energy.standard_deviation == pytest.approx(13**0.5)
    assert (energy.lowest, energy.highest) == (10.0, 17.0)
    assert not energy.estimate
    assert (guess.runs, guess.standard_deviation, guess.estimate) == (1, None, True)


def with_u(seconds: float, joules: float, expanded: float, *, estimate: bool = False) -> Summary:
    """A training whose energy has a U."""
    run = summary(time_to_train=seconds, joules_to_train=joules)
    energy = msgspec.structs.replace(run.metrics[1], expanded=expanded, estimate=estimate)
    return msgspec.structs.replace(run, metrics=[run.metrics[0], energy])


def test_the_worked_example_of_the_uncertainty_of_repeats() -> None:
    # docs/formulas/metrics.md: kept are 500, 900 and 400 J with U = 30, 54 and 24 J
    runs = [(10.0, 500.0), (9.0, 100.0), (12.0, 1.0), (11.0, 900.0), (10.5, 400.0)]
    score = olympic_score({str(i): with_u(t, e, 0.06 * e) for i, (t, e) in enumerate(runs)})
    assert score is not None and (score.mean_seconds, score.mean_joules) == (10.5, 600.0)
    assert score.expanded_joules == pytest.approx(math.hypot(36.0, 2 * math.sqrt(70_000 / 3)))
    assert score.expanded_joules == pytest.approx(307.6, abs=0.05)


def test_a_common_error_does_not_average_down() -> None:
    energy = spread([with_u(10.0, 100.0, 5.0) for _ in range(50)])[1]
    assert (energy.mean, energy.expanded) == (100.0, pytest.approx(5.0))
    (_, mixed) = spread([with_u(10.0, 100.0, 5.0), with_u(10.0, 104.0, 5.0, estimate=True)])
    assert mixed.estimate, "an estimate among the runs makes the mean one"
    assert mixed.expanded == pytest.approx(math.hypot(5.0, 2 * math.sqrt(8.0 / 2)))
    assert olympic_score({"a": with_u(1.0, 1.0, 0.1), "b": with_u(1.0, 1.0, 0.1, estimate=True)}).estimate  # type: ignore[union-attr]


def test_the_olympic_score_drops_the_fastest_and_the_slowest() -> None:
    runs = {
        f"run-{i}": summary(time_to_train=seconds, joules_to_train=joules)
        for i, (seconds, joules) in enumerate([(30.0, 1.0), (10.0, 100.0), (20.0, 6.0), (25.0, 8.0), (40.0, 2.0)])
    }
    score = olympic_score(runs)
    assert score is not None
    assert score.kept == ["run-0", "run-2", "run-3"]
    assert score.dropped == ["run-1", "run-4"], "the fastest, then the slowest"
    assert (score.mean_seconds, score.mean_joules) == (25.0, 5.0)
    assert score.expanded_joules is None, "nobody knows the U of the runs"
    assert olympic_score({"a": summary(energy=1.0)}) is None
    assert olympic_score({}) is None


def test_the_olympic_score_has_an_uncertainty() -> None:
    runs = {}
    for seconds, joules, expanded in [(1.0, 9.0, 9.0), (2.0, 6.0, 2.0), (3.0, 8.0, 4.0), (4.0, 9.0, 9.0)]:
        run = summary(time_to_train=seconds, joules_to_train=joules)
        run.metrics[1] = msgspec.structs.replace(run.metrics[1], expanded=expanded, estimate=True)
        runs[f"run-{seconds}"] = run
    score = olympic_score(runs)
    assert score is not None
    # The mean U is 3. s = √2 over √2 runs is 1, and 2 of it and 3 make √13.
    assert score.expanded_joules == pytest.approx(13**0.5)
    assert score.estimate


def test_a_series_stops_where_a_run_fails_and_can_be_reported_again(tmp_path: Path) -> None:
    job = 'echo "run $POWER_AGENT_REPEAT"; test "$POWER_AGENT_REPEAT" != 2 || exit 9'
    result = director(
        "run", "--drivers=host,estimate", "--repeat=3", "--output=all", "--label=three", "--json=out.json",
        "--", "sh", "-c", job, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 9
    assert result.stdout == "run 1\nrun 2\n"
    assert "the series ends here: run 2 of 3 failed with status 9" in result.stderr
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [
        "report.html",
        "run-001",
        "run-002",
        "series.json",
    ]
    series = load_series(tmp_path / "all")
    assert [(run.directory, run.status) for run in series.runs] == [("run-001", 0), ("run-002", 9)]
    second = load_manifest(tmp_path / "all/run-002")
    assert (second.repeat_index, second.session, second.label) == (2, "all/run-002", "three")
    out = json.loads((tmp_path / "out.json").read_bytes())
    assert len(out["summaries"]) == 2
    assert out["metrics"][0]["runs"] == 1, "a failed run has no part in the figures"

    again = director("report", "all", "--json=again.json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "out.json").read_bytes()
    assert "three: 2 of 3 runs" in again.stderr


def test_a_damaged_record_of_a_series_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "series.json"
    for content, words in (
        (b"", "is damaged"),
        (b'{"command": 5}', "is damaged"),
        (b'{"schema_version": 9, "command": [], "created_wall_ns": 0, "planned": 1}', "newer version"),
    ):
        path.write_bytes(content)
        with pytest.raises(SessionError, match=words):
            load_series(tmp_path)
