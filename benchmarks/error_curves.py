"""How wrong is an energy, by length of the phase, kind of device and method? Ours, common ones and the peers'.

Method. Works of 50 ms to 600 s between idle times on simulated devices of known truth (simulated_work.py); the phase to
measure is a whole work, or lies within one that goes on. Each method reads the same devices: ours polls at the default
rate and goes through the code that handles a session; zeus's and codecarbon's own code runs where --peers-python
names an interpreter that has them (peer_programs.py); the rest are rules of a line or two, written down here. Printed
per device are the median and the 95th percentile of |error|/E. The gain of a device is off by up to its stated limits
(±5 %, the wall meter ±0.25 %), for all methods alike, so no method can come below about half of that in the median.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from simulated_devices import Device, Floats, poll_instants
from simulated_work import DEVICES, LENGTHS_S, PLACES, Work, make_work
from truth import polled

from director.energy.component_energy import Intervals, Source, component_energy
from director.energy.components import Component

PEERS = Path(__file__).with_name("peer_programs.py")
LOOP_HZ = 1.0  # of nvidia-smi -l 1, and the rate at which MLPerf's rules want a meter read
TITLES = {
    "v100": "V100: power, 10 ms of every 20 ms",
    "a100": "A100: power, 25 ms of every 101 ms",
    "h100-instant": "H100: instant power, 25 ms of every 100 ms",
    "h100-average": "H100: average power, the last second, every 100 ms",
    "wall-meter": "Wall meter: power, the last second, every second",
    "rapl": "RAPL: energy counter, steps of 1 ms, wraps at 262 kJ",
    "gpu-counter": "GPU: energy counter, steps of 20 to 100 ms",
}
METHODS = {
    "counter": "ours, counter",
    "integrated": "ours, integrated",
    "padded": "ours, padded",
    "zeus": "zeus",
    "zeus-polled": "zeus, polling for want of a counter",
    "codecarbon": "codecarbon",
    "codecarbon-power": "codecarbon, for want of a counter",
    "codecarbon-1s": "the same, energy taken every second",
    "sum": "Σ P·Δt, at our rate",
    "smi": "nvidia-smi -l 1: Σ P·1 s",
    "inference": "MLPerf Inference's rule: mean × T, 1 Hz",
    "training": "MLPerf Training's rule: Σ Pᵢ(tᵢ−tᵢ₋₁), 1 Hz",
    "edges": "zeus's rule: two reads, wraps counted",
    "two-reads": "two reads, wraps unseen",
}
OURS = ("counter", "integrated", "padded")


def ours(device: Device, work: Work, at_s: Floats) -> dict[str, Floats]:
    """Joules of each of our methods, NaN where it does not apply, and of the one believed, with its U."""
    channel = device.channel(work.update_s)
    piece = polled(work.sensor, at_s)
    begin_ns, end_ns = (np.round(t * 1e9).astype(np.int64) for t in (work.begin_s, work.end_s))
    idle = [(round(a * 1e9), round(b * 1e9)) for a, b in work.idle_s]
    energy = component_energy(
        Component("sim", "sim", channel.scope, [channel]),
        [Source(channel, device.rate_hz, lambda: [piece])],
        Intervals(begin_ns, end_ns, np.zeros(len(begin_ns)), idle),
        0,
    )
    found = {method.name: method.energies.joules for method in energy.methods}
    return found | {"reported": energy.energies.joules, "U": energy.energies.expanded_joules}


def inside(work: Work, at_s: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each phase, the first read within and the first after it."""
    return np.searchsorted(at_s, work.begin_s, side="right"), np.searchsorted(at_s, work.end_s, side="left")


def power_rules(device: Device, work: Work, at_s: Floats, key: str) -> Floats:
    """Joules by a rule that common tools apply to reads of power at these instants."""
    watts = work.sensor.at(at_s) * device.quantum
    i, j = inside(work, at_s)
    total = np.concatenate(([0.0], np.cumsum(watts)))
    n = np.maximum(j - i, 0)
    summed = np.where(n > 0, total[np.maximum(j, i)] - total[i], 0.0)
    if key in ("sum", "smi"):
        return summed / (device.rate_hz if key == "sum" else LOOP_HZ)
    if key == "inference":
        return summed / np.maximum(n, 1) * (work.end_s - work.begin_s)
    steps = np.concatenate(([0.0], watts[1:] * np.diff(at_s)))  # training: from each read to the one before it
    area = np.cumsum(steps)
    return np.where(n > 1, area[np.maximum(j - 1, 0)] - area[np.minimum(i, len(area) - 1)], 0.0)


def counter_rules(device: Device, work: Work, key: str) -> Floats:
    """Joules between two reads of a counter, at the phase's edges; `edges`: as if every wrap were seen."""
    read = work.sensor.count_at if key == "edges" else work.sensor.at
    joules: Floats = (read(work.end_s) - read(work.begin_s)) * device.quantum
    return joules


def rules_for(name: str) -> list[str]:
    """The methods that are neither ours nor a peer's code."""
    if name == "rapl":
        return ["edges", "two-reads"]
    if name == "gpu-counter":
        return []
    return ["sum", "inference", "training" if name == "wall-meter" else "smi"]


def measure(name: str, place: str, numbers: range) -> dict[str, list[Floats]]:
    """Joules per method of ours and of rules, and the truth, one row per trace and one column per length."""
    device = DEVICES[name]
    found: dict[str, list[Floats]] = {}
    for number in numbers:
        work = make_work(device, place, number)
        rng = np.random.default_rng([3, number])
        at_s = poll_instants(work.sensor, device.rate_hz, work.until_s, rng)
        loop_s = poll_instants(work.sensor, LOOP_HZ, work.until_s, rng)
        row = {"true": work.true_joules, **ours(device, work, at_s)}
        for key in rules_for(name):
            if device.kind == "counter":
                row[key] = counter_rules(device, work, key)
            else:
                row[key] = power_rules(device, work, at_s if key == "sum" else loop_s, key)
        for key, joules in row.items():
            found.setdefault(key, []).append(work.by_length(joules))
    return found


def peers(name: str, python: str, traces: int) -> dict[str, dict[str, list[list[float]]]]:
    """What peer_programs.py gives; empty for a device that no peer reads."""
    if name == "wall-meter":
        return {}
    command = [python, str(PEERS), name, "--traces", str(traces)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, dict[str, list[list[float]]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def rounded(values: Floats) -> list[float | None]:
    """To four figures; None: the method does not apply."""
    return [float(f"{value:.3e}") if np.isfinite(value) else None for value in values]


def figures(joules: dict[str, Floats]) -> dict[str, Any]:
    """Median and 95th percentile of |error|/E per length; the methods' and that of what is reported, with its U."""
    true = joules["true"]
    found: dict[str, Any] = {"methods": {}}
    for key in METHODS:
        if key not in joules:
            continue
        error = np.abs(joules[key] - true) / true
        applies = np.isfinite(error).all(axis=0)
        if applies.any():
            median, p95 = (np.where(applies, np.quantile(error, q, axis=0), np.nan) for q in (0.5, 0.95))
            found["methods"][key] = {"median": rounded(median), "p95": rounded(p95)}
    found["U"] = rounded(np.median(joules["U"] / true, axis=0))
    found["within_U"] = rounded((np.abs(joules["reported"] - true) <= joules["U"]).mean(axis=0))
    return found


def run(traces: int, peers_python: str | None, only: list[str]) -> dict[str, Any]:
    """All figures, as they are stored; `traces` phases of each length, place and device."""
    with ProcessPoolExecutor() as pool:
        theirs = {name: pool.submit(peers, name, peers_python, traces) for name in only if peers_python}
        mine = {(name, place): pool.submit(measure, name, place, range(traces)) for name in only for place in PLACES}
        devices: dict[str, Any] = {}
        for name in only:
            places = {}
            of_peers = theirs[name].result() if name in theirs else {}
            for place in PLACES:
                joules = {key: np.stack(rows) for key, rows in mine[name, place].result().items()}
                for key, rows in of_peers.get(place, {}).items():
                    if key == "true":
                        assert np.allclose(rows, joules["true"], rtol=1e-9), f"{name}: the peers saw another load"
                    else:
                        joules[key] = np.array(rows)
                places[place] = figures(joules)
            devices[name] = {"title": TITLES[name], "rate_hz": DEVICES[name].rate_hz, "places": places}
    return {"lengths_s": list(LENGTHS_S), "phases": traces, "devices": devices}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=100, help="phases of each length, place and device")
    parser.add_argument("--device", choices=list(DEVICES), action="append", help="only this one")
    parser.add_argument("--peers-python", help="a Python that has codecarbon and zeus; without it they are left out")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    found = run(arguments.traces, arguments.peers_python, arguments.device or list(DEVICES))
    for device in found["devices"].values():
        for place, shown in device["places"].items():
            print(f"{device['title']}; {place}; median and 95th percentile of |error|/E")
            print(f"{'phase of':44}" + "".join(f"{f'{s:g} s':>9}" for s in LENGTHS_S))
            print(f"{'our U':44}" + "".join(f"{u:9.2%}" for u in shown["U"]))
            print(f"{'within our U':44}" + "".join(f"{u:9.1%}" for u in shown["within_U"]))
            for key, method in shown["methods"].items():
                for which in ("median", "p95"):
                    cells = "".join(f"{v:9.2%}" if v is not None else f"{'–':>9}" for v in method[which])
                    print(f"{METHODS[key] if which == 'median' else '':44}{cells}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    if not arguments.peers_python:
        print("zeus and codecarbon: left out, for want of --peers-python", file=sys.stderr)


if __name__ == "__main__":
    main()
