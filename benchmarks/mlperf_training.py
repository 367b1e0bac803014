"""MLPerf Training scores: CPU time of the official code and of ours on the same logs, and growth with bytes.

Method. The official code is PyPI's mlperf-logging, unmodified, in this process: for power logs `parse_file` and
`_compute_power_node`, for whole runs the compliance check, the parse of the result log and the total energy. Ours does
the same work; for whole runs also the physical energy with its uncertainty. Both are warmed up, take turns, and the
least CPU time of each counts. Where the official formula divides by zero, its time up to there counts. Logs: those
under --logs (as published), or made ones. Then one power log of growing length is read in a fresh process each.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mlperf_logging.compliance_checker.mlp_parser import parse_file
from mlperf_logging.result_summarizer import result_summarizer as official

from director.mlperf.finding import TrainingBenchmark, find
from director.mlperf.training.official_energy import node_energy
from director.mlperf.training.power_log import read_power_log
from director.mlperf.training.run_score import score_run

START_MS = 1_760_000_000_000
LINE = (
    ':::MLLOG {{"namespace": "", "time_ms": {}, "event_type": "POINT_IN_TIME", "key": "{}", "value": {}, '
    '"metadata": {{"file": "/opt/power/power_measurement.py", "lineno": 88, "host": "node_0"}}}}\n'
)
ROUND = {"smc-ac-power": "4.0", "smc-dc-power": "4.0", "Dell": "4.1", "Lenovo": "5.0"}  # of published submissions
Run = tuple[TrainingBenchmark, Path, str]


def least_cpu_s(works: Sequence[Callable[[], None]], turns: int) -> list[float]:
    """The least CPU time of each work, taken in turns."""
    least = [float("inf")] * len(works)
    for turn in range(turns + 1):
        for number, work in enumerate(works):
            begin = time.process_time()
            work()
            if turn:  # the first warms up
                least[number] = min(least[number], time.process_time() - begin)
    return least


def official_nodes(files: Sequence[Path]) -> None:
    for file in files:
        with contextlib.suppress(ZeroDivisionError):
            official._compute_power_node(parse_file(str(file), "5.0.0")[0], 600_000.0)


def our_nodes(files: Sequence[Path]) -> None:
    for file in files:
        node_energy(read_power_log(file), 600_000.0, "5.0")


def official_runs(runs: Sequence[Run]) -> None:
    for benchmark, file, name in runs:
        with contextlib.suppress(ValueError, ZeroDivisionError, AssertionError):
            lines = official._read_result_file(str(file), "training", f"{name}.0")
            start, stop = official._query_run_start_stop(lines)
            official._compute_total_power(str(benchmark.path), str(file), stop - start, f"{name}.0")


def our_runs(runs: Sequence[Run]) -> None:
    for benchmark, file, name in runs:
        score_run(file, benchmark.power_dir(file), (name,))


def write_log(path: Path, readings: int) -> None:
    with path.open("w") as file:
        file.write(LINE.format(START_MS, "power_measurement_start", "null"))
        for i in range(1, readings + 1):
            file.write(LINE.format(START_MS + 1000 * i, "power_reading", 3000 + i * 7919 % 5000 + 0.5))
        file.write(LINE.format(START_MS + 1000 * readings + 1, "power_measurement_stop", "null"))


def grow(folder: Path, readings: Sequence[int]) -> None:
    print(f"\n{'readings':>10} {'MB':>7} {'CPU s':>7} {'MB/s':>6} {'peak MB':>8}")
    for count in readings:
        path = folder / "node_0.txt"
        write_log(path, count)
        ended = subprocess.run(
            [sys.executable, __file__, "--read", str(path)], capture_output=True, text=True, check=True
        )
        seconds, peak = map(float, ended.stdout.split())
        megabytes = path.stat().st_size / 1e6
        print(f"{count:>10} {megabytes:>7.0f} {seconds:>7.2f} {megabytes / seconds:>6.0f} {peak:>8.0f}")


def read_once(path: Path) -> None:
    begin = time.process_time()
    node_energy(read_power_log(path), 600_000.0, "5.0")
    print(time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def compare(logs: Path, turns: int) -> None:
    found = [item for item in find([logs]) if isinstance(item, TrainingBenchmark)]
    runs = [(b, f, b.round or ROUND.get(b.submitter, "6.1")) for b in found for f in b.result_files]
    nodes = [node for b, f, _ in runs for node in sorted(b.power_dir(f).glob("node_*.txt"))]
    if not nodes:
        raise SystemExit(f"{logs} holds no power logs")
    logging.disable(logging.CRITICAL)
    with contextlib.redirect_stdout(io.StringIO()):  # the official code prints warnings
        of_nodes = least_cpu_s((lambda: official_nodes(nodes), lambda: our_nodes(nodes)), turns)
        of_runs = least_cpu_s((lambda: official_runs(runs), lambda: our_runs(runs)), turns)
    print(f"{'':32} {'official s':>10} {'ours s':>8} {'ratio':>6}")
    for text, (theirs, ours) in (
        (f"{len(nodes)} node power logs", of_nodes),
        (f"{len(runs)} runs, with the checks", of_runs),
    ):
        print(f"{text:32} {theirs:>10.2f} {ours:>8.3f} {theirs / ours:>5.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=Path, help="published results; without: made ones")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--most-readings", type=int, default=1_600_000, help="of the longest log of the growth")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read is not None:
        read_once(options.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        logs = options.logs
        if logs is None:
            sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "simulators"))
            from made_training import write_benchmark

            logs = Path(folder) / "made"
            write_benchmark(logs / "big" / "llama2_70b_lora", [10.0] * 10, [500.0] * 10, nodes=8)
        compare(logs, options.turns)
        grow(Path(folder), [options.most_readings // 16, options.most_readings // 4, options.most_readings])


if __name__ == "__main__":
    main()
