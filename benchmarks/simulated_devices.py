"""Simulated sensors of known truth: loads whose energy is known in closed form, and devices that look at them.

Needs numpy and `drivers.contract` only, so that an interpreter with other tools makes the same devices from the same
seeds. Times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from drivers.contract import Accuracy, Channel

Floats = npt.NDArray[np.float64]
TRACE_S = 640.0
LOADS = ("step", "square", "sine", "ramp", "noise")


class Profile:
    """Power over time, linear between points: t ascending (equal instants make a step), p in watts."""

    def __init__(self, t: npt.ArrayLike, p: npt.ArrayLike) -> None:
        self.t = np.asarray(t, dtype=float)
        self.p = np.asarray(p, dtype=float)
        self.e = np.concatenate(([0.0], np.cumsum(np.diff(self.t) * 0.5 * (self.p[1:] + self.p[:-1]))))

    def energy(self, t: Floats) -> Floats:
        """∫ P from the first point to t, in joules."""
        i = np.clip(np.searchsorted(self.t, t, side="right") - 1, 0, len(self.t) - 2)
        dt = t - self.t[i]
        span = self.t[i + 1] - self.t[i]
        slope = np.where(span > 0, (self.p[i + 1] - self.p[i]) / np.where(span > 0, span, 1.0), 0.0)
        energy: Floats = self.e[i] + self.p[i] * dt + 0.5 * slope * dt * dt
        return energy


class Sine:
    """Power that swings between low and high."""

    def __init__(self, low: float, high: float, period: float, phase: float) -> None:
        self.low, self.high, self.period, self.phase = low, high, period, phase

    def energy(self, t: Floats) -> Floats:
        """∫ P from a fixed instant to t, in joules."""
        mean, swing, w = (self.low + self.high) / 2, (self.high - self.low) / 2, 2 * np.pi / self.period
        wave: Floats = mean * t - swing / w * np.cos(w * t + self.phase)
        return wave


def make_load(kind: str, rng: np.random.Generator, phase: tuple[float, float]) -> Profile | Sine:
    """A random load of a kind over the whole trace; half of the steps lie exactly at the phase's edges."""
    low, high = sorted(rng.uniform(60.0, 700.0, 2))
    t: npt.ArrayLike
    p: npt.ArrayLike
    if kind == "sine":
        return Sine(low, high, 10 ** rng.uniform(np.log10(0.2), np.log10(60.0)), rng.uniform(0, 2 * np.pi))
    if kind == "step":  # as a workload's are
        a, b = phase if rng.random() < 0.5 else sorted(rng.uniform(0.0, TRACE_S, 2))
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
    return Profile(t, p)


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
            scope="gpu",
            scale=self.quantum,
            modulus=self.modulus,
            update_period_s=self.declared_update_s or update_s,
            window_s=self.window_s,
            accuracy=Accuracy(reading_fraction=self.gain, source="simulated"),
        )


V100 = Device("V100 power", "gauge", (0.02, 0.02), 0.05, 0.010, 20.0, 0.05, 0.001)
A100 = Device("A100 power", "gauge", (0.101, 0.101), 0.02, 0.025, 20.0, 0.05, 0.001)
H100_INSTANT = Device("H100 instant", "gauge", (0.1, 0.1), 0.02, 0.025, 20.0, 0.05, 0.001)
H100_AVERAGE = Device("H100 average", "gauge", (0.1, 0.1), 0.02, 1.0, 20.0, 0.05, 0.001)
WALL_METER = Device("1 Hz wall meter", "gauge", (1.0, 1.0), 0.005, 1.0, 5.0, 0.0025, 0.1)
RAPL = Device("RAPL, wrapping", "counter", (0.001, 0.001), 0.1, None, 10.0, 0.05, 2.0**-14, 2**22)
GPU_COUNTER = Device("counter, 20-100 ms steps", "counter", (0.02, 0.1), 0.05, None, 10.0, 0.05, 0.001)
SLOW_COUNTER = Device("GPU counter, read at 1 Hz", "counter", (0.02, 0.1), 0.05, None, 1.0, 0.05, 0.001, None, 0.1)
DEVICES = (V100, A100, H100_INSTANT, H100_AVERAGE, WALL_METER, RAPL, GPU_COUNTER, SLOW_COUNTER)


class Sensor:
    """One instance of a device over one load: it shows the value of each of its updates until the next."""

    def __init__(
        self, device: Device, update_s: float, load: Profile | Sine, gain: float, rng: np.random.Generator, end_s: float
    ) -> None:
        """Its updates are jittered and reach from 3 s before instant 0 to 3 s after the end."""
        n = int((end_s + 6.0) / update_s)
        steps = np.maximum(rng.normal(update_s, device.jitter * update_s, n), 0.1 * update_s)
        self.updates_s: Floats = -3.0 + np.cumsum(steps)
        self._device, self._load, self._gain = device, load, gain
        self._first = int(rng.integers(0, device.modulus or 2**22))

    def at(self, t: Floats) -> npt.NDArray[Any]:
        """What reads at these instants give, raw: float64 of a gauge, int64 of a counter."""
        device, load = self._device, self._load
        if device.window_s is not None:
            updated = self.updates_s[np.searchsorted(self.updates_s, t, side="right") - 1]
            watts = (load.energy(updated) - load.energy(updated - device.window_s)) / device.window_s
            shown: npt.NDArray[Any] = np.round(self._gain * watts / device.quantum)
            return shown
        counts = self.count_at(t)
        return counts if device.modulus is None else counts % device.modulus

    def count_at(self, t: Floats) -> npt.NDArray[np.int64]:
        """What a counter would show at these instants if it never wrapped."""
        updated = self.updates_s[np.searchsorted(self.updates_s, t, side="right") - 1]
        joules = self._gain * (self._load.energy(updated) - self._load.energy(np.array([-3.0])))
        return self._first + np.floor(joules / self._device.quantum).astype(np.int64)


def poll_instants(sensor: Sensor, rate_hz: float, until_s: float, rng: np.random.Generator) -> Floats:
    """Instants of a sampler's reads: a random phase, then late by some tenths of a millisecond each."""
    m = int(until_s * rate_hz)
    polls: Floats = (np.arange(m) + rng.uniform()) / rate_hz + np.abs(rng.normal(0.0, 0.0002, m))
    return polls[polls < sensor.updates_s[-1]]
