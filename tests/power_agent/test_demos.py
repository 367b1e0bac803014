"""The demo workloads as their users run them; MLPerf's own tools judge what they log."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from power_agent.demos import DemoError, infer_digits, train_digits

TARGET = 0.5  # a few epochs
RULES = "5.1.0"


class Training(NamedTuple):
    mllog: Path
    marks: Path
    model: Path


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """One run of the command, in a process of its own."""
    for module in ("torch", "sklearn", "mlperf_logging"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("training")
    marks = folder / "marks"
    marks.mkdir()
    command = [sys.executable, "-m", "power_agent.demos.train_digits", "--seed", "3", "--target", str(TARGET)]
    done = subprocess.run(
        [*command, "--save", str(folder / "model.npz")],
        env={**os.environ, "POWER_AGENT_MARKS": str(marks)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (folder / "mllog.txt").write_text(done.stdout)
    return Training(folder / "mllog.txt", marks, folder / "model.npz")


def mllog_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix(":::MLLOG ")) for line in text.splitlines() if line.startswith(":::MLLOG ")]


def values(lines: list[dict[str, Any]], key: str) -> list[Any]:
    return [line["value"] for line in lines if line["key"] == key]


def test_mlperfs_checker_accepts_the_log(training: Training) -> None:
    """All but the name of the benchmark, which is none of MLPerf's; so without the rules that depend on the name."""
    from mlperf_logging.compliance_checker import mlp_compliance, mlp_parser

    lines, errors = mlp_parser.parse_file(str(training.mllog), ruleset=RULES)
    assert errors == []
    checker = mlp_compliance.ComplianceChecker("training", RULES, quiet=False, werror=True)
    checker.configured_checks(lines, str(Path(mlp_compliance.__file__).parent / f"training_{RULES}" / "common.yaml"))
    assert checker.overwritable == {}
    assert checker.not_overwritable == []


def test_training_stops_at_the_first_epoch_that_reaches_the_target(training: Training) -> None:
    lines = mllog_lines(training.mllog.read_text())
    accuracies = values(lines, "eval_accuracy")
    assert accuracies[-1] >= TARGET
    assert all(accuracy < TARGET for accuracy in accuracies[:-1])
    assert values(lines, "train_samples") == [1437]
    assert values(lines, "eval_samples") == [360]
    (stop,) = (line for line in lines if line["key"] == "run_stop")
    assert stop["metadata"]["status"] == "success"
    assert stop["metadata"]["epoch_num"] == len(accuracies)
    assert stop["metadata"]["samples_count"] == len(accuracies) * 1437


def test_each_epoch_marks_its_two_parts(training: Training) -> None:
    epochs = len(values(mllog_lines(training.mllog.read_text()), "eval_accuracy"))
    (file,) = training.marks.iterdir()
    marks = [json.loads(line) for line in file.read_text().splitlines()]
    steps = [(mark["op"], mark["name"]) for mark in marks if mark["op"] != "header"]
    assert steps == epochs * [("begin", "augment"), ("end", "augment"), ("begin", "optimize"), ("end", "optimize")]
    assert {mark["work"]["samples"] for mark in marks if mark["op"] == "begin"} == {1437}


def test_a_seed_fixes_the_run_and_a_repeat_has_its_own(
    training: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, *options: str) -> list[dict[str, Any]]:
        log = tmp_path / name
        arguments = ["--target", "1", "--max-epochs", "1", "--mllog", str(log), *options]
        assert train_digits.main(arguments) == 1  # no epoch is that good
        lines = mllog_lines(log.read_text())
        assert lines[-1]["key"] == "run_stop"
        assert lines[-1]["metadata"]["status"] == "aborted"
        return lines

    monkeypatch.delenv("POWER_AGENT_REPEAT", raising=False)
    outside = run("outside")
    assert values(outside, "seed") == [0]
    monkeypatch.setenv("POWER_AGENT_REPEAT", "2")
    repeat = run("repeat")
    assert values(repeat, "seed") == [2]
    given_seed = run("given", "--seed", "0")
    assert values(given_seed, "seed") == [0]
    assert values(given_seed, "eval_accuracy") == values(outside, "eval_accuracy")


def detail(folder: Path) -> Mapping[str, Any]:
    text = (folder / "mlperf_log_detail.txt").read_text()
    return {line["key"]: line["value"] for line in mllog_lines(text)}


@pytest.mark.parametrize("scenario", infer_digits.SCENARIOS)
def test_loadgen_measures_a_scenario(scenario: str, training: Training, tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen")
    options = ["--scenario", scenario, "--model", str(training.model), "--duration-s", "1", "--output", str(tmp_path)]
    code = infer_digits.main(options)
    said = detail(tmp_path)
    for key in ("power_begin", "power_end"):
        assert re.fullmatch(r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d\.\d{3}", said[key])
    assert said["effective_scenario"] == scenario
    assert said["effective_min_duration_ms"] == 1000
    assert code == {"VALID": 0, "INVALID": 1}[said["result_validity"]]  # a busy machine may well be too late


def test_loadgen_finds_the_accuracy_that_training_logged(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no --model, the one that is kept in the user's cache directory."""
    pytest.importorskip("mlperf_loadgen")
    (tmp_path / "ml-power-agent").mkdir()
    (tmp_path / "ml-power-agent" / "digits.npz").write_bytes(training.model.read_bytes())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert infer_digits.main(["--accuracy", "--output", str(tmp_path)]) == 0
    logged = values(mllog_lines(training.mllog.read_text()), "eval_accuracy")[-1]
    assert f"accuracy {logged:.4f} over 360 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "missing"),
    [
        ("train_digits", "torch"),
        ("train_digits", "sklearn"),
        ("train_digits", "mlperf_logging"),
        ("infer_digits", "mlperf_loadgen"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    program: str, missing: str, tmp_path: Path
) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\nfrom power_agent.demos.{program} import main\nsys.exit(main([]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert missing in line
    assert "pip install 'ml-power-agent[demo]'" in line


def test_wrong_words_are_refused_with_the_reason(
    training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlperf_loadgen")
    output = ["--output", str(tmp_path / "logs")]
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(training.model.read_bytes()[:-100])

    assert infer_digits.main(["--scenario", "SingleStream", "--target-qps", "9", *output]) == 2
    assert "--target-qps means nothing in SingleStream" in capsys.readouterr().err
    assert infer_digits.main(["--model", str(damaged), *output]) == 2
    assert f"{damaged} is not a model of this demo" in capsys.readouterr().err
    assert infer_digits.main(["--model", str(tmp_path / "none.npz"), *output]) == 2
    assert "none.npz" in capsys.readouterr().err
    assert train_digits.main(["--save", str(tmp_path / "nowhere" / "model.npz")]) == 2
    assert "there is no directory" in capsys.readouterr().err
    monkeypatch.setenv("POWER_AGENT_REPEAT", "second")
    assert train_digits.main([]) == 2
    assert "POWER_AGENT_REPEAT must be a whole number of at most 18 digits, not 'second'" in capsys.readouterr().err


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_are_a_model_or_a_clear_error(data: st.DataObject, training: Training, tmp_path: Path) -> None:
    from power_agent.demos.digits_model import load_model

    whole = training.model.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    patch = data.draw(st.binary(max_size=40))
    file = tmp_path / "model.npz"
    file.write_bytes(data.draw(st.sampled_from([patch, whole[:start], whole[:start] + patch + whole[start + 40 :]])))
    try:
        load_model(file)
    except DemoError as error:
        assert str(file) in str(error)
