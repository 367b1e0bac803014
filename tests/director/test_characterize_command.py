"""`power-director characterize` end to end: a meter whose timing is known only to the test, under a real load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import following_device
import pyarrow.parquet as pq
import pytest
from following_device import OFF_WATTS, ON_WATTS

from director.cli import main

UPDATE_S, WINDOW_S, DELAY_S = 0.2, 0.25, 0.12
SIMULATORS = Path(following_device.__file__).parent
# As many do, it needs a moment until it bears; it says who it is when it is ready.
LOAD = "import os, sys\nopen(sys.argv[1], 'w').write(str(os.getpid()))\nwhile True: pass"
DEADLINE_S = 120.0


@dataclass(frozen=True)
class Bench:
    """A place to work in, with a configuration folder of its own."""

    folder: Path

    def director(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.command("director.cli", *words)

    def command(self, module: str, *words: str) -> subprocess.CompletedProcess[str]:
        paths = [str(self.folder / "site"), str(SIMULATORS), *filter(None, [os.environ.get("PYTHONPATH")])]
        paths.insert(2, str(Path(__file__).parents[2]))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }
        return subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_S,
        )  # fmt: skip

    @property
    def settings(self) -> list[str]:
        values = {"pid_file": self.pid_file, "update_s": UPDATE_S, "window_s": WINDOW_S, "delay_s": DELAY_S}
        return [word for key, value in values.items() for word in ("--set", f"following.{key}={value}")]

    @property
    def pid_file(self) -> Path:
        return self.folder / "load.pid"

    @property
    def load(self) -> list[str]:
        return ["--", sys.executable, "-c", LOAD, str(self.pid_file)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("characterize")
    following_device.install(folder / "site")
    return Bench(folder)


@pytest.fixture(scope="module")
def told(bench: Bench) -> Any:
    """What the command said of the meter."""
    done = bench.director(
        "characterize", "following", *bench.settings, "--rate", "50", "--period", "1", "--cycles", "6",
        "--output", "session", "--json", "found.json", *bench.load,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "following/0/power" in done.stderr and "±" in done.stderr
    return json.loads((bench.folder / "found.json").read_text())["channels"][0]


def test_it_finds_what_the_meter_does(told: Any) -> None:
    assert abs(told["update_period_s"] - UPDATE_S) <= told["update_period_u_s"] + 0.001
    assert abs(told["window_s"] - WINDOW_S) <= told["window_u_s"] < 0.15
    assert abs(told["delay_s"] - DELAY_S) <= told["delay_u_s"] < 0.1
    assert told["off_value"] == pytest.approx(OFF_WATTS, abs=8)
    assert told["on_value"] == pytest.approx(ON_WATTS, abs=8)
    assert told["shape"] == "mean"


def test_it_is_stored_and_shown_among_the_devices(bench: Bench, told: Any) -> None:
    stored = json.loads((bench.folder / "config/power-agent/characteristics.json").read_text())["channels"]
    assert [(each["channel"], each["model"]) for each in stored] == [("following/0/power", "M1")]
    assert stored[0]["window_s"] == told["window_s"]
    assert stored[0]["session"] == str((bench.folder / "session").resolve())
    devices = bench.command("power_agent.cli", "devices", "--driver", "following", *bench.settings)
    assert "0/power: delay" in devices.stdout and "characterised on 20" in devices.stdout


def test_the_session_is_evidence(bench: Bench, told: Any) -> None:
    again = bench.director("characterize", "session", "--no-store", "--json", "-")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["channels"][0] == told


def loads(session: Path) -> tuple[float, Any]:
    """What the loads really used together, and what the session tells of them."""
    phases = pq.read_table(session / "phases.parquet", filters=[("name", "=", "load")])
    seconds = sum(phases["end_ns"].to_numpy() - phases["begin_ns"].to_numpy()) * 1e-9
    summary = json.loads((session / "summary.json").read_text())
    return seconds * ON_WATTS, next(p for p in summary["phases"] if p["name"] == "load")["components"][0]


def test_energies_are_right_with_it_and_would_be_wrong_without(bench: Bench, told: Any) -> None:
    done = bench.director(
        "run", "--quiet", "--drivers", "following", "--rate", "following=50", *bench.settings, "--output", "later",
        "--", sys.executable, "-m", "director.characterize.square_wave", "--cycles", "3", "--period", "1", "--seed",
        "7", *bench.load,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    truth, figure = loads(bench.folder / "later")
    assert abs(figure["joules"] - truth) <= figure["expanded_joules"] < 0.5 * truth
    truth, figure = loads(bench.folder / "session")  # which was measured without
    assert abs(figure["joules"] - truth) > 2 * figure["expanded_joules"]
    channel = json.loads((bench.folder / "later/manifest.json").read_text())["hosts"][0]["streams"][0]["stream"]
    assert "update period, window, delay characterised on 20" in channel["channels"][0]["description"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "there is no driver 'nowhere', and no such session"),
        (["rapll"], "did you mean 'rapl'?"),
        (["nvml", "--set", "nvml.absurd=1"], "nvml cannot be used here"),
        (["host"], "host measures neither power nor energy"),
        (["host", "--", "/no/such/program"], "/no/such/program"),
        (["host", "--cycles", "2"], "--cycles 3 is the least"),
        (["host", "--rate", "0"], "'0' is not a number above 0"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_run(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["characterize", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_channel_that_is_not_there_is_refused(bench: Bench) -> None:
    done = bench.director("characterize", "following", *bench.settings, "--channel", "following/1/power")
    assert done.returncode == 2
    assert "no power or energy channel following/1/power; there are: following/0/power" in done.stderr
    assert not (bench.folder / "power-sessions").exists()


def test_a_session_that_cannot_tell_is_refused(bench: Bench, told: Any) -> None:
    shutil.copytree(bench.folder / "session", bench.folder / "other")
    (bench.folder / "other/phases.parquet").unlink()
    done = bench.director("characterize", "other")
    assert (done.returncode, "phases.parquet cannot be read" in done.stderr) == (2, True), done.stderr
    done = bench.director("characterize", "session", "--period", "3")
    assert (done.returncode, "was measured already" in done.stderr) == (2, True), done.stderr
