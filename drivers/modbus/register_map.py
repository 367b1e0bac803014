"""What stands in which register of a meter: read from TOML, the built-in maps as well as those of users.

Nothing of a map is ever run. Addresses are those on the wire, from 0. See docs/devices/modbus.md.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec

from drivers.contract import Unavailable

Quantity = Literal["power", "energy", "voltage", "current", "power_factor", "frequency", "temperature"]
UNITS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {  # the first is what a channel is in; the others in it
        "power": {"W": 1.0, "kW": 1e3, "mW": 1e-3},
        "energy": {"J": 1.0, "Wh": 3600.0, "kWh": 3.6e6},
        "voltage": {"V": 1.0, "mV": 1e-3},
        "current": {"A": 1.0, "mA": 1e-3},
        "power_factor": {"": 1.0},
        "frequency": {"Hz": 1.0},
        "temperature": {"°C": 1.0},
    }
)
MAPS = Path(__file__).parent / "maps"
MAX_BYTES = 1 << 20
MOST_REGISTERS = 125  # that one request may ask for
_HOW = "see docs/devices/modbus.md for how a map is written"
_Word = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
_Pattern = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]


class Register(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value. Limits and accuracy are in `unit`."""

    quantity: Quantity
    address: _Word
    type: Literal["u16", "i16", "u32", "i32", "f32"]
    function: Literal[3, 4] = 4  # 3 reads holding registers, 4 input registers
    words: Literal["high_first", "low_first"] = "high_first"
    scale: float = 1.0  # what the register holds, times this, is in `unit`
    unit: str | None = None
    part: Annotated[str, msgspec.Meta(pattern=r"^\w{0,16}$")] = ""  # "L1"; empty: the whole
    modulus: Annotated[int, msgspec.Meta(gt=1, le=1 << 32)] | None = None  # of an energy: where the register wraps
    step: Annotated[float, msgspec.Meta(gt=0)] | None = None  # of an energy in f32: what is counted in, before `scale`
    missing: tuple[_Pattern, ...] = ()  # contents that say: no value
    over: tuple[_Pattern, ...] = ()  # contents that say: beyond the range
    lowest: float | None = None  # less cannot be true
    highest: float | None = None
    accuracy_fraction: Annotated[float, msgspec.Meta(ge=0)] | None = None
    accuracy_absolute: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    accuracy_source: str = "the register map"

    @property
    def size(self) -> int:
        """How many registers of 16 bits it takes."""
        return 1 if self.type in ("u16", "i16") else 2

    @property
    def is_counter(self) -> bool:
        """Whether it only grows."""
        return self.quantity == "energy"

    @property
    def unit_scale(self) -> float:
        """What one `unit` is in the channel's."""
        return UNITS[self.quantity][self.unit] if self.unit is not None else 1.0

    def __post_init__(self) -> None:
        """Raises ValueError for what msgspec cannot see."""
        where = f"{self.quantity} at {self.address:#x}"
        if self.unit is not None and self.unit not in UNITS[self.quantity]:
            raise ValueError(f"{where}: its unit {self.unit!r} is none of {', '.join(UNITS[self.quantity])}")
        numbers = (self.scale, self.lowest, self.highest, self.step, self.accuracy_fraction, self.accuracy_absolute)
        if not all(abs(number) < 1e300 for number in numbers if number is not None):
            raise ValueError(f"{where}: a number in it is not finite")
        if not self.scale or (self.is_counter and self.scale < 0):
            raise ValueError(f"{where}: its scale is {self.scale:g}")
        if self.address + self.size > 0x10000:
            raise ValueError(f"{where}: it reaches beyond the last register")
        if self.lowest is not None and self.highest is not None and self.lowest >= self.highest:
            raise ValueError(f"{where}: lowest is not below highest")
        if (self.step is not None) != (self.is_counter and self.type == "f32"):
            raise ValueError(f"{where}: step belongs to an energy of type f32, and only there")
        if self.modulus is not None and (not self.is_counter or self.type == "f32"):
            raise ValueError(f"{where}: modulus belongs to an energy of an integer type")


class RegisterMap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of meter."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    register: Annotated[tuple[Register, ...], msgspec.Meta(min_length=1, max_length=200)]
    baud: Annotated[int, msgspec.Meta(gt=0)] = 9600
    parity: Literal["N", "E", "O"] = "N"
    stop_bits: Literal[1, 2] = 1
    update_period_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] | None = None  # how often it has new values
    window_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] | None = None  # what a value averages over
    largest_request: Annotated[int, msgspec.Meta(ge=2, le=MOST_REGISTERS)] = 32  # registers that it gives at once
    bridge: Annotated[int, msgspec.Meta(ge=0, le=MOST_REGISTERS)] = 0  # registers read in passing, to save a request
    agree_within: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05  # of V·A, between P and V·I·PF; 0: not looked at

    def __post_init__(self) -> None:
        """Raises ValueError for what msgspec cannot see."""
        kinds = [(register.quantity, register.part) for register in self.register]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise ValueError(f"two registers hold {kind[0]}" + (f" of part {kind[1]}" if kind[1] else ""))
        if not any(quantity in ("power", "energy") for quantity, _ in kinds):
            raise ValueError("no register holds power or energy")


def built_in_maps() -> list[str]:
    """Their names."""
    return sorted(path.stem for path in MAPS.glob("*.toml"))


def read_map(name: str) -> RegisterMap:
    """A built-in map by its name, or one in a file.

    Raises:
        Unavailable: it cannot be read: where, and why.
    """
    if name in built_in_maps():
        path = MAPS / f"{name}.toml"
    elif "/" in name or name.endswith(".toml"):
        path = Path(name)
    else:
        raise Unavailable(
            f"there is no register map {name!r}",
            f"use one of: {', '.join(built_in_maps())}; or the path of a TOML file",
        )
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Unavailable(f"{path} is larger than {MAX_BYTES} bytes", _HOW)
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), RegisterMap)
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", "check the path") from error
    except (ValueError, RecursionError) as error:  # of TOML, of text, of the map
        raise Unavailable(f"{path} is no register map: {error}", _HOW) from error
