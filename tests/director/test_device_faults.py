"""Whole runs on simulated GPUs and processors that vanish, hang, lie or wrap: figures known in closed form, or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fake_device
import nvml_stub
import pyarrow.parquet as pq
import pytest
from nvml_stub import StubConfig, StubGpu
from powercap_tree import COUNTER_SIZE, PowercapTree, Zone, write_cpuinfo

DEADLINE_S = 90.0
GPU_IS_LOST = 15
SIMULATORS = Path(fake_device.__file__).parent

# Puts the second configuration in force between its two phases, for more than half of the time since its start.
FAULT_JOB = """\
import os, sys, time
from power_agent.marks import phase
born = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
with phase("good"): time.sleep(1.5)
os.utime(sys.argv[1])
os.replace(sys.argv[1], sys.argv[2])
age = time.clock_gettime(time.CLOCK_BOOTTIME) - born
with phase("bad"): time.sleep(max(float(sys.argv[3]), 1.2 * age))
print("the job ended well")
sys.exit(7)
"""

# Turns every counter on from its first count by a number of counts, in steps, and rests before and after.
COUNTING_JOB = """\
import json, os, sys, time
from power_agent.marks import phase
time.sleep(0.3)
with phase("busy"):
    time.sleep(0.2)
    for step in range(1, 201):
        for path, first, counts, count_nj in json.loads(sys.argv[1]):
            energy_uj = (first + counts * step // 200) % 2**32 * count_nj // 1000
            file = os.open(path, os.O_WRONLY)
            os.pwrite(file, f"{energy_uj}\\n".ljust(24, "\\n").encode(), 0)
            os.close(file)
        time.sleep(0.005)
    time.sleep(0.3)
"""


@dataclass
class Run:
    """What a run left."""

    status: int
    stdout: str
    stderr: str
    session: Path

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.session / "summary.json").read_bytes())
        return found

    def phase(self, name: str) -> dict[str, Any]:
        return next(phase for phase in self.summary["phases"] if phase["name"] == name)

    def figure(self, phase: str, device: str) -> dict[str, Any]:
        """Of a device, or "total"."""
        found = self.phase(phase)
        figures = [found["total"], *found["components"], *found["not_explained"]]
        return next(f for f in figures if f is not None and f["name"].rpartition("/")[2] == device)

    def warned(self, *words: str) -> bool:
        return any(all(word in text for word in words) for text in self.summary["warnings"])


def start(session: Path, options: Sequence[object], job: Sequence[object], **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "director.cli", "run", *map(str, options), "--output", session, "--", *map(str, job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )


def finish(session: Path, process: subprocess.Popen[str]) -> Run:
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in stderr, stderr
    return Run(process.returncode, stdout, stderr, session)


# GPUs

GPUS = [StubGpu(high_w=100.0), StubGpu(high_w=300.0)]
FAULTS: dict[str, tuple[list[StubGpu], float]] = {  # what the GPUs are in the phase "bad", and how long that lasts
    "nothing": (GPUS, 1.0),
    "one lost": ([replace(GPUS[0], returns={"all": GPU_IS_LOST}), GPUS[1]], 2.5),
    "all lost": ([replace(gpu, returns={"all": GPU_IS_LOST}) for gpu in GPUS], 2.5),
    "hang": ([replace(GPUS[0], hang_s=60.0), GPUS[1]], 2.5),
    "reset": ([replace(GPUS[0], energy_offset_mj=-(10**6)), GPUS[1]], 1.0),
    "negative": ([replace(GPUS[0], power_override_mw=-5000.0), GPUS[1]], 2.5),
    "absurd": ([replace(GPUS[0], power_override_mw=2e9, returns={"energy": 3}), GPUS[1]], 2.5),
    "disagree": ([replace(GPUS[0], energy_gain=1.2), GPUS[1]], 4.5),
}


@pytest.fixture(scope="module")
def gpu_runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """All runs, at one time: they sleep most of it."""
    if nvml_stub.compiler() is None:
        pytest.skip("gcc is needed to build the NVML stub")
    assert request.config.cache is not None
    library = nvml_stub.build(request.config.cache.mkdir("nvml-stub"))
    processes: dict[str, tuple[Path, subprocess.Popen[str]]] = {}
    for name, (later, lasts_s) in FAULTS.items():
        folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
        config, fault, root, session = (folder / part for part in ("config", "fault", "root", "session"))
        root.mkdir()
        gpus = [replace(GPUS[0], energy_gain=1.2), GPUS[1]] if name == "disagree" else GPUS
        StubConfig(gpus).write(config)
        StubConfig(later).write(fault)
        options = ("--drivers=nvml", "--root", root)
        job = (sys.executable, "-c", FAULT_JOB, fault, config, lasts_s)
        processes[name] = session, start(session, options, job, **nvml_stub.environment(library, config))
    return {name: finish(*process) for name, process in processes.items()}


def assert_holds(figure: dict[str, Any], watts: float, seconds: float) -> None:
    assert abs(figure["joules"] - watts * seconds) <= figure["expanded_joules"]
    assert figure["joules"] == pytest.approx(watts * seconds, rel=0.1)


@pytest.mark.parametrize("name", FAULTS)
def test_whatever_the_gpus_do_the_job_is_the_jobs_and_what_was_measured_is_kept(
    gpu_runs: dict[str, Run], name: str
) -> None:
    run = gpu_runs[name]
    assert run.status == 7
    assert run.stdout == "the job ended well\n"
    good = run.phase("good")
    for device, watts in (("gpu0", 100.0), ("gpu1", 300.0), ("total", 400.0)):
        figure = run.figure("good", device)
        assert_holds(figure, watts, good["duration_s"])
        assert figure["coverage"] > 0.8  # a device that hangs takes along what waited to be understood


def test_two_gpus_of_known_power(gpu_runs: dict[str, Run]) -> None:
    run = gpu_runs["nothing"]
    command = run.phase("command")
    assert_holds(run.figure("command", "total"), 400.0, command["duration_s"])
    assert run.figure("command", "total")["coverage"] > 0.99
    assert run.figure("command", "gpu0")["missing"] == 0
    assert not run.warned("gpu")


@pytest.mark.parametrize("name", ["one lost", "absurd"])
def test_a_gpu_that_goes_takes_the_total_with_it_and_no_other_gpu(gpu_runs: dict[str, Run], name: str) -> None:
    run = gpu_runs[name]
    assert_holds(run.figure("bad", "gpu1"), 300.0, run.phase("bad")["duration_s"])
    for phase in ("bad", "command"):
        for device in ("gpu0", "total"):
            figure = run.figure(phase, device)
            assert figure["joules"] is None and figure["mean_watts"] is None
            assert figure["coverage"] < 0.5
    assert run.figure("bad", "gpu0")["missing"] > 40  # 20 Hz for 2.5 s, less what reaches over the edge
    assert run.warned("gpu0", "no energy for phase command", "missing")
    assert run.summary["metrics"] == []  # nothing that a smaller total would flatter
    assert "not measured" in run.stderr


@pytest.mark.parametrize(("name", "words"), [("all lost", ["the device was lost", "dmesg"]), ("hang", ["hangs"])])
def test_when_all_gpus_go_there_is_no_figure_and_it_says_why(
    gpu_runs: dict[str, Run], name: str, words: list[str]
) -> None:
    run = gpu_runs[name]
    for phase in ("bad", "command"):
        assert run.figure(phase, "total")["joules"] is None
    assert run.warned("nvml", *words)


def test_a_gpu_that_says_nonsense_is_told_by_its_counter(gpu_runs: dict[str, Run]) -> None:
    run = gpu_runs["negative"]
    figure = run.figure("bad", "gpu0")
    assert figure["method"] == "counter"
    assert_holds(figure, 100.0, run.phase("bad")["duration_s"])
    power = next(other for other in figure["alternatives"] if other["channel"].endswith("power_instant"))
    assert power["joules"] is None  # never −5 W, nor zero


def test_a_counter_that_falls_back_loses_no_joules(gpu_runs: dict[str, Run]) -> None:
    run = gpu_runs["reset"]
    command = run.phase("command")
    assert_holds(run.figure("command", "gpu0"), 100.0, command["duration_s"])
    counter = next(o for o in run.figure("command", "gpu0")["alternatives"] if o["method"] == "counter")
    assert counter["joules"] == pytest.approx(100.0 * command["duration_s"], rel=0.15)  # bridged, not taken for zero


def test_a_counter_that_contradicts_the_power_is_shown_but_not_believed(gpu_runs: dict[str, Run]) -> None:
    run = gpu_runs["disagree"]
    figure = run.figure("command", "gpu0")
    assert figure["method"] == "integrated"
    assert_holds(figure, 100.0, run.phase("command")["duration_s"])
    counter = next(other for other in figure["alternatives"] if other["method"] == "counter")
    assert counter["difference"] == pytest.approx(0.2, abs=0.04)
    assert "integrated power is used instead" in counter["not_used_because"]
    assert run.warned("the energy counter nvml/gpu0/energy gives", "wall meter")
    assert not run.warned("the energy counter nvml/gpu1/energy gives")


# Processors


def count_up(tree: PowercapTree, tmp_path: Path, joules: dict[str, float]) -> Run:
    """A run in which each zone's counter goes up by this energy, and no other."""
    plan, session = [], tmp_path / "session"
    for name, energy in joules.items():
        zone: Zone = tree.zones[name]
        plan.append([str(zone.energy_file), zone.first_count, round(energy * 1e9 / zone.count_nj), zone.count_nj])
    job = (sys.executable, "-c", COUNTING_JOB, json.dumps(plan))
    options = ("--drivers=rapl", "--rate=rapl=100", "--root", tree.root)
    run = finish(session, start(session, options, job))
    assert run.status == 0
    return run


def near_the_top(joules: float, count_nj: int = 61_035) -> int:
    return COUNTER_SIZE - round(joules * 1e9 / count_nj)


def test_wraps_lose_nothing_and_what_lies_in_psys_counts_once(tmp_path: Path) -> None:
    tree = PowercapTree(tmp_path / "root")
    write_cpuinfo(tree.root, "GenuineIntel", "Xeon")
    tree.add("intel-rapl:0", "package-0", first_count=near_the_top(120.0))
    tree.add("intel-rapl:0:0", "core", first_count=near_the_top(10.0))
    tree.add("intel-rapl:0:1", "uncore")
    tree.add("intel-rapl:0:2", "dram", count_nj=15_300, first_count=near_the_top(39.0, 15_300))
    tree.add("intel-rapl:1", "psys", first_count=near_the_top(333.0))
    tree.add("intel-rapl-mmio:0", "package-0")
    joules = {"intel-rapl:0": 200.0, "intel-rapl:0:0": 130.0, "intel-rapl:0:1": 20.0, "intel-rapl:0:2": 40.0}
    run = count_up(tree, tmp_path, {**joules, "intel-rapl:1": 400.0, "intel-rapl-mmio:0": 200.0})
    known = {"psys-0": 400.0, "package-0": 200.0, "core-0": 130.0, "uncore-0": 20.0, "dram-0": 40.0}
    for device, energy in known.items():
        figure = run.figure("busy", device)
        assert figure["joules"] == pytest.approx(energy, abs=0.001)
        assert (figure["method"], figure["missing"]) == ("counter", 0)
    assert run.figure("busy", "total")["joules"] == pytest.approx(400.0, abs=0.001)
    assert run.figure("busy", "psys-0 not explained")["joules"] == pytest.approx(160.0, abs=0.002)


def test_two_packages_add_up_with_their_memory_and_without_their_parts(tmp_path: Path) -> None:
    tree = PowercapTree(tmp_path / "root")
    for package in range(2):
        tree.add(f"intel-rapl:{package}", f"package-{package}", first_count=near_the_top(50.0 + package))
        tree.add(f"intel-rapl:{package}:0", "core")
        tree.add(f"intel-rapl:{package}:1", "dram", count_nj=15_300)
        tree.add(f"intel-rapl-mmio:{package}", f"package-{package}")
    joules = {
        f"{zone}{package}": 100.0 + package for package in range(2) for zone in ("intel-rapl:", "intel-rapl-mmio:")
    }
    joules |= {"intel-rapl:0:0": 70.0, "intel-rapl:1:0": 80.0, "intel-rapl:0:1": 11.0, "intel-rapl:1:1": 12.0}
    run = count_up(tree, tmp_path, joules)
    assert run.figure("busy", "total")["joules"] == pytest.approx(100.0 + 101.0 + 11.0 + 12.0, abs=0.002)
    assert len(run.phase("busy")["components"]) == 6


def test_no_device_at_all_is_no_energy_and_not_zero(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    job = ("sh", "-c", "echo out; exit 7")
    run = finish(tmp_path / "s", start(tmp_path / "s", ("--drivers=rapl", "--root", tmp_path / "root"), job))
    assert (run.status, run.stdout) == (7, "out\n")
    summary = run.summary
    assert summary["metrics"] == []
    assert [(p["name"], p["total"], p["components"]) for p in summary["phases"]] == [("command", None, [])]
    assert pq.read_metadata(run.session / "energies.parquet").num_rows == 0
    assert "measuring nothing: no device can be read here" in run.stderr
    assert run.warned("no power or energy was measured", "power-agent devices")
    assert run.warned("rapl cannot be used", "modprobe intel_rapl_msr")
    assert " J" not in run.stderr


ABSURD = {
    "an update period of 1e+300 s": {"update_period_s": 1e300},
    "a window of 1e+18 s": {"window_s": 1e18},
    "a scale of 0.0": {"scale": 0},
    "a scale of 1e+308": {"scale": 1e308},
    "a counter that wraps at -5": {"modulus": -5, "kind": "counter"},
}


def start_fake(folder: Path, options: Sequence[object]) -> subprocess.Popen[str]:
    """A run of 0.4 s with the driver of another package, which `folder` holds."""
    fake_device.install(folder / "packages")
    path = os.pathsep.join([str(folder / "packages"), str(SIMULATORS)])
    return start(folder / "s", options, ("sh", "-c", "echo out; sleep 0.4; exit 6"), PYTHONPATH=path)


def test_a_driver_that_describes_its_device_absurdly_costs_nobody_else_a_figure(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("time_s,wall_watts\n" + "".join(f"{second},10.0\n" for second in range(6001)))
    options = ["--drivers=fake", f"--replay={trace}", "--replay-speed=60"]
    processes = {}
    for number, (told, channel) in enumerate(ABSURD.items()):
        described = f"--set=fake.channel={json.dumps({'scope': 'gpu', **channel})}"
        processes[told] = tmp_path / str(number), start_fake(tmp_path / str(number), [*options, described])
    for told, (folder, process) in processes.items():
        run = finish(folder / "s", process)
        assert (run.status, run.stdout) == (6, "out\n")
        assert run.warned("fake/0/power", "is left out", told)
        figure = run.figure("command", "total")
        assert figure["joules"] == pytest.approx(10.0 * run.phase("command")["duration_s"], rel=0.02)


def test_a_reading_that_cannot_be_true_is_missing(tmp_path: Path) -> None:
    processes = {}
    for value in ("nan", "inf", "1e308", "-1e12"):
        options = ("--drivers=fake", '--set=fake.channel={"scope": "gpu"}', f"--set=fake.value={value}")
        processes[tmp_path / value] = start_fake(tmp_path / value, options)
    for folder, process in processes.items():
        run = finish(folder / "s", process)
        assert run.status == 6
        figure = run.figure("command", "total")
        assert figure["joules"] is None and figure["peak_watts"] is None
        assert figure["readings"] == 0 and figure["missing"] > 0
        assert "Warning" not in run.stderr
