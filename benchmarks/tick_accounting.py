"""Is every tick accounted for at 1 kHz, and how late are the readings beside an empty loop's?

Method. The sampler reads one RAPL domain, a file in memory (/dev/shm where there is one), --hz times a second for
--seconds. Its ledger is read from the spool: due = taken + late + missed. The lateness of a reading is the instant at
which it began (middle less half its length) less the tick before it. Then two empty loops sleep to the same kind of
absolute deadlines for as long, each with a timer slack of 1 ns: one in C, compiled here where gcc is installed, and
one in Python. They show what the machine and the language take; the rest is ours. The three run one after the
other, so run them on a machine whose load is steady.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from process_cost import cpu_ns

from power_agent.messages import SamplerSpec
from power_agent.row_format import row_struct
from power_agent.sampler_client import SamplerClient
from power_agent.spool import SpoolReader

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "simulators"))
import powercap_tree

C_LOOP = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
int main(int argc, char **argv) {
    if (argc != 3) return 2;
    long long period = atoll(argv[1]), ticks = atoll(argv[2]), start = now();
    prctl(PR_SET_TIMERSLACK, 1UL);
    for (long long tick = 0; tick < ticks;) {
        long long deadline = start + tick * period, late = now() - deadline;
        if (late < 0) {
            struct timespec t = {deadline / 1000000000LL, deadline % 1000000000LL};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
            late = now() - deadline;
        }
        printf("%lld\n", late % period);
        tick += late / period + 1;
    }
    return 0;
}
"""
PYTHON_LOOP = """
import ctypes, sys, time
period, ticks = int(sys.argv[1]), int(sys.argv[2])
ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)
lateness = []
start = time.monotonic_ns()
tick = 0
while tick < ticks:
    left = start + tick * period - time.monotonic_ns()
    if left > 0:
        time.sleep(left / 1e9)
    late = time.monotonic_ns() - start - tick * period
    lateness.append(late % period)
    tick += late // period + 1
print(*lateness, sep="\\n")
"""


def report(name: str, late_ns: npt.NDArray[np.int64], missed: int, cpu_percent: float | None) -> None:
    """Print one line."""
    p50, p99 = np.percentile(late_ns, [50, 99]) / 1000
    cpu = "" if cpu_percent is None else f"  {cpu_percent:5.2f} % of a core"
    print(f"{name:<18} late p50 {p50:7.1f} µs  p99 {p99:7.1f} µs  missed {missed}{cpu}", flush=True)


def sample(directory: Path, hz: float, seconds: float) -> None:
    """Run the sampler and print its ledger."""
    powercap_tree.PowercapTree(directory / "root").add("intel-rapl:0", "package-0")
    spec = SamplerSpec(
        spool=str(directory / "spool.db"),
        host="bench",
        drivers=["rapl"],
        rates_hz={"rapl": hz},
        root=str(directory / "root"),
    )
    client, _ = SamplerClient.start(spec, directory)
    reader = SpoolReader(directory / "spool.db")
    meta = reader.meta()
    before_ns, begin_ns = cpu_ns(int(meta["pid"])), time.monotonic_ns()
    time.sleep(seconds)
    used_ns, passed_ns = cpu_ns(int(meta["pid"])) - before_ns, time.monotonic_ns() - begin_ns
    client.stop(10)
    meta = reader.meta()
    (stream,) = reader.streams()
    (count,) = reader.ticks()
    unpack = row_struct(stream.channels).iter_unpack
    began_ns = [row[0] - row[1] // 2 for _, packed in reader.batches(stream.id) for row in unpack(packed)]
    reader.close()
    total = count.taken + count.late + count.missed
    print(f"due {count.due} = taken {count.taken} + late {count.late} + missed {count.missed}", end="")
    print(f" ({'exactly' if total == count.due else f'NOT: {total}'}), extra {count.extra}, rows {len(began_ns)}")
    print(json.dumps({"late_by_less_than_us": {2**k: n for k, n in enumerate(count.lateness_log2_us) if n}}))
    period_ns = round(1e9 / stream.rate_hz)
    late_ns = (np.array(began_ns, dtype=np.int64) - int(meta["first_tick_ns"])) % period_ns
    report("sampler", late_ns, count.missed, 100 * used_ns / passed_ns)


def empty_loop(name: str, command: list[str], hz: float, seconds: float) -> None:
    """Run a loop that only sleeps, and print its lateness."""
    ticks = round(hz * seconds)
    output = subprocess.run([*command, str(round(1e9 / hz)), str(ticks)], stdout=subprocess.PIPE, check=True).stdout
    late_ns = np.array(output.split(), dtype=np.int64)
    report(name, late_ns, ticks - len(late_ns), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--hz", type=float, default=1000.0)
    options = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        directory = Path(name)
        sample(directory, options.hz, options.seconds)
        compiler = shutil.which("gcc")
        if compiler:
            (directory / "loop.c").write_text(C_LOOP)
            subprocess.run([compiler, "-O2", "-o", str(directory / "loop"), str(directory / "loop.c")], check=True)
            empty_loop("empty loop, C", [str(directory / "loop")], options.hz, options.seconds)
        empty_loop("empty loop, Python", [sys.executable, "-c", PYTHON_LOOP], options.hz, options.seconds)


if __name__ == "__main__":
    main()
