"""A session of a training on a machine with GPUs as a run would have left it: power, energy, heat, clocks, phases."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from made_session import made_clock, made_manifest, made_marks, made_stream

from director.session.files import store_manifest
from director.session.manifest import Manifest, PhaseSource
from drivers.contract import Accuracy, Channel, Kind, Quantity, Scope
from power_agent.messages import TickCount

BEGIN_NS = 50_000_000_000_000
PEAK_WATTS = 900.0  # of GPU 1, for one second, a third into the run
SPIKE_SHARE = 1 / 3


def made_gpu_training(folder: Path, seconds: float, gpus: int = 8, rate_hz: float = 10.0, epochs: int = 40) -> Manifest:
    """Write it: a wall meter (1 Hz), two packages and `gpus` GPUs (`rate_hz`), heat and clocks (1 Hz), epochs, evals.

    The first 2 % are initialisation. An epoch draws much on the GPUs, its evaluation less. In the middle third GPU 0 is
    held back by its power limit, and by heat for a part of that.
    """
    begin, end = BEGIN_NS, BEGIN_NS + round(seconds * 1e9)
    folder.mkdir(parents=True, exist_ok=True)
    lead = 3.0  # s of readings before and after
    fast = np.arange(-lead, seconds + lead, 1 / rate_hz)
    slow = np.arange(-lead, seconds + lead, 1.0)
    noise = np.random.default_rng(7)
    watts = [_gpu_watts(fast, seconds, epochs, noise) for _ in range(gpus)]
    spike = (fast >= seconds * SPIKE_SHARE) & (fast < seconds * SPIKE_SHARE + 1)
    watts[min(1, gpus - 1)][spike] = PEAK_WATTS
    packages = [120 + 40 * (w > 300) + noise.normal(0, 3, len(fast)) for w in watts[:2]]
    at = begin + np.rint(fast * 1e9).astype(np.int64)
    at_slow = begin + np.rint(slow * 1e9).astype(np.int64)
    gpu_channels = [_channel(f"sim/gpu{i}/power", f"gpu{i}", "power", "W", "gpu") for i in range(gpus)]
    package_channels = [
        _channel(f"sim/package-{i}/energy", f"package-{i}", "energy", "J", "package", "counter", 1e-6)
        for i in range(len(packages))
    ]
    counters = [np.rint(np.cumsum(p / rate_hz) * 1e6).astype(np.int64) for p in packages]
    wall = np.interp(slow - 0.5, fast, np.sum([*watts, *packages], axis=0)) * 1.08 + 260
    heat_channels, heat = _heat(slow, seconds, fast, watts, noise)
    files = [
        made_stream(folder, gpu_channels, at, watts, rate_hz=rate_hz, number=0),
        made_stream(folder, package_channels, at, counters, rate_hz=rate_hz, number=1),
        made_stream(folder, [_wall()], at_slow, [wall], rate_hz=1.0, number=2),
        made_stream(folder, heat_channels, at_slow, heat, rate_hz=1.0, number=3),
    ]
    made_marks(folder, _phases(begin, seconds, epochs), rank=0)
    manifest = made_manifest(
        folder,
        files,
        (begin, end),
        clock_file=made_clock(folder, int(at_slow[0]), int(at_slow[-1])),
        phase_sources=[PhaseSource(kind="marks", file="marks")],
        label="resnet50",
    )
    ticks = [_ticks(file.stream.id, file.rows) for file in files]
    manifest = msgspec.structs.replace(manifest, hosts=[msgspec.structs.replace(manifest.hosts[0], ticks=ticks)])
    store_manifest(folder, manifest)
    return manifest


def _ticks(stream: int, rows: int) -> TickCount:
    """Five late, two missed."""
    return TickCount(
        stream=stream,
        due=rows - 3,
        taken=rows - 10,
        late=5,
        missed=2,
        extra=3,
        dropped_rows=0,
        lateness_log2_us=[0] * 32,
    )


def _gpu_watts(t: np.ndarray, seconds: float, epochs: int, noise: np.random.Generator) -> np.ndarray:
    into = t / seconds
    epoch = (into - 0.02) / 0.98 * epochs % 1
    busy = np.where(epoch < 0.9, 640.0, 380.0) + 25 * np.sin(2 * np.pi * t / 7)
    return np.where((into < 0.02) | (into >= 1), 95.0, busy) + noise.normal(0, 9, len(t))


def _heat(
    slow: np.ndarray, seconds: float, fast: np.ndarray, watts: list[np.ndarray], noise: np.random.Generator
) -> tuple[list[Channel], list[np.ndarray]]:
    into = slow / seconds
    channels: list[Channel] = []
    values: list[np.ndarray] = []
    for i, power in enumerate(watts):
        drawn = np.interp(slow - 3, fast, power)
        held = np.where((i == 0) & (into >= 1 / 3) & (into < 2 / 3), 0x04, 0)
        held = held | np.where((i == 0) & (into >= 0.5) & (into < 0.55), 0x20 | 0x08, 0)
        values += [
            np.rint(32 + drawn / 17 + i / 2 + noise.normal(0, 0.6, len(slow))),
            np.where(drawn > 200, np.where(held > 0, 1410.0, 1755.0), 345.0),
            held.astype(np.int64),
        ]
        gpu = f"gpu{i}"
        channels += [
            _channel(f"nvml/{gpu}/temperature", gpu, "temperature", "°C"),
            _channel(f"nvml/{gpu}/sm_clock", gpu, "frequency", "MHz"),
            _channel(f"nvml/{gpu}/clocks_event_reasons", gpu, "throttle", "", kind="state"),
        ]
    return channels, values


def _phases(begin: int, seconds: float, epochs: int) -> list[tuple[str, int, int]]:
    def at(share: float) -> int:
        return begin + round(min(share, 1) * seconds * 1e9)

    each = 0.98 / epochs
    phases = [("init", at(0), at(0.02)), ("run", at(0.02), at(1))]
    for i in range(epochs):
        first = 0.02 + i * each + 1e-9  # two phases must not begin at one instant
        phases += [("epoch", at(first), at(first + 0.9 * each)), ("eval", at(first + 0.9 * each), at(first + each))]
    return phases


def _channel(
    name: str,
    device: str,
    quantity: Quantity,
    unit: str,
    scope: Scope = "none",
    kind: Kind = "gauge",
    scale: float = 1.0,
) -> Channel:
    known = quantity in ("power", "energy")
    return Channel(
        name=name,
        device=device,
        quantity=quantity,
        unit=unit,
        kind=kind,
        scope=scope,
        scale=scale,
        model="SIM H100 80GB" if scope == "gpu" else "",
        update_period_s=0.1 if quantity == "power" else 0.001 if known else None,
        window_s=0.1 if quantity == "power" else None,
        accuracy=Accuracy(reading_fraction=0.05 if scope == "gpu" else 0.02) if known else None,
    )


def _wall() -> Channel:
    return Channel(
        name="meter/wall/power",
        device="wall",
        quantity="power",
        unit="W",
        kind="gauge",
        scope="wall",
        model="SIM WT310",
        update_period_s=1.0,
        window_s=1.0,
        stamped=True,
        accuracy=Accuracy(reading_fraction=0.001, absolute=2.0),
    )
