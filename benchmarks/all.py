"""Runs every benchmark of the measured road and writes what they print to docs/benchmarks.md.

Each benchmark is a command of its own with its method in its docstring; this only calls them one after the other, on a
machine that should have nothing else to do. `--peers-python` names an interpreter that has codecarbon and zeus.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
BENCHMARKS: list[tuple[str, list[str]]] = [
    ("Is the true energy within ±U?", ["truth.py"]),
    ("What sampling costs", ["sampling_cost.py", "--seconds", "20"]),
    ("Every tick accounted for", ["tick_accounting.py"]),
    ("What a phase costs the workload", ["phase_cost.py"]),
    ("Aligning 10⁸ readings with 10⁵ phases", ["align_throughput.py"]),
    ("A million phases", ["many_phases.py"]),
    ("Starting and importing", ["start_up.py"]),
]
TAKES_PEERS = "sampling_cost.py"  # as an option
RUNS_IN_PEERS = "phase_cost.py"  # which needs nothing but the standard library of us


def machine() -> str:
    """Processor, cores and Python, for the reader of the figures."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}"


def main() -> int:
    """Run all and write the page; the exit status of the first that failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers-python", help="a Python that has codecarbon and zeus")
    peers_python = parser.parse_args().peers_python
    page = [
        "# Benchmarks",
        "",
        f"Run on {datetime.date.today().isoformat()} by `python benchmarks/all.py`: {machine()}.",
        "Ratios within one run hold better than single times. Methods: the docstring of each command.",
        "",
    ]
    status = 0
    for title, command in BENCHMARKS:
        python = sys.executable
        shown = " ".join(command)
        if peers_python and command[0] == TAKES_PEERS:
            command = [*command, "--peers-python", peers_python]
            shown += " --peers-python PYTHON"
        if peers_python and command[0] == RUNS_IN_PEERS:
            python = peers_python
        print(f"== {title}: {' '.join(command)}", flush=True)
        result = subprocess.run([python, *command], cwd=HERE, capture_output=True, text=True, check=False)
        print(result.stdout + result.stderr, flush=True)
        status = status or result.returncode
        page += [f"## {title}", "", f"`python benchmarks/{shown}`", "", "```", result.stdout.rstrip(), "```", ""]
    PAGE.write_text("\n".join(page), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
