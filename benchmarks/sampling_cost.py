"""What sampling costs: CPU time, memory, and the slowdown of a workload beside it.

Devices. 8 simulated GPUs behind a real libnvidia-ml.so.1 (tests/simulators/nvml_stub.py), whose calls cost only what
the bindings cost; 4 RAPL domains in a folder laid out as the kernel's (tests/simulators/powercap_tree.py); this host.
Real NVML calls enter the kernel and take longer, for every tool alike.

Cost. The sampler runs for --seconds at each rate (power and RAPL groups at that rate, the others at their own). CPU
time is the process's CPU clock between two instants after it was ready, as a share of one core;
memory is its resident size at the end. Beside it, what a Python loop at that rate costs which does nothing: waking up
is most of the price, it differs much between machines, and the sampler pays it too.

Peers. With --peers-python PYTHON, an interpreter that has codecarbon or zeus, those read the same 8 GPUs at the same
rate (nothing else: their RAPL paths cannot be moved), and so does our sampler with its driver `nvml` alone; the CPU
time of all processes that a tool starts counts. codecarbon also estimates the CPU's power from its load, which cannot
be switched off.

Slowdown. One CPU-bound loop on an otherwise idle machine; then one on every core, so that the sampler has to take its
time from them. One of the loops times itself over rounds of about a quarter second, in turn with the sampler stopped
(A) and running (B), A B A B …, by SIGSTOP and SIGCONT to one and the same sampler. Printed is the median of the
ratios B/A of neighbours, minus 1, with its standard error (of a median, from the median absolute deviation): a shared
machine drifts by more than a sampler costs, but not within half a second.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from process_cost import cpu_ns, family, rss_bytes

from power_agent.messages import SamplerSpec
from power_agent.sampler_client import SamplerClient
from power_agent.spool import SpoolReader

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "simulators"))
import nvml_stub
import powercap_tree

GPUS = 8
CODECARBON = """
import sys, time
from codecarbon import OfflineEmissionsTracker
tracker = OfflineEmissionsTracker(
    country_iso_code="USA", measure_power_secs=1 / float(sys.argv[1]), save_to_file=False, log_level="critical",
    allow_multiple_runs=True)
tracker.start()
print("ready", flush=True)
time.sleep(3600)
"""
ZEUS = """
import sys, time
from zeus.monitor.power import PowerMonitor
if __name__ == "__main__":
    monitor = PowerMonitor(update_period=1 / float(sys.argv[1]))
    print("ready", flush=True)
    time.sleep(3600)
"""
EMPTY = """
import ctypes, sys, time
ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)
print("ready", flush=True)
start, tick = time.monotonic(), 0
while True:
    tick += 1
    time.sleep(max(0.0, start + tick / float(sys.argv[1]) - time.monotonic()))
"""
BURN = "while True: pass"
PAIRS = """
import os, signal, sys, time
pid, pairs = int(sys.argv[1]), int(sys.argv[2])
def work(rounds):
    total = 0
    begin = time.perf_counter()
    for number in range(rounds):
        total += number * number
    return time.perf_counter() - begin
rounds = int(1_000_000 * 0.25 / work(1_000_000))
for _ in range(pairs):
    os.kill(pid, signal.SIGSTOP)
    alone = work(rounds)
    os.kill(pid, signal.SIGCONT)
    print(work(rounds) / alone - 1)
"""


def make_root(directory: Path) -> Path:
    """A root with 4 RAPL domains and this host's own /proc and disks."""
    root = directory / "root"
    tree = powercap_tree.PowercapTree(root)
    for package in (0, 1):
        tree.add(f"intel-rapl:{package}", f"package-{package}")
        tree.add(f"intel-rapl:{package}:0", "dram")
    (root / "proc").symlink_to("/proc")
    (root / "sys/devices/system").symlink_to("/sys/devices/system")
    return root


class Bench:
    """Starts samplers and other tools against the same simulated devices."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = make_root(directory)
        config = directory / "stub.conf"
        # The file is looked at once a second, so that this costs none of the tools anything.
        nvml_stub.StubConfig(gpus=[nvml_stub.StubGpu(waveform="square") for _ in range(GPUS)], reload_ms=1000).write(
            config
        )
        os.environ.update(nvml_stub.environment(nvml_stub.build(directory), config))
        # codecarbon looks for GPUs only where this program runs.
        (directory / "bin").mkdir()
        (directory / "bin/nvidia-smi").write_text("#!/bin/sh\n")
        (directory / "bin/nvidia-smi").chmod(0o755)
        os.environ["PATH"] = f"{directory / 'bin'}:{os.environ['PATH']}"
        self._runs = 0

    @contextmanager
    def sampler(self, hz: float, drivers: list[str]) -> Iterator[int]:
        """A sampler at that rate; gives its process id."""
        self._runs += 1
        directory = self.directory / f"run{self._runs}"
        directory.mkdir()
        spec = SamplerSpec(
            spool=str(directory / "spool.db"),
            host="bench",
            drivers=drivers,
            rates_hz={"nvml.power": hz, "rapl": hz},
            root=str(self.root),
        )
        client, ready = SamplerClient.start(spec, directory)
        for state in ready.drivers:
            if not state.usable:
                raise SystemExit(f"driver {state.driver} cannot be used: {state.reason}")
        reader = SpoolReader(directory / "spool.db")
        yield int(reader.meta()["pid"])
        reader.close()
        client.stop(10)

    @contextmanager
    def peer(self, python: str, program: str, hz: float) -> Iterator[int]:
        """Another tool at that rate; gives its process id."""
        script = self.directory / "peer.py"
        script.write_text(program)
        log = (self.directory / "peer.log").open("wb")
        process = subprocess.Popen([python, str(script), str(hz)], stdout=subprocess.PIPE, stderr=log, cwd="/tmp")
        assert process.stdout is not None
        while (line := process.stdout.readline()) and line != b"ready\n":
            pass
        if not line:
            raise RuntimeError((self.directory / "peer.log").read_text()[-500:])
        try:
            yield process.pid
        finally:
            for member in reversed(family(process.pid)):
                os.kill(member, signal.SIGKILL)
            process.wait()
            log.close()


def cost(pid: int, seconds: float) -> tuple[float, float]:
    """CPU use in percent of one core over the next seconds, and resident memory in MB afterwards."""
    time.sleep(1.0)  # what starting costs is not what running costs
    before_ns, begin_ns = cpu_ns(pid), time.monotonic_ns()
    time.sleep(seconds)
    used_ns, passed_ns = cpu_ns(pid) - before_ns, time.monotonic_ns() - begin_ns
    return 100 * used_ns / passed_ns, rss_bytes(pid) / 1e6


def slowdown(bench: Bench, hz: float, pairs: int, others: int) -> None:
    """Print how much longer the work takes beside a sampler, and beside this many other loops."""
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(others)]
    try:
        with bench.sampler(hz, ["nvml", "rapl", "host"]) as pid:
            command = [sys.executable, "-c", PAIRS, str(pid), str(pairs)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    ratios = [100 * float(line) for line in out.split()]
    middle = statistics.median(ratios)
    error = 1.2533 * 1.4826 * statistics.median(abs(r - middle) for r in ratios) / len(ratios) ** 0.5
    text = f"slower by {middle:+.2f} ± {error:.2f} % (median of {pairs} pairs)"
    print(f"{hz:6.0f} Hz  {others + 1} of {os.cpu_count()} cores busy: {text}", flush=True)


def compare(bench: Bench, python: str, hz: float, seconds: float) -> None:
    """Print the CPU use of our GPU sampling and of the peers' that are installed."""
    with bench.sampler(hz, ["nvml"]) as pid:
        ours, rss = cost(pid, seconds)
    print(f"{hz:6.0f} Hz  GPUs only: this sampler  {ours:7.2f} % of a core  {rss:6.1f} MB", flush=True)
    for name, program in (("codecarbon", CODECARBON), ("zeus", ZEUS)):
        if subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False).returncode:
            print(f"{hz:6.0f} Hz  GPUs only: {name} is not installed for {python}")
            continue
        with bench.peer(python, program, hz) as pid:
            theirs, rss = cost(pid, seconds)
        text = f"{theirs:7.2f} % of a core  {rss:6.1f} MB  {theirs / ours:6.1f} × ours"
        print(f"{hz:6.0f} Hz  GPUs only: {name:<12}  {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each measurement of cost")
    parser.add_argument("--rates", type=float, nargs="+", default=[10.0, 100.0], metavar="HZ")
    parser.add_argument("--pairs", type=int, default=120, help="rounds A and B; 0 leaves the slowdown out")
    parser.add_argument("--peers-python", default=sys.executable, help="a Python that has codecarbon or zeus")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        for hz in options.rates:
            with bench.sampler(hz, ["nvml", "rapl", "host"]) as pid:
                cpu, rss = cost(pid, options.seconds)
            with bench.peer(sys.executable, EMPTY, hz) as pid:
                empty, _ = cost(pid, options.seconds)
            text = f"{cpu:.2f} % of a core, {rss:.1f} MB; one empty loop: {empty:.2f} %"
            print(f"{hz:6.0f} Hz  {GPUS} GPUs, 4 RAPL domains, host: {text}", flush=True)
        for hz in options.rates:
            compare(bench, options.peers_python, hz, options.seconds)
        for others in (0, (os.cpu_count() or 1) - 1):
            for hz in options.rates if options.pairs else []:
                slowdown(bench, hz, options.pairs, others)


if __name__ == "__main__":
    main()
