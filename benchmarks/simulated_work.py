"""A run of works of given lengths between idle times, as a device would see it, and the phases to measure.

Two places for a phase: `between idle times`, where it is the whole of a work, so that power steps at both of its edges;
and `within a work`, which goes on for 4 to 8 s on both sides. Inside, power is flat, a square wave, a sine, a ramp or
noise; flat and idle power fluctuate by ±2 %, as real ones do. Needs numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from simulated_devices import (
    A100,
    GPU_COUNTER,
    H100_AVERAGE,
    H100_INSTANT,
    RAPL,
    V100,
    WALL_METER,
    Device,
    Floats,
    Profile,
    Sensor,
)

DEVICES = {
    "v100": V100,
    "a100": A100,
    "h100-instant": H100_INSTANT,
    "h100-average": H100_AVERAGE,
    "wall-meter": WALL_METER,
    "rapl": replace(RAPL, modulus=2**32),  # the real range, 262 kJ
    "gpu-counter": GPU_COUNTER,
}

LENGTHS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 200.0, 600.0)
PLACES = ("between idle times", "within a work")
KINDS = ("flat", "square", "sine", "ramp", "noise")
IDLE_S = 9.0
FLUCTUATION = 0.02
HOLD_S = 0.05  # of a fluctuation


@dataclass(frozen=True)
class Work:
    """Phases in ascending order, as seen by one instance of a device; one of each length."""

    sensor: Sensor
    update_s: float
    length_numbers: list[int]  # into LENGTHS_S
    begin_s: Floats
    end_s: Floats
    true_joules: Floats
    idle_s: list[tuple[float, float]]  # idle time before and after
    until_s: float

    def by_length(self, values: Floats) -> Floats:
        """Values per phase, in the order of LENGTHS_S."""
        ordered = np.empty_like(values)
        ordered[self.length_numbers] = values
        return ordered


def make_work(device: Device, place: str, number: int) -> Work:
    """The same for the same arguments: trace `number` of a device and place."""
    rng = np.random.default_rng([2, *device.name.encode(), PLACES.index(place), number])
    idle_w = rng.uniform(40.0, 120.0)
    order = [int(i) for i in rng.permutation(len(LENGTHS_S))]
    points: list[tuple[Floats, Floats]] = [_flat(-10.0, IDLE_S, idle_w, rng)]
    at, begin = IDLE_S, []
    for i in order:
        before, after = (0.0, 0.0) if place == PLACES[0] else rng.uniform(4.0, 8.0, 2)
        end = at + before + LENGTHS_S[i] + after
        points.append(_work(KINDS[number % len(KINDS)], at, end, rng))
        begin.append(at + before)
        at = end + IDLE_S + rng.uniform(0.0, 1.0)
        points.append(_flat(end, at, idle_w, rng))
    points.append(_flat(at, at + 10.0, idle_w, rng))
    load = Profile(np.concatenate([t for t, _ in points]), np.concatenate([p for _, p in points]))
    begin_s = np.round(np.array(begin), 9)
    end_s = np.round(begin_s + np.array(LENGTHS_S)[order], 9)
    update_s = float(rng.uniform(*device.update_s))
    sensor = Sensor(device, update_s, load, 1.0 + rng.uniform(-device.gain, device.gain), rng, at)
    idle = [(2.0, IDLE_S - 1.0), (at - IDLE_S + 3.0, at - 1.0)]
    return Work(sensor, update_s, order, begin_s, end_s, load.energy(end_s) - load.energy(begin_s), idle, at)


def _held(begin: float, end: float, hold: float, watts: Floats) -> tuple[Floats, Floats]:
    """Power that stays for `hold` seconds each."""
    start = begin + np.arange(len(watts)) * hold
    return np.stack([start, np.minimum(start + hold, end)], 1).ravel(), np.repeat(watts, 2)


def _flat(begin: float, end: float, watts: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    n = max(1, int(np.ceil((end - begin) / HOLD_S - 1e-9)))
    return _held(begin, end, HOLD_S, watts * rng.uniform(1 - FLUCTUATION, 1 + FLUCTUATION, n))


def _work(kind: str, begin: float, end: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    low, high = sorted(rng.uniform(150.0, 700.0, 2))
    if kind == "flat":
        return _flat(begin, end, high, rng)
    if kind == "ramp":
        return np.array([begin, end]), np.array([low, high])
    if kind == "noise":
        hold = 10 ** rng.uniform(-2, 0)
        n = max(1, int(np.ceil((end - begin) / hold - 1e-9)))
        return _held(begin, end, hold, rng.uniform(low, high, n))
    period = 10 ** rng.uniform(np.log10(0.05), np.log10(20.0))
    phase = rng.uniform()
    if kind == "sine":  # as straight lines, so that its integral is exact
        n = max(2, int(np.ceil((end - begin) / period * 24)) + 1)
        t = np.linspace(begin, end, n)
        return t, 0.5 * (low + high) + 0.5 * (high - low) * np.sin(2 * np.pi * (t / period + phase))
    duty = rng.uniform(0.1, 0.9)
    n = int((end - begin) / period) + 2
    start = begin - phase * period + np.arange(n) * period
    t = np.stack([start, start + duty * period, start + duty * period, start + period], 1).ravel()
    return np.clip(t, begin, end), np.tile([high, high, low, low], n)
