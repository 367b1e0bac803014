"""MLPerf's LoadGen from Python, and MLPerf Training's log lines, as their users run them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from example_runs import EXAMPLES, measured, unmeasured

pytest.importorskip("sklearn")

LOADGEN = str(EXAMPLES / "loadgen_python.py")
MLLOG = str(EXAMPLES / "mllog_lines.py")


def logged(folder: Path) -> dict[str, object]:
    lines = (folder / "mlperf_log_detail.txt").read_text().splitlines()
    said = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
    return {line["key"]: line["value"] for line in reversed(said)}


@pytest.mark.parametrize(
    "scenario",
    ["MultiStream", *(pytest.param(name, marks=pytest.mark.long) for name in ("SingleStream", "Offline", "Server"))],
)
def test_loadgens_own_log_counts_the_same(scenario: str, tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen")
    run = measured(tmp_path, LOADGEN, scenario, str(tmp_path))
    assert (run.done.returncode, run.done.stdout, run.done.stderr) == (0, "done\n", "")
    (test,) = run.named("run")
    log = logged(tmp_path)
    assert test["attributes"]["scenario"] == log["effective_scenario"] == scenario
    assert test["work_queries"] == log["result_query_count"]
    per_query = {"MultiStream": 8, "Offline": log["effective_min_sample_count"]}.get(scenario, 1)
    assert test["work_samples"] == test["work_queries"] * per_query
    assert test["flags"] == 0
    names = {metric["name"] for metric in run.summary["metrics"]}
    assert {"energy of the run", "samples per joule"} <= names and "joules-to-train" not in names

    # The same run by LoadGen's log, whose stamps are cut to milliseconds, lies within what was marked.
    from director.phases.sources import Problems, loadgen

    problems = Problems()
    begin, end = loadgen.read(tmp_path / "mlperf_log_detail.txt", problems)
    assert list(problems) == []
    assert begin.work["samples"] == test["work_samples"]
    assert end.t_ns - begin.t_ns <= test["end_ns"] - test["begin_ns"] + 2_000_000


@pytest.mark.long
def test_loadgen_runs_the_same_without_a_measurement(tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen")
    alone = unmeasured(tmp_path, LOADGEN, "MultiStream", str(tmp_path))
    assert (alone.returncode, alone.stdout, alone.stderr) == (0, "done\n", "")
    assert logged(tmp_path)["result_validity"] in ("VALID", "INVALID")


def test_mllog_lines_need_no_code_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("mlperf_logging")
    assert "power_agent" not in Path(MLLOG).read_text()
    run = measured(tmp_path, MLLOG, options=("--mllog", "-"))
    assert run.done.returncode == 0, run.done.stderr
    assert run.column("run", "work_samples") == [4500]
    assert run.named("run")[0]["attributes"]["status"] == "success"
    assert run.column("epoch", "index") == [1, 2, 3]
    assert run.column("epoch", "work_samples") == [1500] * 3
    assert len(run.named("eval")) == 3 and len(run.named("init")) == 1
    assert not any(phase["flags"] for phase in run.phases)
    assert run.metric("joules-to-train")["value"] > 0
    said = [json.loads(line.removeprefix(":::MLLOG "))["key"] for line in run.done.stdout.splitlines()]
    assert said[0] == "init_start" and said[-1] == "run_stop"
