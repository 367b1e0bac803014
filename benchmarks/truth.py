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
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from director.energy.align import align
from director.energy.channel_timing import timing_of
from director.energy.interval_energy import interval_energies
from director.session.trace_store import Piece
from drivers.contract import Accuracy, Channel

Floats = npt.NDArray[np.float64]
TRACE_S = 640.0
LOADS = ("step", "square", "sine", "ramp", "noise")


class Load:
    """Power over time, piecewise linear, or a sine; `energy(t)` is its exact integral from 0."""

    def __init__(self, kind: str, rng: np.random.Generator, phase: tuple[float, float]) -> None:
        self.kind = kind
        low, high = sorted(rng.uniform(60.0, 700.0, 2))
        t: npt.ArrayLike
        p: npt.ArrayLike
        self.low, self.high = low, high
        if kind == "sine":
            self.period = 10 ** rng.uniform(np.log10(0.2), np.log10(60.0))
            self.phase = rng.uniform(0, 2 * np.pi)
            return
        if kind == "step":  # half of them exactly at the phase's edges, as a workload's are
            if rng.random() < 0.5:
                a, b = phase
            else:
                a, b = sorted(rng.uniform(0.0, TRACE_S, 2))
            t = [-10.0, a, a, b, b, TRACE_S + 10.0]
            p = [low, low, high, high, low, low]
        elif kind == "ramp":
            length = 10 ** rng.uniform(-1, 2)
            a = rng.uniform(0.0, TRACE_S)
            t = [-10.0, a, a + length, max(a + length, TRACE_S) + 10.0]
            p = [low, low, high, high]
        elif kind == "square":
            period = 10 ** rng.uniform(np.log10(0.05), np.log10(20.0))
            duty = rng.uniform(0.1, 0.9)
            n = int((TRACE_S + 20.0) / period) + 2
            start = -10.0 - rng.uniform(0, period) + np.arange(n) * period
            t = np.stack([start, start + duty * period, start + duty * period, start + period], 1).ravel()
            p = np.tile([high, high, low, low], n)
        else:
            hold = 10 ** rng.uniform(-2, 0)
            n = int((TRACE_S + 20.0) / hold) + 2
            start = -10.0 + np.arange(n) * hold
            t = np.stack([start, start + hold], 1).ravel()
            p = np.repeat(rng.uniform(low, high, n), 2)
        self.t = np.asarray(t, dtype=float)
        self.p = np.asarray(p, dtype=float)
        self.e = np.concatenate(([0.0], np.cumsum(np.diff(self.t) * 0.5 * (self.p[1:] + self.p[:-1]))))

    def energy(self, t: Floats) -> Floats:
        """∫ P from a fixed instant to t, in joules."""
        if self.kind == "sine":
            mean, swing, w = (self.low + self.high) / 2, (self.high - self.low) / 2, 2 * np.pi / self.period
            wave: Floats = mean * t - swing / w * np.cos(w * t + self.phase)
            return wave
        i = np.clip(np.searchsorted(self.t, t, side="right") - 1, 0, len(self.t) - 2)
        dt = t - self.t[i]
        span = self.t[i + 1] - self.t[i]
        slope = np.where(span > 0, (self.p[i + 1] - self.p[i]) / np.where(span > 0, span, 1.0), 0.0)
        energy: Floats = self.e[i] + self.p[i] * dt + 0.5 * slope * dt * dt
        return energy


@dataclass(frozen=True)
class Device:
    """A simulated sensor. Times in seconds."""

    name: str
    kind: str
    update_s: tuple[float, float]  # nominal range that one instance's update period is drawn from
    jitter: float  # relative standard deviation of single updates
    window_s: float | None  # None: a counter
    rate_hz: float
    gain: float  # stated limits, ± fraction
    quantum: float  # watts or joules per count
    modulus: int | None = None
    declared_update_s: float | None = None

    def channel(self, update_s: float) -> Channel:
        """What its driver says of it."""
        gauge = self.kind == "gauge"
        return Channel(
            name=f"sim/{self.name}",
            device="sim",
            quantity="power" if gauge else "energy",
            unit="W" if gauge else "J",
            kind="gauge" if gauge else "counter",
            scale=self.quantum,
            modulus=self.modulus,
            update_period_s=self.declared_update_s or update_s,
            window_s=self.window_s,
            accuracy=Accuracy(reading_fraction=self.gain, source="simulated"),
        )


DEVICES = (
    Device("V100 power", "gauge", (0.02, 0.02), 0.05, 0.010, 20.0, 0.05, 0.001),
    Device("A100 power", "gauge", (0.101, 0.101), 0.02, 0.025, 20.0, 0.05, 0.001),
    Device("H100 instant", "gauge", (0.1, 0.1), 0.02, 0.025, 20.0, 0.05, 0.001),
    Device("H100 average", "gauge", (0.1, 0.1), 0.02, 1.0, 20.0, 0.05, 0.001),
    Device("1 Hz wall meter", "gauge", (1.0, 1.0), 0.005, 1.0, 5.0, 0.0025, 0.1),
    Device("RAPL, wrapping", "counter", (0.001, 0.001), 0.1, None, 10.0, 0.05, 2.0**-14, 2**22),
    Device("counter, 20-100 ms steps", "counter", (0.02, 0.1), 0.05, None, 10.0, 0.05, 0.001),
    Device("GPU counter, read at 1 Hz", "counter", (0.02, 0.1), 0.05, None, 1.0, 0.05, 0.001, None, 0.1),
)


def readings(device: Device, update_s: float, load: Load, gain: float, rng: np.random.Generator) -> Piece:
    """Poll the simulated device for the whole trace."""
    n = int((TRACE_S + 6.0) / update_s)
    updates = -3.0 + np.cumsum(np.maximum(rng.normal(update_s, device.jitter * update_s, n), 0.1 * update_s))
    m = int(TRACE_S * device.rate_hz)
    polls = (np.arange(m) + rng.uniform()) / device.rate_hz + np.abs(rng.normal(0.0, 0.0002, m))
    polls = polls[polls < updates[-1]]
    last = np.searchsorted(updates, polls, side="right") - 1
    if device.window_s is not None:
        watts = (load.energy(updates) - load.energy(updates - device.window_s)) / device.window_s
        values: npt.NDArray[np.float64] | npt.NDArray[np.int64] = np.round(gain * watts / device.quantum)[last]
    else:
        counts = np.floor(gain * (load.energy(updates) - load.energy(np.array([-3.0]))) / device.quantum)
        counts = counts.astype(np.int64) + int(rng.integers(0, 2**22))
        if device.modulus is not None:
            counts %= device.modulus
        values = counts[last]
    t_ns = np.round(polls * 1e9).astype(np.int64)
    return Piece(t_ns, np.full(len(t_ns), 20_000), [values], [np.zeros(len(t_ns), dtype=np.uint8)])


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


def run(phases: int, per_trace: int, seed: int, only: str | None = None) -> list[dict[str, object]]:
    """Measure `phases` random phases on each device; one row of figures per device."""
    rows: list[dict[str, object]] = []
    for number, device in enumerate(DEVICES):
        if only and only not in device.name:
            continue
        rng = np.random.default_rng([seed, number])
        ratio, relative, peers, kinds, lengths = [], [], [], [], []
        for trace in range(-(-phases // per_trace)):
            length = np.minimum(10 ** rng.uniform(np.log10(0.05), np.log10(600.0), per_trace), 600.0)
            begin = rng.uniform(5.0, TRACE_S - 5.0 - length)
            load = Load(LOADS[trace % len(LOADS)], rng, (float(begin[0]), float(begin[0] + length[0])))
            update_s = rng.uniform(*device.update_s)
            gain = 1.0 + rng.uniform(-device.gain, device.gain)
            channel = device.channel(update_s)
            timing = timing_of(channel, device.rate_hz)
            piece = readings(device, update_s, load, gain, rng)
            begin_ns, end_ns = np.round(begin * 1e9), np.round((begin + length) * 1e9)
            edges = np.unique(np.concatenate((begin_ns, end_ns))).astype(np.int64)
            aligned = align(channel, timing, [piece], edges, 0)
            i, j = np.searchsorted(edges, begin_ns), np.searchsorted(edges, end_ns)
            found = interval_energies(channel, timing, aligned, i, j, np.zeros(per_trace))
            truth = load.energy(end_ns * 1e-9) - load.energy(begin_ns * 1e-9)
            error = np.abs(found.joules - truth)
            assert np.isfinite(error).all(), (device.name, load.kind)
            ratio.append(error / found.expanded_joules)
            relative.append(error / truth)
            kinds += [load.kind] * per_trace
            lengths.append(length)
            if device.kind == "gauge":
                peers.append([np.abs(x - truth) / truth for x in naive(piece, channel, begin_ns, end_ns)])
        r, e, t, k = np.concatenate(ratio), np.concatenate(relative), np.concatenate(lengths), np.array(kinds)
        other = np.concatenate([np.stack(p) for p in peers], axis=1) if peers else None
        rows.append(
            {
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
        )
    return rows


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
        print("    ", {k: round(v, 3) for k, v in row["within_U_by_load"].items()}, end=" ")  # type: ignore[attr-defined]
        print({k: round(v, 3) for k, v in row["within_U_by_length"].items()})  # type: ignore[attr-defined]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
