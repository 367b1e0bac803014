"""How often an NVIDIA power reading changes and what it averages over, by generation, driver branch and reading.

Measured figures are those of Yang, Adamek and Armour, "Part-time Power Measurements" (SC24, arXiv 2312.02741) and the
results in their repository GPU_Power_Benchmark. What was not measured there is taken from nvml.h where the header
says it, and is unknown (None) otherwise. NVML itself answers neither question.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

PowerReading = Literal["legacy", "average", "instant"]  # nvmlDeviceGetPowerUsage, field 185, field 186

_ARCHITECTURES = {  # nvmlDeviceArchitecture_t
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
    13: "rubin",
}
# One architecture, several sensors: told apart by compute capability.
_BY_CAPABILITY = {
    ("kepler", (3, 5)): "kepler-1",
    ("kepler", (3, 7)): "kepler-2",
    ("ampere", (8, 0)): "ga100",
    ("ampere", (8, 6)): "ga10x",
}


class Window(NamedTuple):
    """Seconds; None is unknown."""

    update_period_s: float | None
    window_s: float | None


class _Row(NamedTuple):
    generations: tuple[str, ...]
    branches: range  # of the driver's major version
    readings: tuple[PowerReading, ...]
    window: Window


_ANY = range(-1, 1_000_000)
_ROWS = (
    # RC-filtered and logarithmic responses are no boxcar: their window is unknown.
    _Row(("kepler-1",), _ANY, ("legacy", "instant"), Window(0.015, None)),
    _Row(("kepler-2", "maxwell"), _ANY, ("legacy", "instant"), Window(0.1, None)),
    # Up to GA100 the header calls the legacy reading instantaneous: the same quantity as field 186.
    _Row(("pascal", "volta"), _ANY, ("legacy", "instant"), Window(0.02, 0.01)),
    _Row(("turing",), _ANY, ("legacy", "instant"), Window(0.1, 0.1)),
    _Row(("ga100",), _ANY, ("legacy", "instant"), Window(0.1, 0.025)),
    _Row(("ga10x", "ada"), range(530), ("legacy",), Window(0.1, 1.0)),
    _Row(("ga10x", "ada"), range(530, 531), ("legacy",), Window(0.1, 0.1)),
    _Row(("ga10x", "ada"), range(531, 1_000_000), ("legacy", "average"), Window(0.1, 1.0)),
    _Row(("ga10x", "ada"), range(531, 1_000_000), ("instant",), Window(0.1, 0.1)),
    _Row(("hopper",), _ANY, ("legacy", "average"), Window(0.1, 1.0)),
    _Row(("hopper",), _ANY, ("instant",), Window(0.1, 0.025)),
    _Row(("grace-hopper",), _ANY, ("legacy",), Window(0.1, 1.0)),  # 1 s: nvml.h
    _Row(("grace-hopper",), _ANY, ("average",), Window(None, 1.0)),  # 1 s: nvml.h
    _Row(("grace-hopper",), _ANY, ("instant",), Window(0.02, None)),
    # Nobody has published a measurement of these; nvml.h: a 1 s average on everything after GA100.
    _Row(("blackwell", "rubin"), _ANY, ("legacy", "average"), Window(None, 1.0)),
)


def generation(architecture: int, compute_capability: tuple[int, int], name: str) -> str:
    """The name of a GPU's power sensor generation, "" where it is unknown.

    Args:
        architecture: nvmlDeviceGetArchitecture.
        compute_capability: (major, minor), which tells GA100 from the other Ampere parts.
        name: nvmlDeviceGetName, which tells GH200 from H100.
    """
    architecture_name = _ARCHITECTURES.get(architecture, "")
    if architecture_name == "hopper" and "GH200" in name:
        return "grace-hopper"
    if architecture_name in ("kepler", "ampere"):
        return _BY_CAPABILITY.get((architecture_name, compute_capability), "")
    return architecture_name


def power_window(generation: str, driver_branch: int | None, reading: PowerReading) -> Window:
    """Update period and averaging window of a whole-GPU power reading.

    Args:
        generation: from `generation`.
        driver_branch: the driver's major version, 535 of 535.104.05; None if unknown.
        reading: which of NVML's power readings.
    """
    branch = -1 if driver_branch is None else driver_branch
    for row in _ROWS:
        if generation in row.generations and branch in row.branches and reading in row.readings:
            return row.window
    return Window(None, None)
