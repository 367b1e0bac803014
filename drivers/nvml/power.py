"""The power and energy channels of an NVIDIA GPU: each is asked for once, and only what answers is kept."""

from __future__ import annotations

from types import ModuleType

from drivers.contract import Accuracy, Channel, Scope, Status
from drivers.nvml.gpu import Gpu
from drivers.nvml.read import INT64, Answer, FieldValues, SimpleCall, Source, status_of
from drivers.nvml.windows import PowerReading, power_window

_PLAUSIBLE_MILLIWATTS = (1, 10_000_000)  # a GPU that answers draws something, and no board draws 10 kW

_POWER_FIELDS: tuple[tuple[str, int, PowerReading], ...] = (
    ("power_instant", 186, "instant"),
    ("power_average", 185, "average"),
)
# The prose of nvml.h numbers the scopes otherwise than its #defines do, so what each one answers is never assumed.
_GPU_SCOPE, _MODULE_SCOPE, _MEMORY_SCOPE = 0, 1, 2

_POWER_ACCURACY = "±5 % of reading: nvml.h, and SC24 (arXiv 2312.02741), which found it per board and proportional"
_OTHER_SCOPE_ACCURACY = "the ±5 % of the whole GPU; no figure is published for this scope"
_ENERGY_ACCURACY = "the ±5 % of the power that the counter integrates; its own error is not published"

# The counter was seen to step every 10 to 100 ms; the longest of these.
_ENERGY_STEP_S = 0.1


def power_sources(nvml: ModuleType, gpu: Gpu) -> tuple[list[Source], str]:
    """The power channels of a GPU: the fields that answer, else the legacy call.

    Returns the sources, and what each probe answered, for the note on a GPU that has none.
    """
    candidates = [
        (name, field_id, reading, scope)
        for scope in (_GPU_SCOPE, _MODULE_SCOPE, _MEMORY_SCOPE)
        for name, field_id, reading in _POWER_FIELDS
    ]
    requests = [(field_id, scope) for _, field_id, _, scope in candidates]
    answers = dict(zip(requests, FieldValues(nvml, gpu.handle, requests)(), strict=True))
    told = ", ".join(_told(f"field {field} scope {scope}", answer) for (field, scope), answer in answers.items())
    kept = []
    for candidate in candidates:
        _, field_id, _, scope = candidate
        answer = answers[field_id, scope]
        # A driver that takes no notice of the scope would give the GPU's power under three names.
        repeated = scope != _GPU_SCOPE and answer == answers[field_id, _GPU_SCOPE]
        if status_of(answer, _PLAUSIBLE_MILLIWATTS) is Status.NEW and not repeated:
            kept.append(candidate)
    scopes = {scope for *_, scope in kept}
    parent = f"module{gpu.index}" if _MODULE_SCOPE in scopes else None

    sources = []
    if kept:
        channels = tuple(
            _power_channel(gpu, name, reading, scope, parent, f"NVML field {field_id} scope {scope}; probed: {told}")
            for name, field_id, reading, scope in kept
        )
        call = FieldValues(nvml, gpu.handle, [(field_id, scope) for _, field_id, _, scope in kept])
        sources.append(Source(gpu.index, call, channels, (_PLAUSIBLE_MILLIWATTS,) * len(kept)))
    if _GPU_SCOPE not in scopes:
        legacy = SimpleCall(nvml, lambda: (nvml.nvmlDeviceGetPowerUsage(gpu.handle),))
        (answer,) = legacy()
        told += ", " + _told("nvmlDeviceGetPowerUsage", answer)
        if status_of(answer, _PLAUSIBLE_MILLIWATTS) is Status.NEW:
            text = f"nvmlDeviceGetPowerUsage; probed: {told}"
            channel = _power_channel(gpu, "power", "legacy", _GPU_SCOPE, parent, text)
            sources.append(Source(gpu.index, legacy, (channel,), (_PLAUSIBLE_MILLIWATTS,)))
    return sources, told


def _told(asked: str, answer: Answer) -> str:
    code, value = answer
    return f"{asked}: nvmlReturn {code}" if code else f"{asked}: {value} mW"


def _power_channel(
    gpu: Gpu, name: str, reading: PowerReading, scope_id: int, parent_of_gpu: str | None, text: str
) -> Channel:
    scopes: dict[int, tuple[str, Scope, str | None]] = {
        _GPU_SCOPE: (gpu.device, "gpu", parent_of_gpu),
        _MODULE_SCOPE: (f"module{gpu.index}", "module", None),
        _MEMORY_SCOPE: (f"{gpu.device}-memory", "gpu_memory", gpu.device),
    }
    device, scope, parent = scopes[scope_id]
    branch = gpu.driver_version[0] if gpu.driver_version else None
    # The published figures are of the whole GPU; those of the other scopes are unknown.
    window = power_window(gpu.generation if scope == "gpu" else "", branch, reading)
    source = _POWER_ACCURACY if scope == "gpu" else _OTHER_SCOPE_ACCURACY
    return Channel(
        name=f"nvml/{device}/{name}",
        device=device,
        quantity="power",
        unit="W",
        kind="gauge",
        scope=scope,
        parent=parent,
        model=gpu.name,
        scale=1e-3,
        update_period_s=window.update_period_s,
        window_s=window.window_s,
        accuracy=Accuracy(reading_fraction=0.05, source=source),
        description=gpu.describe(text),
    )


def energy_sources(nvml: ModuleType, gpu: Gpu, parent: str | None) -> list[Source]:
    """The total energy counter of a GPU (Volta and newer), in millijoules since the driver was loaded."""
    call = SimpleCall(nvml, lambda: (nvml.nvmlDeviceGetTotalEnergyConsumption(gpu.handle),))
    if status_of(call()[0], INT64) is not Status.NEW:
        return []
    channel = Channel(
        name=f"nvml/{gpu.device}/energy",
        device=gpu.device,
        quantity="energy",
        unit="J",
        kind="counter",
        scope="gpu",
        parent=parent,
        model=gpu.name,
        scale=1e-3,
        update_period_s=_ENERGY_STEP_S,
        window_s=0.0,
        accuracy=Accuracy(reading_fraction=0.05, source=_ENERGY_ACCURACY),
        description=gpu.describe("nvmlDeviceGetTotalEnergyConsumption, since the driver was loaded"),
    )
    return [Source(gpu.index, call, (channel,), (INT64,))]
