"""CPU time of scoring MLPerf Inference power runs: `spl.txt` and LoadGen's detail log to average watts.

The other side reads as the official submission checker does: every line of the detail log as JSON, the first value of
a key looked up in the list of entries; of every line of `spl.txt` the time through `strptime`, and each field by a
`split` of its own. Both sides run in turns in one process on one core, on warm files, each five times in a row; the
smallest of each counts; that of the first runs of the rows, which find the other side's data in the caches, is printed
besides. Both give the same figures to the last bit. Then the whole score with the physical energy, and long made logs,
to show that cost grows with bytes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np

from director.mlperf.finding import InferenceSession
from director.mlperf.inference.detail_log import read_detail_log
from director.mlperf.inference.sample_log import STAMP_FORMAT, SampleLog, Window, stamp_us
from director.mlperf.inference.session_score import score_session

IN_A_ROW = 5
GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden" / "inference" / "sessions"


def plainly(run: Path) -> float:
    """Average of the positive samples inside the window, line by line."""
    entries = []
    with (run / "mlperf_log_detail.txt").open() as file:
        for line in file:
            line = line.rstrip()
            if line.startswith(":::MLLOG"):
                entries.append(json.loads(line[len(":::MLLOG") :]))
    zone = timedelta(0)
    begin, end = (
        datetime.strptime(next(entry for entry in entries if entry["key"] == key)["value"], STAMP_FORMAT) + zone
        for key in ("power_begin", "power_end")
    )
    watts = []
    with (run / "spl.txt").open() as file:
        for line in file:
            if not line.startswith("Time"):
                continue
            at = datetime.strptime(line.split(",")[1], STAMP_FORMAT) + zone
            if begin < at < end and float(line.split(",")[3]) > 0:
                watts.append(float(line.split(",")[3]))
    return sum(watts) / len(watts)


def ours(run: Path) -> float:
    """The same, by the readers of `power-director score`."""
    log = read_detail_log(run / "mlperf_log_detail.txt")
    window = Window(stamp_us(str(log.get("power_begin"))), stamp_us(str(log.get("power_end"))))
    total, count = 0.0, 0
    for block in SampleLog(run / "spl.txt", window).samples():
        watts = block.watts[window.holds(block.t_us) & block.time_lines & (block.watts > 0)]
        total = float(np.cumsum(np.concatenate(([total], watts)))[-1])
        count += len(watts)
    return total / count


def cpu_s(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def main() -> int:
    """Returns 1 where the two sides differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sessions", nargs="?", type=Path, default=GOLDEN, help="folder of sessions")
    parser.add_argument("--turns", type=int, default=7)
    arguments = parser.parse_args()
    runs = sorted(path.parent for path in arguments.sessions.glob("*/*/spl.txt"))
    if not runs:
        print(f"no runs under {arguments.sessions}", file=sys.stderr)
        return 1
    if any(plainly(run) != ours(run) for run in runs) and sys.version_info < (3, 12):  # later sum() rounds otherwise
        print("the two sides differ", file=sys.stderr)
        return 1
    sessions = [InferenceSession(run.parent, "", "", "", "", "") for run in runs if run.name == "run_1"]
    plain, fast, whole = [], [], []
    for _ in range(arguments.turns):
        plain += [cpu_s(lambda: [plainly(run) for run in runs]) for _ in range(IN_A_ROW)]
        fast += [cpu_s(lambda: [ours(run) for run in runs]) for _ in range(IN_A_ROW)]
        whole.append(cpu_s(lambda: [score_session(found, None) for found in sessions]))
    bytes_read = sum((run / name).stat().st_size for run in runs for name in ("spl.txt", "mlperf_log_detail.txt"))
    print(f"{len(runs)} runs, {bytes_read / 1e6:.1f} MB")
    print(f"plain reading     {min(plain) * 1e3:8.1f} ms CPU")
    print(f"ours              {min(fast) * 1e3:8.1f} ms CPU   {min(plain) / min(fast):.1f} times less")
    first = min(plain[::IN_A_ROW]), min(fast[::IN_A_ROW])
    print(f"first of a row: {first[0] * 1e3:.1f} ms, {first[1] * 1e3:.1f} ms, {first[0] / first[1]:.1f} times less")
    print(f"score with physical energy, {len(sessions)} sessions: {min(whole) * 1e3 / len(sessions):.2f} ms CPU each")
    _linear(max(runs, key=lambda run: (run / "spl.txt").stat().st_size))
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    return 0


def _linear(run: Path) -> None:
    text = (run / "spl.txt").read_bytes().rstrip() + b"\n"
    for copies in (25, 100):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "spl.txt"
            with path.open("wb") as file:
                for _ in range(copies):
                    file.write(text)
            seconds = min(cpu_s(partial(_read, path)) for _ in range(3))
            size = copies * len(text)
            print(f"sample log of {size / 1e6:6.1f} MB: {seconds * 1e9 / size:.2f} ns/byte")


def _read(path: Path) -> int:
    return sum(1 for _ in SampleLog(path, Window(0, 1)).samples())


if __name__ == "__main__":
    sys.exit(main())
