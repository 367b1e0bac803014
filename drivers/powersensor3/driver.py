"""Driver `powersensor3`: a PowerSensor3 on USB. See docs/devices/powersensor3.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, cast, get_args

import msgspec

from drivers.contract import Accuracy, Channel, Driver, DriverOptions, Quantity, Scope, Unavailable
from drivers.links import LinkLost, SerialSettings, open_link
from drivers.powersensor3.device import Device
from drivers.powersensor3.group import StreamGroup
from drivers.powersensor3.rails import MICRO
from drivers.settings import check_known, read_number

SAMPLES_HZ = 20_000
DEFAULT_ROWS_HZ = 1000
_SERIAL = SerialSettings(4_000_000)  # USB: the rate means nothing
_WORDS: tuple[tuple[Quantity, str], ...] = (("voltage", "V"), ("current", "A"), ("power", "W"), ("energy", "J"))


class PowerSensor3Driver(Driver):
    """One device."""

    name: ClassVar[str] = "powersensor3"

    def __init__(self, device: Device, group: StreamGroup) -> None:
        self.groups: tuple[StreamGroup] = (group,)
        self.notes = tuple(
            Unavailable(f"only one sensor of pair {number} is in use", "configure both, or none, with psconfig")
            for number in device.half_pairs
        )
        self._device = device

    @classmethod
    def open(cls, options: DriverOptions) -> PowerSensor3Driver:
        """Ask the device at the setting `port` how it is set up. It streams from the first reading on.

        Raises:
            Unavailable: see there.
        """
        settings = options.settings
        check_known(cls.name, settings, ("port", "rows_hz", "scope", "accuracy_percent", "accuracy_watts"))
        if not settings.get("port"):
            raise Unavailable("nobody said where the device is", f"set {cls.name}.port=/dev/ttyACM0")
        block = _samples_per_row(settings)
        scope = settings.get("scope", "rail")
        if scope not in get_args(Scope):
            raise Unavailable(f"{cls.name}.scope is {scope!r}", f"use one of: {', '.join(get_args(Scope))}")
        accuracy = _accuracy(settings)
        device = Device(open_link(settings["port"], _SERIAL), settings["port"])
        try:
            device.identify()
        except BaseException as error:
            device.close()
            if isinstance(error, LinkLost):
                raise Unavailable(f"the line to it broke off: {error}", "plug it in again") from error
            raise
        block_s = block / SAMPLES_HZ
        channels = _channels(options, device, cast(Scope, scope), block_s, accuracy)
        return cls(device, StreamGroup(device, channels, block=block, block_s=block_s, clock_ns=options.clock_ns))

    def close(self) -> None:
        """Stop the stream and release the line."""
        self.groups[0].close()
        self._device.close()


def _samples_per_row(settings: Mapping[str, str]) -> int:
    rows_hz = read_number("powersensor3", settings, "rows_hz", "hertz")
    if rows_hz is None:
        return SAMPLES_HZ // DEFAULT_ROWS_HZ
    if not 1 <= rows_hz <= SAMPLES_HZ or SAMPLES_HZ % rows_hz:
        raise Unavailable(
            f"powersensor3.rows_hz is {rows_hz:g}, and does not divide {SAMPLES_HZ}", "give 1000, 2000, 100, 20000 …"
        )
    return round(SAMPLES_HZ / rows_hz)


def _accuracy(settings: Mapping[str, str]) -> Accuracy | None:
    percent = read_number("powersensor3", settings, "accuracy_percent", "percent")
    watts = read_number("powersensor3", settings, "accuracy_watts", "watts")
    if percent is None and watts is None:
        return None
    return Accuracy(reading_fraction=(percent or 0.0) / 100, absolute=watts or 0.0, source="set by the user")


def _channels(
    options: DriverOptions, device: Device, scope: Scope, block_s: float, accuracy: Accuracy | None
) -> list[Channel]:
    """Each rail's, and of all rails together where the user says what they feed."""
    name = f"powersensor3:{options.instance}" if options.instance else "powersensor3"
    whole = (options.instance or scope) if scope not in ("rail", "none") else None

    def channel(of: str, quantity: Quantity, unit: str, own: Scope, parent: str | None, text: str) -> Channel:
        kind: Literal["counter", "gauge"] = "counter" if quantity == "energy" else "gauge"
        return Channel(
            name=f"{name}/{of}/{quantity}",
            device=of,
            quantity=quantity,
            unit=unit,
            kind=kind,
            scope=own if quantity in ("power", "energy") else "none",
            parent=parent,
            model=f"PowerSensor3 {device.version}",
            scale=1 / MICRO if kind == "counter" else 1.0,
            update_period_s=block_s,
            window_s=block_s if kind == "gauge" else None,
            stamped=True,
            accuracy=_of_energy(accuracy) if quantity == "energy" else accuracy if quantity == "power" else None,
            description=text,
        )

    channels = []
    for pair in device.pairs:
        text = f"{pair.current.kind} and {pair.voltage.kind}"
        of = f"{options.instance}-{pair.device}" if options.instance else pair.device
        channels += [channel(of, quantity, unit, "rail", whole, text) for quantity, unit in _WORDS]
    if whole is not None:
        channels += [channel(whole, quantity, unit, scope, None, "all rails") for quantity, unit in _WORDS[2:]]
    return channels


def _of_energy(accuracy: Accuracy | None) -> Accuracy | None:
    """Of a counter: the share holds, and a number of watts adds up with time."""
    if accuracy is None:
        return None
    return msgspec.structs.replace(accuracy, absolute=0.0, per_second=accuracy.absolute)
