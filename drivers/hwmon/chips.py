"""The chips under /sys/class/hwmon: what each measures, in which unit, and where that stands in the power tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from drivers.contract import Accuracy, Channel, Kind, Quantity, Scope, Unavailable
from drivers.sysfs import NumberFile, read_integer, read_text

_HWMON = Path("sys/class/hwmon")
_SENSOR_FILE = re.compile(r"(power|energy|temp)([0-9]{1,3})_(average|input)")
_GRACE_RAIL = re.compile(r"(Module|Grace|CPU|SysIO) Power Socket ([0-9]{1,3})")
_INTEL_TILE = re.compile(r"i915_(gt[0-9]{1,3})")
_INA3221_INPUTS = (1, 2, 3)  # in4 … in7 and curr4 are shunt voltages and sums
_LONGEST_LABEL = 64

_MICRO, _MILLI = 1e-6, 1e-3
# ACPI says 2^31 − 1 mW where it does not know; no machine takes as much.
_HIGHEST_UW = (2**31 - 1) * 1000 - 1
_HIGHEST_UJ = 2**64 - 1
_LOWEST_MILLIDEGREES, _HIGHEST_MILLIDEGREES = -273_150, 1_000_000
_HIGHEST_MILLIVOLTS = _HIGHEST_MILLIAMPERES = 10_000_000
# None of these can run on 0 W. It is what a failing ACPI meter says, and the second die of an MI250X, whose power is
# in the reading of the first.
_NEVER_ZERO: frozenset[Scope] = frozenset({"node", "module", "package", "gpu"})


@dataclass(frozen=True)
class Sensor:
    """A channel, and the files whose numbers times `factor`, all multiplied, are its value; None: the bare integer."""

    channel: Channel
    files: tuple[NumberFile, ...]
    factor: float | None


@dataclass(frozen=True)
class _Chip:
    """One hardware monitor."""

    directory: Path  # of its files
    name: str  # "amdgpu", "power_meter"
    bus_name: str  # of the device behind it, the same after a reboot: "0000:03:00.0", "1-0040", "coretemp.0"
    files: frozenset[str]

    @property
    def device(self) -> str:
        return f"{'gpu' if _is_gpu(self) else self.name}-{self.bus_name}"

    def label(self, file: str) -> str:
        """A word that fits into a name; empty where there is none."""
        return _word(read_text(self.directory / file) or "") if file in self.files else ""

    def number(self, file: str) -> int | None:
        return read_integer(self.directory / file) if file in self.files else None


class _Place(NamedTuple):
    """Where power goes that a sensor measures."""

    device: str
    scope: Scope
    parent: str | None = None
    description: str = ""


class _File(NamedTuple):
    """A file with a number, and what can be true of it."""

    name: str
    lowest: int
    highest: int


class _Offer(NamedTuple):
    """A sensor that is not open yet."""

    channel: Channel
    files: tuple[_File, ...]
    factor: float | None


def find_sensors(root: Path) -> tuple[list[Sensor], list[Unavailable]]:
    """All sensors that can be opened, and those that cannot.

    Raises:
        Unavailable: there is not one.
    """
    chips = _chips(root / _HWMON)
    sensors: list[Sensor] = []
    notes: list[Unavailable] = []
    taken: set[str] = set()
    for chip in chips:
        opened: dict[str, NumberFile] = {}
        for offer in _ina3221_offers(chip) if chip.name == "ina3221" else _offers(chip, chips):
            name = offer.channel.name
            if name in taken:
                notes.append(Unavailable(f"{chip.directory} is left out of {name}: another chip has that name"))
                continue
            try:
                for file in offer.files:
                    if file.name not in opened:
                        opened[file.name] = NumberFile(chip.directory / file.name, file.lowest, file.highest)
            except OSError as error:
                fix = f"run `sudo chmod a+r {error.filename}`" if isinstance(error, PermissionError) else ""
                notes.append(Unavailable(f"{error.filename}: {error.strerror}", fix))
                continue
            taken.add(name)
            sensors.append(Sensor(offer.channel, tuple(opened[file.name] for file in offer.files), offer.factor))
    if not sensors:
        raise next(
            (note for note in notes if note.fix),
            Unavailable(
                f"no chip in {root / _HWMON} measures power, energy or temperature",
                "run `sudo sensors-detect` of lm-sensors, which loads the drivers of this machine's chips; a virtual "
                "machine has none",
            ),
        )
    return sensors, notes


def _chips(hwmon: Path) -> list[_Chip]:
    chips: list[_Chip] = []
    for entry in sorted(hwmon.glob("hwmon*"), key=lambda path: (len(path.name), path.name)):
        # Drivers of the old style, the ACPI power meter among them, put their files beside the device's own.
        directory = entry if (entry / "name").exists() else entry / "device"
        name = _word(read_text(directory / "name") or "")
        try:
            files = frozenset(path.name for path in directory.iterdir())
            device = (entry / "device").resolve() if (entry / "device").exists() else entry
        except (OSError, RuntimeError):  # gone meanwhile; a loop of links
            continue
        if name:
            chips.append(_Chip(directory, name, _word(device.name), files))
    return chips


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.:+-]+", "_", text[:_LONGEST_LABEL]).strip("_")


def _offers(chip: _Chip, chips: Sequence[_Chip]) -> Iterator[_Offer]:
    """The channels of all chips but INA3221."""
    for file in sorted(chip.files):
        match = _SENSOR_FILE.fullmatch(file)
        if match is None:
            continue
        kind, number, way = match.groups()
        label = chip.label(f"{kind}{number}_label")
        if kind == "temp" and way == "input":
            yield _temperature(chip, file, f"temp{number}", label)
        elif kind == "energy" and way == "input":
            place = _energy_place(chip, chips, number, label)
            channel = _channel(place, f"energy{number}", "energy", "J", chip, kind="counter", scale=_MICRO)
            yield _Offer(channel, (_File(file, 0, _HIGHEST_UJ),), None)
        elif kind == "power" and not (way == "input" and f"power{number}_average" in chip.files):
            place = _power_place(chip, chips, number, label)
            interval_ms = chip.number(f"power{number}_average_interval") if way == "average" else None
            channel = _channel(
                place,
                file,
                "power",
                "W",
                chip,
                window_s=_seconds(interval_ms),
                accuracy=_stated_accuracy(chip, number),
            )
            lowest = 1 if place.scope in _NEVER_ZERO else 0
            yield _Offer(channel, (_File(file, lowest, _HIGHEST_UW),), _MICRO)


def _temperature(chip: _Chip, file: str, quantity_name: str, label: str) -> _Offer:
    name = f"{quantity_name}_{label}" if label else quantity_name
    channel = _channel(_Place(chip.device, "none"), name, "temperature", "°C", chip)
    return _Offer(channel, (_File(file, _LOWEST_MILLIDEGREES, _HIGHEST_MILLIDEGREES),), _MILLI)


def _ina3221_offers(chip: _Chip) -> Iterator[_Offer]:
    """Voltage, current and their product for each input; the chip has no power register."""
    window_s = _seconds(chip.number("update_interval"))
    labels = {n: chip.label(f"in{n}_label") for n in _INA3221_INPUTS}
    devices = {n: f"{chip.device}-{n}-{labels[n]}" if labels[n] else f"{chip.device}-{n}" for n in _INA3221_INPUTS}
    whole = next((devices[n] for n in _INA3221_INPUTS if labels[n] == "VDD_IN"), None)
    for n in _INA3221_INPUTS:
        if (
            not {f"in{n}_input", f"curr{n}_input"} <= chip.files
            or labels[n] == "NC"
            or chip.number(f"in{n}_enable") == 0
        ):
            continue
        # On a Jetson VDD_IN feeds the whole module, and the other rails of its chip with it.
        place = _Place(devices[n], "module") if devices[n] == whole else _Place(devices[n], "rail", whole)
        volts = _File(f"in{n}_input", 0, _HIGHEST_MILLIVOLTS)
        amperes = _File(f"curr{n}_input", -_HIGHEST_MILLIAMPERES, _HIGHEST_MILLIAMPERES)
        apart = place._replace(scope="none")
        yield _Offer(_channel(apart, "voltage", "voltage", "V", chip, window_s=window_s), (volts,), _MILLI)
        yield _Offer(_channel(apart, "current", "current", "A", chip, window_s=window_s), (amperes,), _MILLI)
        derived = place._replace(description="derived: voltage × current, read one after the other")
        power = _channel(derived, "power", "power", "W", chip, window_s=window_s)
        yield _Offer(power, (volts, amperes), _MICRO)


def _power_place(chip: _Chip, chips: Sequence[_Chip], number: str, label: str) -> _Place:
    if chip.name == "power_meter":
        return _meter_place(chip, chips)
    if chip.name == "amdgpu":
        if chip.label("in1_label") == "vddnb":  # the kernel offers it on APUs alone, and there power includes the CPU
            return _Place(chip.device, "rail", description="APU: includes the CPU cores")
        return _Place(chip.device, "gpu")
    return _rail(chip, f"power{number}", label)


def _energy_place(chip: _Chip, chips: Sequence[_Chip], number: str, label: str) -> _Place:
    """Intel GPUs count the energy of the card, and of parts of it apart; other counters are rails."""
    if not _is_gpu(chip) or chip.name == "amdgpu":
        return _rail(chip, f"energy{number}", label)
    tile = _INTEL_TILE.fullmatch(chip.name)
    part = label or (tile[1] if tile else "card" if number == "1" else "pkg" if number == "2" else f"energy{number}")
    if part == "card" and tile is None:
        return _Place(chip.device, "gpu", description="the whole card")
    has_card = any(
        other.device == chip.device and other.name in ("i915", "xe") and "energy1_input" in other.files
        for other in chips
    )
    return _Place(f"{chip.device}-{part}", "gpu", chip.device if has_card else None, f"{part}, a part of the card")


def _meter_place(chip: _Chip, chips: Sequence[_Chip]) -> _Place:
    """An ACPI power meter. On NVIDIA Grace there is one for each rail, and its firmware names it."""
    meters = [other for other in chips if other.name == "power_meter"]
    rails = {rail[0]: rail for rail in (_grace_rail(meter) for meter in meters) if rail is not None}
    rail = _grace_rail(chip)
    if rail is not None:
        words, kind, socket = rail
        module, package = f"module-{socket}", f"package-{socket}"
        if kind == "Module":
            return _Place(module, "module", description=words)
        if kind == "Grace":
            return _Place(package, "package", module if f"Module Power Socket {socket}" in rails else None, words)
        parent = package if f"Grace Power Socket {socket}" in rails else None
        if kind == "CPU":
            return _Place(f"core-{socket}", "core", parent, words)
        return _Place(f"uncore-{socket}", "uncore", parent, words)
    if chip.number("power1_is_battery") == 1:
        return _Place(chip.device, "battery")
    if len(meters) == 1:
        return _Place("node", "node", description="ACPI power meter")
    return _Place(
        chip.device, "rail", description=f"one of {len(meters)} ACPI power meters; its firmware names no rail"
    )


def _grace_rail(meter: _Chip) -> tuple[str, str, str] | None:
    """("CPU Power Socket 0", "CPU", "0"); None where the firmware says anything else."""
    match = _GRACE_RAIL.fullmatch(read_text(meter.directory / "power1_oem_info") or "")
    return None if match is None else (match[0], match[1], match[2])


def _rail(chip: _Chip, sensor: str, label: str) -> _Place:
    return _Place(f"{chip.device}-{sensor}", "rail", description=label)


def _is_gpu(chip: _Chip) -> bool:
    return chip.name in ("amdgpu", "i915", "xe") or _INTEL_TILE.fullmatch(chip.name) is not None


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds * _MILLI if milliseconds is not None and milliseconds > 0 else None


def _stated_accuracy(chip: _Chip, number: str) -> Accuracy | None:
    """From a file such as "95.0%". Only its whole percents count: the kernel prints 95.050 % as "95.50%"."""
    file = f"power{number}_accuracy"
    match = re.fullmatch(
        r"([1-9][0-9]?)(\.[0-9]+)?%", (read_text(chip.directory / file) or "") if file in chip.files else ""
    )
    if match is None:  # 100 % is no statement
        return None
    return Accuracy(reading_fraction=1 - int(match[1]) / 100, source=f"the meter's own {file}: {match[0]}")


def _channel(
    place: _Place,
    name: str,
    quantity: Quantity,
    unit: str,
    chip: _Chip,
    *,
    kind: Kind = "gauge",
    scale: float = 1.0,
    window_s: float | None = None,
    accuracy: Accuracy | None = None,
) -> Channel:
    return Channel(
        name=f"hwmon/{place.device}/{name}",
        device=place.device,
        quantity=quantity,
        unit=unit,
        kind=kind,
        scope=place.scope,
        parent=place.parent,
        model=chip.name,
        scale=scale,
        update_period_s=window_s,  # chips that state a window give one value at its end
        window_s=window_s,
        accuracy=accuracy,
        description=place.description or f"{chip.name} {name}",
    )
