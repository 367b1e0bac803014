"""Aligning many readings with many phases: time, peak memory, and the ratio to a plain read of the same file.

Method. A trace of one power channel is written to Parquet (not timed). Then, in a fresh process, the trace is cut at
the edges of random nested phases exactly as for a session's results, and energies with their budgets are computed. The
bound printed beside it is the time to read the same columns of the same file and sum the values, in a fresh process.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from director.energy.align import align
from director.energy.channel_timing import timing_of
from director.energy.interval_energy import interval_energies
from director.session.trace_store import Piece, TraceWriter, iter_pieces
from drivers.contract import Accuracy, Channel
from power_agent.messages import Stream

RATE_HZ = 1000.0
CHANNEL = Channel(
    name="sim/gpu0/power",
    device="gpu0",
    quantity="power",
    unit="W",
    kind="gauge",
    scope="gpu",
    scale=1e-3,
    update_period_s=0.001,
    window_s=0.001,
    accuracy=Accuracy(reading_fraction=0.05),
)


def write_trace(path: Path, readings: int) -> None:
    """A trace of `readings` rows at 1 kHz with 50 µs of jitter."""
    rng = np.random.default_rng(1)
    stream = Stream(id=1, driver="sim", group="power", rate_hz=RATE_HZ, channels=[CHANNEL])
    writer = TraceWriter(path, stream)
    for begin in range(0, readings, 1 << 20):
        n = min(1 << 20, readings - begin)
        t = (np.arange(begin, begin + n) * 1_000_000) + rng.integers(0, 50_000, n)
        watts = np.round(400_000 + 100_000 * np.sin(t * 1e-9) + rng.normal(0, 3000, n))
        writer.write(Piece(t, np.full(n, 20_000), [watts], [np.zeros(n, dtype=np.uint8)]))
    writer.close()


def cut(path: Path, phases: int) -> None:
    """What is timed."""
    started = time.perf_counter()
    rng = np.random.default_rng(2)
    last = (sum(len(p.t_ns) for p in iter_pieces(path, [])) - 1) * 1_000_000
    length = 10 ** rng.uniform(7.7, np.log10(last / 10), phases)
    begin = rng.uniform(0, last - length).astype(np.int64)
    end = (begin + length).astype(np.int64)
    edges = np.unique(np.concatenate((begin, end)))
    timing = timing_of(CHANNEL, RATE_HZ)
    aligned = align(CHANNEL, timing, iter_pieces(path, [CHANNEL]), edges, 0)
    i, j = np.searchsorted(edges, begin), np.searchsorted(edges, end)
    energies = interval_energies(CHANNEL, timing, aligned, i, j, np.zeros(phases))
    assert np.isfinite(energies.joules).all()
    report(started)


def read(path: Path, _: int) -> None:
    """The bound: the file's columns read and summed."""
    started = time.perf_counter()
    total = 0.0
    for piece in iter_pieces(path, [CHANNEL]):
        total += float(piece.values[0].sum()) + float(piece.t_ns[-1]) + float(piece.statuses[0].sum())
    report(started)


def report(started: float) -> None:
    """Seconds and peak memory of this process, for the parent."""
    print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print seconds, MB and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=int, default=100_000_000)
    parser.add_argument("--phases", type=int, default=100_000)
    parser.add_argument("--step", choices=("cut", "read"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        {"cut": cut, "read": read}[arguments.step](arguments.file, arguments.phases)
        return
    with tempfile.TemporaryDirectory(prefix="align-") as folder:
        path = Path(folder) / "trace.parquet"
        write_trace(path, arguments.readings)
        figures = {}
        for step in ("read", "cut"):
            command = [sys.executable, __file__, "--step", step, "--file", str(path), "--phases", str(arguments.phases)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            figures[step] = (float(out[0]), float(out[1]))
    print(f"{arguments.readings:,} readings, {arguments.phases:,} phases")
    print(f"align: {figures['cut'][0]:6.2f} s  {figures['cut'][1]:7.0f} MB peak")
    print(f"read:  {figures['read'][0]:6.2f} s  {figures['read'][1]:7.0f} MB peak (the bound)")
    print(f"ratio: {figures['cut'][0] / figures['read'][0]:.2f}")


if __name__ == "__main__":
    main()
