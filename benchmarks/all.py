"""Runs the benchmarks, stores their results, and writes docs/benchmarks.md with its figures.

Each benchmark is a command of its own with its method in its docstring; this calls them one after the other, on a
machine that should have nothing else to do. A result is stored in benchmarks/results; one that failed leaves the result
before it. `--peers-python` names an interpreter that has codecarbon and zeus.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import page

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Benchmark:
    """One section of the page."""

    title: str
    command: list[str]
    takes_peers: bool = False  # as an option
    runs_in_peers: bool = False  # it needs nothing of ours but the standard library
    gives_figures: bool = False  # by its option --json


BENCHMARKS = {
    "truth": Benchmark("Is the true energy within ±U?", ["truth.py"]),
    page.CURVES: Benchmark(
        "How wrong is an energy, by length of the phase and method?",
        ["error_curves.py"],
        takes_peers=True,
        gives_figures=True,
    ),
    "sampling": Benchmark(
        "What sampling costs", ["sampling_cost.py", "--seconds", "10", "--pairs", "80"], takes_peers=True
    ),
    "ticks": Benchmark("Every tick accounted for", ["tick_accounting.py"]),
    "bmc": Benchmark("Polling 300 BMCs once a second", ["bmc_poller.py"]),
    "powersensor3": Benchmark("PowerSensor3 at 20 kHz", ["powersensor3.py"]),
    "phases": Benchmark("What a phase costs the workload", ["phase_cost.py"], runs_in_peers=True),
    "align": Benchmark("Aligning 10⁸ readings with 10⁵ phases", ["align_throughput.py"]),
    "million": Benchmark("A million phases", ["many_phases.py"]),
    "ingest": Benchmark("What a director takes from a thousand agents", ["fleet_ingest.py"]),
    "faults": Benchmark("What faults cost a fleet", ["fleet_faults.py", "--fleets", "56", "--parallel", "8"]),
    "clock": Benchmark("How exactly clocks are tied", ["clock_sync.py"]),
    "start": Benchmark("Starting and importing", ["start_up.py"]),
    "report": Benchmark("The report page of a day on eight GPUs", ["report_page.py"]),
    "mlperf-training": Benchmark("Scoring MLPerf Training results", ["mlperf_training.py"]),
    "mlperf-inference": Benchmark("Scoring MLPerf Inference results", ["mlperf_inference.py"]),
}
OURS = ("numpy", "pyarrow", "msgspec")
PEERS = ("zeus", "codecarbon", "nvidia-ml-py")


def machine() -> str:
    """Processor, cores and system, for the reader of the figures."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}"


def peers_versions(python: str) -> dict[str, str]:
    """Of the tools that an interpreter has."""
    program = (
        "import importlib.metadata as m, json, sys\n"
        "def version(name):\n"
        "    try: return m.version(name)\n"
        "    except m.PackageNotFoundError: return None\n"
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    done = subprocess.run([python, "-c", program, *PEERS], capture_output=True, text=True, check=True)
    return {name: found for name, found in json.loads(done.stdout).items() if found}


def run(benchmark: Benchmark, peers_python: str | None) -> dict[str, Any] | None:
    """The result to store; None: it failed, and has said why."""
    python, command, shown = sys.executable, list(benchmark.command), " ".join(benchmark.command)
    versions = {"Python": platform.python_version()} | {name: version(name) for name in OURS}
    if peers_python and (benchmark.takes_peers or benchmark.runs_in_peers):
        versions |= peers_versions(peers_python)
        if benchmark.takes_peers:
            command += ["--peers-python", peers_python]
            shown += " --peers-python PYTHON"
        else:
            python = peers_python
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        if benchmark.gives_figures:
            command += ["--json", str(figures)]
        print(f"== {benchmark.title}: {' '.join(command)}", flush=True)
        begin = time.monotonic()
        done = subprocess.run([python, *command], cwd=HERE, capture_output=True, text=True, check=False)
        print(done.stdout + done.stderr, flush=True)
        if done.returncode:
            print(f"{command[0]} failed with status {done.returncode}; its earlier result stays", file=sys.stderr)
            return None
        return {
            "title": benchmark.title,
            "command": f"python benchmarks/{shown}",
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
            "versions": versions,
            "seconds": round(time.monotonic() - begin),
            "printed": done.stdout.rstrip().splitlines(),
            "figures": json.loads(figures.read_text()) if benchmark.gives_figures else None,
        }


def main() -> int:
    """Run, store, write the page; 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers-python", help="a Python that has codecarbon and zeus")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="NAME", choices=list(BENCHMARKS), action="append", help=", ".join(BENCHMARKS))
    which.add_argument("--page", action="store_true", help="run nothing; write the page from the stored results")
    arguments = parser.parse_args()
    # not resolved: the interpreter of a virtual environment is a link
    peers_python = str(Path(arguments.peers_python).absolute()) if arguments.peers_python else None
    failed = False
    page.RESULTS.mkdir(exist_ok=True)
    for name in [] if arguments.page else arguments.only or BENCHMARKS:
        result = run(BENCHMARKS[name], peers_python)
        failed |= result is None
        if result is not None:
            text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
            (page.RESULTS / f"{name}.json").write_text(text, encoding="utf-8")
    page.write(list(BENCHMARKS))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
