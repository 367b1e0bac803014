"""A report of a session with a million marked phases: seconds and peak memory, beside a plain read of the same marks.

Method. A session is written (not timed): ten power channels at 10 Hz for ten minutes, and as many phases as asked for,
nested as a training marks them (epochs of a thousand steps). Then `power-director report` runs on it in a fresh
process, from raw files to phases.parquet, energies.parquet and summary.json. The bound printed beside it is the time
in a fresh process to read the lines of the mark files and decode them as JSON, which any report has to do. The same is
done with a training log of a hundred thousand MLLOG lines, whose stamps in wall time are placed through the clock
pairs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "simulators")]

import msgspec  # noqa: E402
import numpy as np  # noqa: E402
from made_session import WALL_ORIGIN_NS, made_clock, made_manifest, made_stream  # noqa: E402

from director.session.manifest import PhaseSource  # noqa: E402
from drivers.contract import Accuracy, Channel  # noqa: E402

SECONDS = 600
RATE_HZ = 10.0
CHANNELS = 10
STEPS_PER_EPOCH = 1000
START_NS = 1_000_000_000_000


def write_session(folder: Path, kind: str, count: int) -> Path:
    """A session whose phases come from `kind`, marks or mllog. Returns what the bound reads."""
    rows = int(SECONDS * RATE_HZ)
    t_ns = START_NS + (np.arange(rows) * (1e9 / RATE_HZ)).astype(np.int64)
    channels = [
        Channel(
            name=f"sim/gpu{i}/power",
            device=f"gpu{i}",
            quantity="power",
            unit="W",
            kind="gauge",
            scope="gpu",
            model="sim",
            update_period_s=0.1,
            window_s=0.1,
            accuracy=Accuracy(reading_fraction=0.05),
        )
        for i in range(CHANNELS)
    ]
    watts = [300 + 50 * np.sin(t_ns * 1e-9 + i) for i in range(CHANNELS)]
    end_ns = int(t_ns[-1])
    edges = np.linspace(START_NS + 1e9, end_ns - 1e9, count + 1).astype(np.int64).tolist()
    (write_marks if kind == "marks" else write_mllog)(folder, edges)
    file = {"marks": "marks", "mllog": "logs/train.log"}[kind]
    made_manifest(
        folder,
        [made_stream(folder, channels, t_ns, watts, rate_hz=RATE_HZ)],
        (START_NS, end_ns),
        clock_file=made_clock(folder, START_NS, end_ns),
        phase_sources=[PhaseSource(kind=kind, file=file)],
    )
    return next(p for p in (folder / file, *(folder / file).glob("*")) if p.is_file())


def write_marks(folder: Path, edges: list[int]) -> None:
    """Steps between edges, as `power_agent.phase` writes them, in epochs of a thousand."""
    (folder / "marks").mkdir()
    with (folder / "marks" / "1-0.marks").open("w") as file:
        file.write('{"op":"header","version":1,"pid":1,"rank":0}\n')
        for first in range(0, len(edges) - 1, STEPS_PER_EPOCH):
            steps = edges[first : first + STEPS_PER_EPOCH + 1]
            file.write(f'{{"op":"begin","name":"epoch","thread":1,"index":{first},"t_ns":{steps[0] - 2}}}\n')
            for i in range(len(steps) - 1):
                begin, end = steps[i], steps[i + 1] - 3
                file.write(f'{{"op":"begin","name":"step","thread":1,"index":{i},"t_ns":{begin}}}\n')
                done = f'"begin_ns":{begin},"work":{{"samples":64}}'
                file.write(f'{{"op":"end","name":"step",{done},"t_ns":{end}}}\n')
            file.write(f'{{"op":"end","name":"epoch","begin_ns":{steps[0] - 2},"t_ns":{steps[-1] - 2}}}\n')


def write_mllog(folder: Path, edges: list[int]) -> None:
    """Blocks between edges, as mlperf_logging writes them."""
    (folder / "logs").mkdir()
    with (folder / "logs" / "train.log").open("w") as file:
        for i, begin in enumerate(edges[:-1]):
            for key, t_ns in (("block_start", begin), ("block_stop", edges[i + 1] - 1)):
                stamp = (WALL_ORIGIN_NS + t_ns) // 1_000_000
                entry = {"namespace": "", "time_ms": stamp, "event_type": "INTERVAL_START", "key": key, "value": None}
                entry["metadata"] = {"file": "train.py", "lineno": 1, "first_epoch_num": i, "samples_count": 64 * i}
                file.write(f":::MLLOG {msgspec.json.encode(entry).decode()}\n")


def read(path: Path) -> None:
    """The bound: every line read and decoded."""
    decode = msgspec.json.Decoder().decode
    with path.open("rb") as file:
        for line in file:
            decode(line[line.index(b"{") :])


def in_process(*command: str) -> tuple[float, float]:
    """Seconds and peak megabytes of a process from start to end."""
    begin = time.perf_counter()
    pid = os.posix_spawn(sys.executable, [sys.executable, *command], {**os.environ, "PYTHONPATH": str(ROOT)})
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, command)
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def main() -> None:
    """Print seconds, MB and the ratio for both kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phases", type=int, default=1_000_000)
    parser.add_argument("--lines", type=int, default=100_000, help="of MLLOG")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read(arguments.read)
        return
    for kind, count in (("marks", arguments.phases), ("mllog", arguments.lines // 2)):
        with tempfile.TemporaryDirectory(prefix="phases-") as name:
            path = write_session(Path(name), kind, count)
            bound = in_process(__file__, "--read", str(path))
            report = in_process("-m", "director.cli", "report", name, "--quiet")
        print(f"{kind}: {count:,} phases, {CHANNELS} channels, {SECONDS} s at {RATE_HZ:g} Hz")
        print(f"  report: {report[0]:6.2f} s  {report[1]:6.0f} MB peak")
        print(f"  read:   {bound[0]:6.2f} s  {bound[1]:6.0f} MB peak (the bound)")
        print(f"  ratio:  {report[0] / bound[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
