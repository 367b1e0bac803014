"""The pytest plugin in runs of pytest: a fixture that measures a block, and an option that measures every test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

DEADLINE_S = 120.0
# A model of constant power: 50 W whatever the machine does, so that energy is 50 W times the time.
MODEL = ("--energy-drivers=estimate", "--energy-set=estimate.idle_watts=50", "--energy-set=estimate.peak_watts=50")


def run_pytest(folder: Path, tests: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_example.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "director.pytest_plugin", *arguments]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # only ours, which saves seconds
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)


def test_pytest_finds_the_plugin_by_itself() -> None:
    found = {entry.name: entry.value for entry in entry_points(group="pytest11")}
    if "director.pytest_plugin" not in found:
        pytest.skip("the package was installed before it had a plugin: pip install --editable .")
    assert found["director.pytest_plugin"] == "director.pytest_plugin"


@pytest.mark.long
def test_the_fixture_measures_a_block_of_a_test(tmp_path: Path) -> None:
    tests = """
import time

def test_frugal(energy):
    with energy() as m:
        time.sleep(0.2)
    assert m.label == "test_frugal" and m.session.is_dir()
    assert m.joules < 500

def test_greedy(energy):
    with energy("greedy", settings={"estimate": {"idle_watts": 70, "peak_watts": 70}}) as m:
        time.sleep(0.2)
    assert m.mean_watts < 60, f"{m}"
"""
    done = run_pytest(tmp_path, tests, *MODEL)
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert re.search(r"AssertionError: greedy: [\d.]+ ± [\d.]+ J ESTIMATE, 70\.0 W for \d+ ms", done.stdout)
    assert "energy of each test" not in done.stdout
    assert not (tmp_path / "power-sessions").exists()


def test_the_option_measures_every_test_with_one_sampler(tmp_path: Path) -> None:
    tests = """
import time
import pytest
from power_agent import phase

@pytest.fixture
def slow():
    time.sleep(0.6)

@pytest.mark.parametrize("seconds", [0.2, 0.6])
def test_sleeps(seconds, slow):
    with phase("sleep"):
        time.sleep(seconds)

def test_fails():
    assert False

@pytest.mark.skip
def test_skipped():
    pass

def test_measures_itself(energy):
    with energy() as m:
        time.sleep(0.1)
    assert m.joules > 4
"""
    done = run_pytest(tmp_path, tests, "--measure-energy", "--energy-output=s", *MODEL)
    assert "1 failed, 3 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 1
    table = done.stdout.partition("energy of each test")[2].splitlines()
    rows = {line.split()[-1].partition("::")[2]: line for line in table if " ± " in line and "::" in line}
    assert list(rows) == ["test_sleeps[0.2]", "test_sleeps[0.6]", "test_fails", "test_measures_itself"]
    joules = {name: float(line.split("±")[0]) for name, line in rows.items() if " J ESTIMATE" in line}
    assert 10.0 <= joules["test_sleeps[0.2]"] < 30.0, "the fixture's 0.6 s would be 30 J more"
    assert 30.0 <= joules["test_sleeps[0.6]"] < 60.0
    assert all(re.search(r" ± [\d.]+ m?J ESTIMATE +50\.0 ", line) for line in rows.values())
    assert re.search(r"all, with fixtures: [\d.]+ ± [\d.]+ k?J ESTIMATE, 50\.0 W for", done.stdout)
    assert "warning: " in done.stdout and "is an ESTIMATE from utilisation" in done.stdout
    names = {group["name"] for group in json.loads((tmp_path / "s/summary.json").read_bytes())["phases"]}
    assert {"test_example.py::test_sleeps[0.2]", "sleep"} <= names


def test_nothing_is_measured_where_nobody_asks(tmp_path: Path) -> None:
    tests = """
import sys

def test_light():
    heavy = {"msgspec", "numpy", "pyarrow", "director.running", "power_agent.messages"}
    assert not heavy & set(sys.modules)
"""
    done = run_pytest(tmp_path, tests)
    assert done.returncode == 0, done.stdout
    collected = run_pytest(tmp_path, tests, "--measure-energy", "--collect-only")
    assert collected.returncode == 0 and "energy of" not in collected.stdout
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == [
        "pytest.ini",
        "test_example.py",
    ]


def test_a_users_mistake_is_told_before_any_test(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    tests = "def test(): open('ran', 'w')"
    for arguments, words in (
        (["--energy-drivers=nvlm"], "there is no driver 'nvlm'. did you mean 'nvml'?"),
        (["--energy-output=full"], "the output directory full is not empty"),
    ):
        done = run_pytest(tmp_path, tests, "--measure-energy", *arguments)
        assert done.returncode == 4, done.stdout + done.stderr
        assert words in done.stderr and "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "ran").exists()


@pytest.mark.long
def test_the_example_runs(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples/test_energy.py"
    done = run_pytest(tmp_path, example.read_text(), "--measure-energy")
    assert done.returncode == 0, done.stdout
    assert "::test_a_lower_level_gives_the_same_data" in done.stdout
