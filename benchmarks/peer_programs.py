"""Energies by the code of zeus and codecarbon, on simulated devices in simulated time.

Runs in an interpreter that has both: `PYTHON benchmarks/peer_programs.py DEVICE --traces N` prints, as JSON, for each
place of a phase and each method, joules per trace and length. Their own code reads the device through the real pynvml
from a simulated libnvidia-ml.so.1 (tests/simulators/nvml_stub.py), or from a file as the kernel's powercap writes it.
What is not theirs: the clock, which jumps from one of their reads to the next, and codecarbon's timers, whose schedule
is kept (power every second, energy every --interval seconds and at the end). zeus's poller runs as fast as it can
and keeps each new value, so its samples are the device's updates.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import io
import json
import os
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "simulators")]

import numpy as np  # noqa: E402
import nvml_stub  # noqa: E402
from simulated_work import DEVICES, LENGTHS_S, PLACES, Work, make_work  # noqa: E402

NOT_SUPPORTED = 3  # nvmlReturn
JOULES_PER_KWH = 3.6e6


class SimulatedGpu:
    """The GPU behind NVML, at an instant of simulated time."""

    def __init__(self, folder: Path, has_counter: bool) -> None:
        config = folder / "gpus"
        returns = {} if has_counter else {"energy": NOT_SUPPORTED}
        nvml_stub.StubConfig(gpus=[nvml_stub.StubGpu(returns=returns)], reload_ms=1e9).write(config)
        os.environ[nvml_stub.CONFIG_VARIABLE] = str(config)
        library = nvml_stub.load(nvml_stub.build(folder))
        self._say = library.nvmlStubSay
        self._say.argtypes = [ctypes.c_double, ctypes.c_double]
        self._say.restype = None
        self.now_s = 0.0

    def move_to(self, now_s: float, raw: float) -> None:
        """The instant, and what the device shows then: milliwatts or millijoules."""
        self.now_s = now_s
        self._say(raw, raw)


def zeus_window(gpu: SimulatedGpu) -> Callable[[Work, int], float]:
    """ZeusMonitor.begin_window and end_window, which read the energy counter."""
    import zeus.monitor.energy

    zeus.monitor.energy.time = lambda: gpu.now_s  # type: ignore[attr-defined]
    monitor = zeus.monitor.energy.ZeusMonitor(gpu_indices=[0], cpu_indices=[])

    def joules(work: Work, phase: int) -> float:
        edges = np.array([work.begin_s[phase], work.end_s[phase]])
        first, last = (float(raw) for raw in work.sensor.at(edges))
        gpu.move_to(float(edges[0]), first)
        monitor.begin_window("phase", sync_execution=False)
        gpu.move_to(float(edges[1]), last)
        return float(monitor.end_window("phase", sync_execution=False).gpu_energy[0])

    return joules


def zeus_polling(_: SimulatedGpu) -> Callable[[Work, int], float]:
    """PowerMonitor.get_energy, which is how zeus gets energy where there is no counter."""
    from zeus.monitor.power import PowerDomain, PowerMonitor, PowerSample

    domain = PowerDomain.DEVICE_INSTANT
    monitor = object.__new__(PowerMonitor)  # without its processes, which poll in real time
    monitor.gpu_indices, monitor.measurement_domains, monitor.data_queues = [0], [domain], {}

    def joules(work: Work, phase: int) -> float:
        updates = work.sensor.updates_s
        first, last = np.searchsorted(updates, [work.begin_s[phase] - 1.0, work.end_s[phase] + 1.0])
        at = updates[first:last]
        raw = work.sensor.at(at)
        new = np.concatenate(([True], raw[1:] != raw[:-1]))
        samples = [PowerSample(t, 0, mw) for t, mw in zip(at[new].tolist(), raw[new].tolist(), strict=True)]
        monitor.samples = {domain: {0: deque(samples)}}
        energy = monitor.get_energy(float(work.begin_s[phase]), float(work.end_s[phase]))
        return float(energy[0]) if energy is not None else 0.0

    return joules


def schedule(begin_s: float, end_s: float, interval_s: float) -> list[tuple[float, bool]]:
    """Instants at which codecarbon looks, and whether it takes the energy there: its timers, then stop()."""
    looks = [(begin_s + k, False) for k in range(1, int(end_s - begin_s) + 1) if begin_s + k < end_s]
    takes = [(begin_s + k * interval_s, True) for k in range(1, int((end_s - begin_s) / interval_s) + 1)]
    return sorted([*looks, *(take for take in takes if take[0] < end_s), (end_s, True)])


def codecarbon_gpu(gpu: SimulatedGpu, interval_s: float) -> Callable[[Work, int], float]:
    """codecarbon's GPU class under the schedule of its tracker."""
    import pynvml
    from codecarbon.core.gpu_nvidia import NvidiaGPUDevice
    from codecarbon.core.units import Time

    pynvml.nvmlInit()
    device = NvidiaGPUDevice(pynvml.nvmlDeviceGetHandleByIndex(0), 0)

    def joules(work: Work, phase: int) -> float:
        begin_s = float(work.begin_s[phase])
        plan = schedule(begin_s, float(work.end_s[phase]), interval_s)
        shown = work.sensor.at(np.array([begin_s, *(t for t, _ in plan)])).tolist()
        gpu.move_to(begin_s, shown[0])
        device.start()
        taken_s, total = begin_s, 0.0
        for (t, takes), raw in zip(plan, shown[1:], strict=True):
            gpu.move_to(t, raw)
            if takes:
                total += device.delta(Time.from_seconds(t - taken_s))["delta_energy_consumption"].kWh
                taken_s = t
            else:
                device.sample_power()
        return float(total * JOULES_PER_KWH)

    return joules


def codecarbon_rapl(folder: Path, joules_per_count: float, modulus: int) -> Callable[[Work, int], float]:
    """codecarbon's RAPL class under the schedule of its tracker."""
    from codecarbon.core.rapl import RAPLFile
    from codecarbon.core.units import Time

    path, limit = folder / "energy_uj", folder / "max_energy_range_uj"
    path.write_text("0")
    limit.write_text(str(int((modulus - 1) * joules_per_count * 1e6)))
    domain = RAPLFile("package-0", str(path), str(limit))

    def joules(work: Work, phase: int) -> float:
        begin_s = float(work.begin_s[phase])
        plan = [t for t, takes in schedule(begin_s, float(work.end_s[phase]), 15.0) if takes]
        shown = work.sensor.at(np.array([begin_s, *plan])).tolist()
        path.write_text(str(int(shown[0] * joules_per_count * 1e6)))
        domain.start()
        taken_s, total = begin_s, 0.0
        for t, raw in zip(plan, shown[1:], strict=True):
            path.write_text(str(int(raw * joules_per_count * 1e6)))
            domain.delta(Time.from_seconds(t - taken_s))
            taken_s = t
            total += domain.energy_delta.kWh
        return float(total * JOULES_PER_KWH)

    return joules


def methods_for(name: str, folder: Path) -> dict[str, Callable[[Work, int], float]]:
    """What each peer does with this kind of device, by the key of the method."""
    device = DEVICES[name]
    if name == "rapl":
        return {"codecarbon": codecarbon_rapl(folder, device.quantum, device.modulus or 0)}
    gpu = SimulatedGpu(folder, has_counter=name == "gpu-counter")
    if name == "gpu-counter":
        return {"zeus": zeus_window(gpu), "codecarbon": codecarbon_gpu(gpu, 15.0)}
    found: dict[str, Callable[[Work, int], float]] = {}
    if name != "h100-average":  # zeus takes the instant channel where there is one
        found["zeus-polled"] = zeus_polling(gpu)
    if name != "h100-instant":  # the call that codecarbon makes gives the average there
        found |= {"codecarbon-power": codecarbon_gpu(gpu, 15.0), "codecarbon-1s": codecarbon_gpu(gpu, 1.0)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("device", choices=list(DEVICES))
    parser.add_argument("--traces", type=int, default=10)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    warnings.simplefilter("ignore")  # zeus warns of windows of 0 J; that they are 0 J is in the figures
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        methods = methods_for(arguments.device, Path(folder))
        for place in PLACES:
            rows: dict[str, list[list[float]]] = {key: [] for key in ("true", *methods)}
            for number in range(arguments.traces):
                work = make_work(DEVICES[arguments.device], place, number)
                rows["true"].append(work.by_length(work.true_joules).tolist())
                for key, joules in methods.items():
                    energies = np.array([joules(work, phase) for phase in range(len(LENGTHS_S))])
                    rows[key].append(work.by_length(energies).tolist())
            found[place] = rows
    print(json.dumps(found))


if __name__ == "__main__":
    main()
