"""Is the true energy within ±U, and is U not padded? Simulated devices, known power, random phases.

Method. A load's power is known in closed form, and so is its integral. A simulated device publishes, at its own
jittered updates, the mean over its window (or steps its counter), times a gain drawn from its stated accuracy; we poll
it at a jittered rate, as the sampler would, and hand the readings to the same code that handles a real session. For
each phase the error against the closed-form energy is compared with U (k = 2).

Printed per device: share of phases with |error| ≤ U (must be ≥ 95 %), the median of |error|/U (must lie in
0.2 … 0.7), and the median of |error|/E beside that of two common ways to integrate: mean of the inside samples × T,
and Σ P·Δt over the inside samples.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from simulated_devices import DEVICES, LOADS, TRACE_S, Device, Floats, Sensor, make_load, poll_instants

from director.energy.align import align
from director.energy.channel_timing import timing_of
from director.energy.interval_energy import interval_energies
from director.session.trace_store import Piece
from drivers.contract import Channel


def polled(sensor: Sensor, at_s: Floats) -> Piece:
    """The rows that a sampler would write of reads at these instants."""
    t_ns = np.round(at_s * 1e9).astype(np.int64)
    return Piece(t_ns, np.full(len(t_ns), 20_000), [sensor.at(at_s)], [np.zeros(len(t_ns), dtype=np.uint8)])


def naive(piece: Piece, channel: Channel, begin_ns: Floats, end_ns: Floats) -> tuple[Floats, Floats]:
    """Mean of inside samples × T, and Σ P·Δt of inside samples: what common tools do. Gauges only."""
    watts = piece.values[0] * channel.scale
    total = np.concatenate(([0.0], np.cumsum(watts)))
    area = np.concatenate(([0.0, 0.0], np.cumsum(watts[1:] * np.diff(piece.t_ns) * 1e-9)))
    i, j = np.searchsorted(piece.t_ns, begin_ns), np.searchsorted(piece.t_ns, end_ns)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(j > i, (total[j] - total[i]) / (j - i) * (end_ns - begin_ns) * 1e-9, 0.0)
    rectangles = np.where(j > i, area[j] - area[np.minimum(i + 1, len(area) - 1)], 0.0)
    return mean, rectangles


def measure(device: Device, number: int, phases: int, per_trace: int, seed: int) -> dict[str, Any]:
    """Figures of random phases on one device, `number` of the list."""
    rng = np.random.default_rng([seed, number])
    ratio, relative, peers, kinds, lengths = [], [], [], [], []
    for trace in range(-(-phases // per_trace)):
        length = np.minimum(10 ** rng.uniform(np.log10(0.05), np.log10(600.0), per_trace), 600.0)
        begin = rng.uniform(5.0, TRACE_S - 5.0 - length)
        kind = LOADS[trace % len(LOADS)]
        load = make_load(kind, rng, (float(begin[0]), float(begin[0] + length[0])))
        update_s = rng.uniform(*device.update_s)
        gain = 1.0 + rng.uniform(-device.gain, device.gain)
        channel = device.channel(update_s)
        timing = timing_of(channel, device.rate_hz)
        sensor = Sensor(device, update_s, load, gain, rng, TRACE_S)
        piece = polled(sensor, poll_instants(sensor, device.rate_hz, TRACE_S, rng))
        begin_ns, end_ns = np.round(begin * 1e9), np.round((begin + length) * 1e9)
        edges = np.unique(np.concatenate((begin_ns, end_ns))).astype(np.int64)
        aligned = align(channel, timing, [piece], edges, 0)
        i, j = np.searchsorted(edges, begin_ns), np.searchsorted(edges, end_ns)
        found = interval_energies(channel, timing, aligned, i, j, np.zeros(per_trace))
        truth = load.energy(end_ns * 1e-9) - load.energy(begin_ns * 1e-9)
        error = np.abs(found.joules - truth)
        assert np.isfinite(error).all(), (device.name, kind)
        ratio.append(error / found.expanded_joules)
        relative.append(error / truth)
        kinds += [kind] * per_trace
        lengths.append(length)
        if device.kind == "gauge":
            peers.append([np.abs(x - truth) / truth for x in naive(piece, channel, begin_ns, end_ns)])
    r, e, t, k = np.concatenate(ratio), np.concatenate(relative), np.concatenate(lengths), np.array(kinds)
    other = np.concatenate([np.stack(p) for p in peers], axis=1) if peers else None
    return {
        "device": device.name,
        "phases": len(r),
        "within_U": float((r <= 1).mean()),
        "median_error_over_U": float(np.median(r)),
        "median_error": float(np.median(e)),
        "median_error_mean_x_T": float(np.median(other[0])) if other is not None else None,
        "median_error_sum_P_dt": float(np.median(other[1])) if other is not None else None,
        "within_U_by_load": {x: float((r[k == x] <= 1).mean()) for x in LOADS},
        "within_U_by_length": {
            f"{a:g}-{b:g} s": float((r[(t >= a) & (t <= b)] <= 1).mean())
            for a, b in ((0.05, 0.5), (0.5, 5), (5, 50), (50, 600))
        },
    }


def run(phases: int, per_trace: int, seed: int, only: str | None = None) -> list[dict[str, Any]]:
    """Measure `phases` random phases on each device, on all cores; one row of figures per device."""
    chosen = [(device, number) for number, device in enumerate(DEVICES) if not only or only in device.name]
    with ProcessPoolExecutor() as pool:
        work = [pool.submit(measure, device, number, phases, per_trace, seed) for device, number in chosen]
        return [rows.result() for rows in work]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phases", type=int, default=4000, help="random phases per device")
    parser.add_argument("--per-trace", type=int, default=5, help="phases that share one trace and its gain")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", help="only devices whose name holds this")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    rows = run(arguments.phases, arguments.per_trace, arguments.seed, arguments.device)
    print(f"{'device':26} {'phases':>6} {'within ±U':>9} {'|err|/U':>8} {'|err|/E':>8} {'mean×T':>8} {'ΣPΔt':>8}")
    for row in rows:
        cells = [row["median_error"], row["median_error_mean_x_T"], row["median_error_sum_P_dt"]]
        text = " ".join(f"{x:8.2%}" if x is not None else f"{'–':>8}" for x in cells)
        print(f"{row['device']:26} {row['phases']:6} {row['within_U']:9.1%} {row['median_error_over_U']:8.2f} {text}")
        for title, shares in (("load", row["within_U_by_load"]), ("length", row["within_U_by_length"])):
            print(f"    by {title:7}" + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
