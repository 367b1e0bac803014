"""The slow channels of an NVIDIA GPU: temperatures, clocks, utilization, limits and what held the clocks back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NamedTuple

from drivers.contract import Channel, Kind, Quantity, Status
from drivers.nvml.gpu import Gpu
from drivers.nvml.read import INT64, FieldValues, SimpleCall, Source, status_of

_PLAUSIBLE_CELSIUS = (1, 200)  # parts without a sensor say 0


class _Spec(NamedTuple):
    name: str
    quantity: Quantity
    unit: str
    plausible: tuple[float, float]  # raw
    description: str
    kind: Kind = "gauge"
    scale: float = 1.0


class _Call(NamedTuple):
    """A pynvml function of a GPU's handle, named because not every version of pynvml has each of them."""

    function: str
    arguments: tuple[int, ...] = ()
    members: tuple[str, ...] = ()  # of the structure that it returns; empty: it returns the number itself


# What is read, and the calls that may answer it, the one to prefer first.
_CALLS: tuple[tuple[tuple[_Spec, ...], tuple[_Call, ...]], ...] = (
    (
        (_Spec("temperature", "temperature", "°C", _PLAUSIBLE_CELSIUS, "GPU core temperature"),),
        (_Call("nvmlDeviceGetTemperatureV", (0,)), _Call("nvmlDeviceGetTemperature", (0,))),
    ),
    (
        (_Spec("sm_clock", "frequency", "MHz", (0, 100_000), "clock of the streaming multiprocessors"),),
        (_Call("nvmlDeviceGetClockInfo", (1,)),),
    ),
    (
        (_Spec("memory_clock", "frequency", "MHz", (0, 100_000), "memory clock"),),
        (_Call("nvmlDeviceGetClockInfo", (2,)),),
    ),
    (
        (
            _Spec("utilization", "utilization", "%", (0, 100), "share of time in which a kernel was running"),
            _Spec("memory_utilization", "utilization", "%", (0, 100), "share of time in which memory was accessed"),
        ),
        (_Call("nvmlDeviceGetUtilizationRates", members=("gpu", "memory")),),
    ),
    (
        # nvml.h: the intended speed, which may exceed 100 %.
        (_Spec("fan", "fan", "%", (0, 300), "intended fan speed; a blocked fan reads the same"),),
        (_Call("nvmlDeviceGetFanSpeed"),),
    ),
    (
        (_Spec("power_limit", "limit", "W", (1, 10_000_000), "power limit in force", scale=1e-3),),
        (_Call("nvmlDeviceGetEnforcedPowerLimit"),),
    ),
    (
        (
            _Spec(
                "clocks_event_reasons",
                "throttle",
                "",
                INT64,
                "bits: 1 idle, 2 application clocks, 4 software power cap, 8 hardware slowdown, 0x10 sync boost, 0x20 "
                "software thermal, 0x40 hardware thermal, 0x80 hardware power brake, 0x100 display clocks, "
                "0x200 board limit, 0x400 reliability",
                "state",
            ),
        ),
        (_Call("nvmlDeviceGetCurrentClocksEventReasons"), _Call("nvmlDeviceGetCurrentClocksThrottleReasons")),
    ),
    (
        (_Spec("performance_state", "frequency", "", (0, 15), "P-state, 0 the fastest", "state"),),
        (_Call("nvmlDeviceGetPerformanceState"),),
    ),
)


def _nanoseconds(name: str, description: str) -> _Spec:
    return _Spec(name, "duration", "s", INT64, f"time that the clocks were {description}", "counter", 1e-9)


_FIELDS = (
    (82, _Spec("memory_temperature", "temperature", "°C", _PLAUSIBLE_CELSIUS, "memory temperature")),
    (74, _nanoseconds("limited_by_power", "held back by the power limit")),
    (75, _nanoseconds("limited_by_temperature", "held back by a thermal limit")),
    (76, _nanoseconds("limited_by_sync_boost", "held back by sync boost")),
    (77, _nanoseconds("limited_by_board", "held back by the board limit")),
    (78, _nanoseconds("limited_by_low_utilization", "held back for lack of work")),
    (79, _nanoseconds("limited_by_reliability", "held back by the reliability limit")),
    (80, _nanoseconds("below_application_clocks", "below the application clocks for any reason")),
    (81, _nanoseconds("below_base_clocks", "below the base clocks for any reason")),
)
_SLOWDOWNS = (
    _nanoseconds("slowed_by_software_thermal", "slowed by the driver for temperature"),
    _nanoseconds("slowed_by_hardware_thermal", "halved or more by the hardware for temperature"),
    _nanoseconds("slowed_by_power_brake", "halved or more by the external power brake"),
)


def _first_slowdown_field(driver_version: tuple[int, ...]) -> int | None:
    """The id of the first of three consecutive fields, None for a driver that has none.

    NVIDIA renumbered fields 251 to 273 with 580.82 (CUDA 13.0 Update 1; "Known Issues" of the NVML reference), and the
    570 branch used the same numbers for power smoothing: the wrong id answers with another quantity, not an error.
    """
    if driver_version >= (580, 82):
        return 269
    if driver_version >= (575,):
        return 251
    return None


def thermal_sources(nvml: ModuleType, gpu: Gpu) -> list[Source]:
    """The calls that this GPU answers. Each is asked for once, now."""
    sources = [_first_that_answers(nvml, gpu, specs, calls) for specs, calls in _CALLS]
    sources.append(_fields_that_answer(nvml, gpu))
    return [source for source in sources if source is not None]


def _first_that_answers(nvml: ModuleType, gpu: Gpu, specs: Sequence[_Spec], calls: Sequence[_Call]) -> Source | None:
    for call in calls:
        numbers = _bind(nvml, gpu.handle, call)
        if numbers is None:
            continue
        ask = SimpleCall(nvml, numbers, len(specs))
        if all(status_of(answer, spec.plausible) is Status.NEW for answer, spec in zip(ask(), specs, strict=True)):
            return _source(gpu, ask, specs)
    return None


def _bind(nvml: ModuleType, handle: object, call: _Call) -> Callable[[], Sequence[int]] | None:
    function = getattr(nvml, call.function, None)
    if function is None:
        return None

    def numbers() -> Sequence[int]:
        result = function(handle, *call.arguments)
        return [getattr(result, member) for member in call.members] if call.members else [result]

    return numbers


def _fields_that_answer(nvml: ModuleType, gpu: Gpu) -> Source | None:
    fields = list(_FIELDS)
    first = _first_slowdown_field(gpu.driver_version)
    if first is not None:
        fields += enumerate(_SLOWDOWNS, first)
    answers = FieldValues(nvml, gpu.handle, [(field_id, 0) for field_id, _ in fields])()
    kept = [
        (field_id, spec)
        for (field_id, spec), answer in zip(fields, answers, strict=True)
        if status_of(answer, spec.plausible) is Status.NEW
    ]
    if not kept:
        return None
    call = FieldValues(nvml, gpu.handle, [(field_id, 0) for field_id, _ in kept])
    return _source(gpu, call, [spec for _, spec in kept])


def _source(gpu: Gpu, call: FieldValues | SimpleCall, specs: Sequence[_Spec]) -> Source:
    channels = tuple(
        Channel(
            name=f"nvml/{gpu.device}/{spec.name}",
            device=gpu.device,
            quantity=spec.quantity,
            unit=spec.unit,
            kind=spec.kind,
            model=gpu.name,
            scale=spec.scale,
            description=gpu.describe(spec.description),
        )
        for spec in specs
    )
    return Source(gpu.index, call, channels, tuple(spec.plausible for spec in specs))
