"""What a mark costs the workload: `python benchmarks/phase_cost.py`.

Prints, in microseconds, enter and exit of a phase (median and 99th percentile), and without a measurement; time and
memory of `import power_agent` over bare Python; and beside it the same of zeus (PyPI `zeus`, `begin_window` and
`end_window` on one simulated GPU), where that is installed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 20_000
_STARTS = 7


def percentiles(work: Callable[[int], object], rounds: int = ROUNDS) -> dict[str, float]:
    """Microseconds of one call, without the cost of reading the clock: median and 99th percentile."""
    spent, empty = [], []
    for index in range(rounds):
        begin = time.perf_counter_ns()
        work(index)
        middle = time.perf_counter_ns()
        spent.append(middle - begin)
        empty.append(time.perf_counter_ns() - middle)
    clock_ns = statistics.median(empty)
    spent.sort()
    return {
        "median_us": (spent[rounds // 2] - clock_ns) / 1000,
        "p99_us": (spent[rounds * 99 // 100] - clock_ns) / 1000,
    }


def measure_phase() -> dict[str, dict[str, float]]:
    from power_agent import phase

    def plain(index: int) -> None:
        with phase("step"):
            pass

    def counted(index: int) -> None:
        with phase("step", index=index, samples=64):
            pass

    def attributed(index: int) -> None:
        with phase("step", index=index, samples=64, lr=0.1, split="train"):
            pass

    def write_twice(index: int) -> None:
        os.write(sink, b"x" * 80)
        os.write(sink, b"x" * 80)

    sink = os.open(tempfile.mkstemp()[1], os.O_WRONLY | os.O_APPEND)
    reused = phase("step")

    def enter_and_exit(index: int) -> None:
        reused.__enter__()
        reused.__exit__(None, None, None)

    works = {
        "enter and exit alone": enter_and_exit,
        "with phase(name)": plain,
        "… index, samples": counted,
        "… index, samples, 2 attributes": attributed,
        "two writes to a file": write_twice,
    }
    return {name: percentiles(work) for name, work in works.items()}


def measure_zeus() -> dict[str, dict[str, float]]:
    from zeus.monitor import ZeusMonitor  # type: ignore[import-not-found, unused-ignore]

    monitor = ZeusMonitor(gpu_indices=[0], cpu_indices=[])

    def window(index: int) -> None:
        monitor.begin_window("step", sync_execution=False)
        monitor.end_window("step", sync_execution=False)

    return {"zeus window, 1 GPU": percentiles(window, ROUNDS // 10)}


def in_process(function: str, environment: dict[str, str]) -> dict[str, dict[str, float]]:
    code = f"import json, sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'benchmarks')!r}]; import phase_cost"
    command = [sys.executable, "-c", f"{code}; print(json.dumps(phase_cost.{function}()))"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def import_cost(module: str) -> tuple[float, float]:
    """Milliseconds and MB that importing a module adds to bare Python; medians of several starts."""
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "def rss(): return int(open('/proc/self/statm').read().split()[1])\n"
        "before, began = rss(), time.perf_counter_ns()\n"
        "__import__(sys.argv[2])\n"
        "print(time.perf_counter_ns() - began, rss() - before)"
    )
    times, pages = [], []
    for _ in range(_STARTS):
        command = [sys.executable, "-c", code, str(ROOT), module]
        spent, grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        times.append(int(spent))
        pages.append(int(grown))
    return statistics.median(times) / 1e6, statistics.median(pages) * os.sysconf("SC_PAGESIZE") / 1e6


def zeus_on_a_simulated_gpu(folder: Path) -> dict[str, dict[str, float]]:
    """Empty, with a line that says why, where zeus or a compiler is not at hand."""
    if importlib.util.find_spec("zeus") is None:
        print("zeus: not installed (pip install zeus); left out")
        return {}
    sys.path.insert(0, str(ROOT))
    from tests.simulators import nvml_stub

    try:
        library = nvml_stub.build(folder)
        config = folder / "gpus"
        nvml_stub.StubConfig().write(config)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"zeus: the simulated GPU cannot be built ({error}); left out")
        return {}
    return in_process("measure_zeus", {**os.environ, **nvml_stub.environment(library, config)})


def show(costs: dict[str, dict[str, float]]) -> None:
    for name, cost in costs.items():
        print(f"{name:34} {cost['median_us']:8.2f} {cost['p99_us']:8.2f}")


def main() -> None:
    bare = {key: value for key, value in os.environ.items() if key != "POWER_AGENT_MARKS"}
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'microseconds':34} {'median':>8} {'p99':>8}")
        marked = in_process("measure_phase", {**bare, "POWER_AGENT_MARKS": folder})
        show(marked)
        unmeasured = in_process("measure_phase", bare)
        show({"no measurement: with phase(name)": unmeasured["with phase(name)"]})
        zeus = zeus_on_a_simulated_gpu(Path(folder))
        show(zeus)
        for cost in zeus.values():
            print(f"zeus / phase: {cost['median_us'] / marked['with phase(name)']['median_us']:.1f}")
    for module in ["power_agent", *(["zeus.monitor"] if zeus else [])]:
        milliseconds, megabytes = import_cost(module)
        print(f"import {module}: {milliseconds:.1f} ms, {megabytes:.1f} MB over bare Python")


if __name__ == "__main__":
    main()
