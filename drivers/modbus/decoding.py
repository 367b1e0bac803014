"""From the words of registers to values: which requests to make, and what each value is worth."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from drivers.contract import Status
from drivers.modbus.register_map import Quantity, Register, RegisterMap

MOST_ULP_STEPS = 10.0  # steps that a float's last bit may be worth before the count is no longer believed
_AGREEING: tuple[Quantity, ...] = ("power", "voltage", "current", "power_factor")
_FORMATS = {"u16": ">H", "i16": ">h", "u32": ">I", "i32": ">i", "f32": ">f"}


class Value(NamedTuple):
    """In the register map's unit; of a counter the whole steps. Means nothing where the status says so."""

    value: float | int
    status: Status


class Request(NamedTuple):
    """Registers that are read in one go."""

    function: int
    address: int
    length: int  # in registers


def plan_requests(described: RegisterMap, bridge: int) -> list[Request]:
    """Few requests that cover all registers. Registers that nobody described are read in passing, up to `bridge`."""
    requests: list[Request] = []
    for register in sorted(described.register, key=lambda register: (register.function, register.address)):
        end = register.address + register.size
        if requests:
            function, begin, count = requests[-1]
            near = register.function == function and register.address <= begin + count + bridge
            if near and max(end, begin + count) - begin <= described.largest_request:
                requests[-1] = Request(function, begin, max(end - begin, count))
                continue
        requests.append(Request(register.function, register.address, register.size))
    return requests


def decode(register: Register, words: Sequence[int]) -> Value:
    """The value in these words, in the order in which they came."""
    ordered = words if register.words == "high_first" else list(reversed(words))
    content = struct.pack(f">{len(ordered)}H", *ordered)
    pattern = int.from_bytes(content, "big")
    if pattern in register.missing:
        return Value(math.nan, Status.MISSING)
    if pattern in register.over:
        return Value(math.nan, Status.OVER_RANGE)
    (number,) = struct.unpack(_FORMATS[register.type], content)
    if not math.isfinite(number):
        return Value(math.nan, Status.MISSING if math.isnan(number) else Status.OVER_RANGE)
    value = number * register.scale
    if not math.isfinite(value):  # by a scale beyond all reason
        return Value(math.nan, Status.INVALID)
    if register.lowest is not None and value < register.lowest:
        return Value(math.nan, Status.INVALID)
    if register.highest is not None and value > register.highest:
        return Value(math.nan, Status.INVALID)
    if not register.is_counter:
        return Value(value, Status.NEW)
    if register.step is None:
        return Value(number, Status.NEW)
    if float32_ulp(number) > MOST_ULP_STEPS * register.step:
        return Value(0, Status.INVALID)
    return Value(round(number / register.step), Status.NEW)


def float32_ulp(number: float) -> float:
    """What the last of the 24 bits of a float32 is worth."""
    return math.ldexp(1.0, max(math.frexp(number)[1] - 24, -149))


def disagreeing(described: RegisterMap, values: Mapping[tuple[Quantity, str], Value]) -> set[str]:
    """Parts whose power is not what voltage, current and power factor make: |P| = V·I·|PF|, each to two steps.

    The checks of a frame let one in 65 536 of badly broken ones through; this one does not.
    """
    if not described.agree_within:
        return set()
    steps = {(r.quantity, r.part): _step(r) for r in described.register}
    wrong = set()
    for part in {register.part for register in described.register}:
        kinds = [(quantity, part) for quantity in _AGREEING]
        if not all(kind in values and values[kind].status == Status.NEW for kind in kinds):
            continue
        power, volts, amperes, factor = (abs(values[kind].value) for kind in kinds)
        slack = 2 * (steps[kinds[0]] + volts * steps[kinds[2]] + amperes * steps[kinds[1]])
        if abs(power - volts * amperes * factor) > described.agree_within * volts * amperes + slack:
            wrong.add(part)
    return wrong


def _step(register: Register) -> float:
    """What the last digit is worth, in the channel's unit; unknown of a float: a ten-thousandth."""
    return (1e-4 if register.type == "f32" else abs(register.scale)) * register.unit_scale
