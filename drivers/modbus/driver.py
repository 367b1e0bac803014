"""Driver `modbus`: a meter that answers Modbus RTU on a serial line, or Modbus TCP. See docs/devices/modbus.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, cast, get_args

from drivers.contract import Accuracy, Driver, DriverOptions, Scope, Status, Unavailable
from drivers.links import LinkLost, SerialSettings, open_link
from drivers.modbus.register_map import RegisterMap, built_in_maps, read_map
from drivers.settings import check_known, read_number

if TYPE_CHECKING:  # pymodbus is an extra
    from drivers.modbus.client import BadAnswer, RegisterReader
    from drivers.modbus.group import RegisterGroup

REPLY_S = 1.0
MODBUS_PORT = 502
_TRIES = 3  # readings before nobody is there
_FRAME_GAP_CHARACTERS = 3.5
_LEAST_GAP_S = 0.00175  # above 19 200 baud
_CHARACTER_BITS = 11
_KNOWN = (
    "map", "port", "baud", "parity", "stop_bits", "host", "unit", "timeout_s", "update_period_s", "accuracy_percent",
    "scope",
)  # fmt: skip


@dataclass(frozen=True)
class _Wanted:
    """What the user asked for."""

    described: RegisterMap
    place: str  # of a line
    serial: SerialSettings
    tcp: bool  # Modbus TCP, not RTU
    unit: int
    reply_s: float
    period_s: float | None
    accuracy: Accuracy | None
    scope: Scope


class ModbusDriver(Driver):
    """One meter at one unit of one line."""

    name: ClassVar[str] = "modbus"

    def __init__(self, group: RegisterGroup, reader: RegisterReader) -> None:
        self.groups = (group,)
        self._reader = reader

    @classmethod
    def open(cls, options: DriverOptions) -> ModbusDriver:
        """Open the line and read all registers once. Nothing is written to the meter.

        Raises:
            Unavailable: see there.
        """
        wanted = _read_settings(options.settings)
        try:
            from drivers.modbus.client import RegisterReader
        except ImportError as error:
            raise Unavailable("pymodbus is not installed", "pip install 'ml-power-agent[meters]'") from error
        gap_s = max(_FRAME_GAP_CHARACTERS * _CHARACTER_BITS / wanted.serial.baud, _LEAST_GAP_S)
        link = open_link(wanted.place, wanted.serial)
        reader = RegisterReader(link, wanted.unit, wanted.reply_s, tcp=wanted.tcp, pause_s=0.0 if wanted.tcp else gap_s)
        try:
            return cls(_first_reading(options, wanted, reader), reader)
        except LinkLost as error:
            reader.close()
            raise Unavailable(f"the line to the meter broke off: {error}", "plug it in again") from error
        except BaseException:
            reader.close()
            raise

    def close(self) -> None:
        """Release the line."""
        self._reader.close()


def _first_reading(options: DriverOptions, wanted: _Wanted, reader: RegisterReader) -> RegisterGroup:
    """A group that has been read once.

    Raises:
        Unavailable: nobody answers, or what answers is no such meter.
        LinkLost: see there.
    """
    from drivers.modbus.client import BadAnswer, Refusal
    from drivers.modbus.decoding import plan_requests
    from drivers.modbus.group import RegisterGroup, describe_channels

    name = f"modbus:{options.instance}" if options.instance else "modbus"
    device = options.instance or wanted.scope
    described = wanted.described
    channels = describe_channels(described, name, device, wanted.scope, wanted.period_s, wanted.accuracy)
    bridge = described.bridge
    trouble: BadAnswer | None = None
    for _ in range(_TRIES):
        group = RegisterGroup(
            reader,
            described,
            plan_requests(described, bridge),
            channels,
            period_s=wanted.period_s,
            clock_ns=options.clock_ns,
        )
        try:
            values = group.read_values()
        except BadAnswer as error:
            if trouble is None or trouble.silent:
                trouble = error
            continue
        except Refusal as error:
            if error.no_such_register and bridge:
                bridge = 0  # it refuses registers that nobody described
                continue
            raise Unavailable(str(error), f"check that it is a {described.title}, and modbus.unit") from error
        group.remarks()
        powers = [v for r, v in zip(described.register, values, strict=True) if r.quantity in ("power", "energy")]
        if any(value.status != Status.INVALID for value in powers):
            return group
    if trouble is not None:
        raise _no_answer(wanted, trouble)
    raise Unavailable(
        f"its registers do not hold what a {described.title} could show",
        f"check modbus.map ({', '.join(built_in_maps())}, or a file) and modbus.unit",
    )


def _no_answer(wanted: _Wanted, trouble: BadAnswer) -> Unavailable:
    if wanted.tcp:
        return Unavailable(f"at {wanted.place} {trouble}", "check modbus.unit, and that Modbus is on in its menu")
    serial = wanted.serial
    how = f"{serial.baud} baud, parity {serial.parity}, {serial.stop_bits} stop bits"
    if trouble.silent:
        fix = "check power, that A and B are not swapped, modbus.unit, modbus.baud and modbus.parity as in its menu"
    else:
        fix = "another rate or parity, or two meters with one unit: check modbus.baud, modbus.parity and modbus.unit"
    return Unavailable(f"at {wanted.place} ({how}) {trouble}", fix)


def _read_settings(settings: Mapping[str, str]) -> _Wanted:
    check_known("modbus", settings, _KNOWN)
    if not settings.get("map"):
        raise Unavailable(
            "nobody said which meter it is", f"set modbus.map to one of {', '.join(built_in_maps())}, or a TOML file"
        )
    described = read_map(settings["map"])
    port, host = settings.get("port", ""), settings.get("host", "")
    if bool(port) == bool(host):
        raise Unavailable(
            "nobody said where the meter is" if not port else "modbus.port and modbus.host are both set",
            "set modbus.port=/dev/ttyUSB0 (RTU), or modbus.host=HOST[:PORT] (Modbus TCP)",
        )
    unit = _whole(settings, "unit", 1, 0, 255)
    parity = settings.get("parity", described.parity).upper()[:1]
    if parity not in ("N", "E", "O"):
        raise Unavailable(f"modbus.parity is {settings['parity']!r}", "use none, even or odd")
    scope = settings.get("scope", "wall")
    if scope not in get_args(Scope):
        raise Unavailable(f"modbus.scope is {scope!r}", f"use one of: {', '.join(get_args(Scope))}")
    percent = read_number("modbus", settings, "accuracy_percent", "percent")
    period_s = read_number("modbus", settings, "update_period_s", "seconds")
    return _Wanted(
        described=described,
        place=port or _tcp_place(host),
        serial=SerialSettings(
            _whole(settings, "baud", described.baud, 1, 4_000_000),
            parity=cast(Literal["N", "E", "O"], parity),
            stop_bits=cast(Literal[1, 2], _whole(settings, "stop_bits", described.stop_bits, 1, 2)),
        ),
        tcp=bool(host),
        unit=unit,
        reply_s=read_number("modbus", settings, "timeout_s", "seconds") or REPLY_S,
        period_s=period_s or described.update_period_s,
        accuracy=Accuracy(reading_fraction=percent / 100, source="set by the user") if percent is not None else None,
        scope=cast(Scope, scope),
    )


def _tcp_place(host: str) -> str:
    """`[::1]:502`, `meter:502` and `meter` as a place of a line."""
    named = host.endswith("]") or ":" not in host
    return f"tcp:{host}:{MODBUS_PORT}" if named else f"tcp:{host}"


def _whole(settings: Mapping[str, str], key: str, default: int, lowest: int, highest: int) -> int:
    text = settings.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and lowest <= int(text) <= highest):
        raise Unavailable(f"modbus.{key} is {text!r}", f"give a whole number from {lowest} to {highest}")
    return int(text)
