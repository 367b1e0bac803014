"""PowerSensor3 at 20 000 samples a second: what reading it costs, and whether a sample is lost.

Device. A simulated one behind a real pty (tests/simulators/powersensor3_device.py), in a process of its own, with four
pairs of sensors and a clock that runs 80 ppm fast: 360 kB/s, the most that the device sends. A real one comes over USB,
whose transfers cost the kernel, not the sampler. The line holds as little as the kernel does of a terminal on USB:
6 KiB, 17 ms. The device runs at real-time priority where that is allowed, as a real one has its own processor.

Cost. The real sampler, with this driver alone and its spool on disk, for --seconds at 1000 rows a second (its default),
at 100 and at 20 000: CPU time of the process between two instants after it was ready, as a share of one core. The bound
is 15 %, at the default. Beside it, what a loop costs that only reads the bytes, 250 times a second, and throws them
away.

Load. The default once more while as many processes spin as there are cores, and while twice as many do.

Loss. Samples that the device made against those of valid rows; the first may wait in the line when the stream begins,
and less than a row at the end. Energy of all rails by the spool's counters, over the time between its first and last
row, against the mean power of the load, which is known in closed form; both ends lie somewhere within 10 ms of it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from process_cost import cpu_ns, rss_bytes

from power_agent.messages import SamplerSpec
from power_agent.row_format import row_struct
from power_agent.sampler_client import SamplerClient
from power_agent.spool import SpoolReader

SIMULATOR = Path(__file__).resolve().parents[1] / "tests/simulators/powersensor3_device.py"
BOUND_PERCENT = 15.0
DRIFT_PPM = 80
SAMPLES_HZ = 20_000


class Simulator:
    """The device in a process of its own."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SIMULATOR), str(path), str(DRIFT_PPM), "usb"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def stop(self) -> tuple[int, int, float]:
        """Samples made, bytes that the line did not take, mean power of all rails in W."""
        made, overrun, watts = self._process.communicate()[0].split()
        return int(made), int(overrun), float(watts)


@contextmanager
def spinning(count: int) -> Iterator[None]:
    """So many processes that want a core each."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def sample(directory: Path, rows_hz: int, seconds: float, load: int = 0) -> float:
    """Print cost, loss and energy of one run; return the cost in percent of a core. `load`: processes that spin."""
    directory.mkdir()
    path = directory / "ttyACM0"
    simulator = Simulator(path)
    settings = {"port": str(path), "scope": "gpu", "rows_hz": str(rows_hz)}
    spool = directory / "spool.db"
    spec = SamplerSpec(spool=str(spool), host="bench", drivers=["powersensor3"], settings={"powersensor3": settings})
    client, ready = SamplerClient.start(spec, directory)
    for state in ready.drivers:
        if not state.usable:
            raise SystemExit(f"driver {state.driver} cannot be used: {state.reason}")
    reader = SpoolReader(spool)
    pid = int(reader.meta()["pid"])
    time.sleep(1.0)
    with spinning(load):
        before_ns, begin_ns = cpu_ns(pid), time.monotonic_ns()
        time.sleep(seconds)
        percent = 100 * (cpu_ns(pid) - before_ns) / (time.monotonic_ns() - begin_ns)
    megabytes = rss_bytes(pid) / 1e6
    client.stop(10)
    made, overrun, watts = simulator.stop()
    (stream,) = reader.streams()
    unpack = row_struct(stream.channels).iter_unpack
    rows = [row for _, payload in reader.batches(stream.id) for row in unpack(payload)]
    reader.close()
    spoiled = sum(any(row[-1]) for row in rows)
    lost = made - (len(rows) - spoiled) * SAMPLES_HZ // rows_hz
    joules = (rows[-1][-2] - rows[0][-2]) * 1e-6
    error = 100 * (joules / ((rows[-1][0] - rows[0][0]) * 1e-9) / watts - 1)
    beside = f", {load} processes spinning" if load else ""
    print(
        f"{rows_hz:5} rows/s{beside}: {percent:5.2f} % of a core = {percent / BOUND_PERCENT:.2f} × the bound of "
        f"{BOUND_PERCENT:g} %, {megabytes:.0f} MB\n"
        f"  {made} samples made, {lost} not in valid rows, {overrun} bytes that the line did not take, {spoiled} rows "
        f"not valid; energy " + (f"off by {error:+.4f} %" if not spoiled else "broken off"),
        flush=True,
    )
    return percent


def read_only(directory: Path, seconds: float) -> float:
    """Percent of a core that reading the bytes costs, 250 times a second."""
    directory.mkdir()
    path = directory / "ttyACM0"
    simulator = Simulator(path)
    line = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)
    tty.setraw(line)
    os.write(line, b"S")
    begin, before = time.monotonic(), time.process_time()
    tick = 0
    while time.monotonic() - begin < seconds:
        tick += 1
        time.sleep(max(0.0, begin + tick / 250 - time.monotonic()))
        try:
            while os.read(line, 4096):
                pass
        except BlockingIOError:
            continue
    percent = 100 * (time.process_time() - before) / (time.monotonic() - begin)
    os.close(line)
    simulator.stop()
    return percent


def main() -> int:
    """Run all; 1 if the bound was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        costs = [sample(Path(folder) / str(hz), hz, arguments.seconds) for hz in (1000, 100)]
        sample(Path(folder) / "20000", 20_000, arguments.seconds)
        for cores in (1, 2):
            load = cores * (os.cpu_count() or 1)
            sample(Path(folder) / f"load-{cores}", 1000, arguments.seconds, load)
        least = read_only(Path(folder) / "read", arguments.seconds / 4)
    print(f"reading the bytes alone: {least:.2f} % of a core")
    return int(max(costs) > BOUND_PERCENT)


if __name__ == "__main__":
    sys.exit(main())
