"""Driver `hwmon`: power, energy and temperature from the kernel's hardware monitors.

`drivers.hwmon.chips` says which chip measures what, and where that stands in the power tree. See docs/devices/hwmon.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from drivers.capturing import CapturingGroup
from drivers.contract import Driver, DriverOptions, Row, Status, Unavailable
from drivers.hwmon.chips import Sensor, find_sensors
from drivers.settings import check_known
from drivers.sysfs import Taken, Together, row_of


class SensorGroup(CapturingGroup[Taken]):
    """Sensors that are read together; a file that several of them need is read once."""

    def __init__(
        self, name: str, default_hz: float, max_hz: float, sensors: Sequence[Sensor], clock_ns: Callable[[], int]
    ) -> None:
        self.name = name
        self.default_hz = default_hz
        self.max_hz = max_hz
        self.channels = tuple(sensor.channel for sensor in sensors)
        files = list(dict.fromkeys(file for sensor in sensors for file in sensor.files))
        place = {file: index for index, file in enumerate(files)}
        self._plan = [(tuple(place[file] for file in sensor.files), sensor.factor) for sensor in sensors]
        self._files = Together(files, clock_ns)
        super().__init__(self._files.take)

    def _row(self, taken: Taken) -> Row:
        numbers, found = self._files.judge(taken)
        values = [_value([numbers[index] for index in indexes], factor) for indexes, factor in self._plan]
        statuses = [_status([found[index] for index in indexes]) for indexes, _ in self._plan]
        return row_of(taken, values, statuses)

    def close(self) -> None:
        self._files.close()


class HwmonDriver(Driver):
    """Every chip under /sys/class/hwmon that measures power, energy or temperature."""

    name: ClassVar[str] = "hwmon"

    def __init__(self, groups: Sequence[SensorGroup], notes: Sequence[Unavailable]) -> None:
        self.groups = tuple(groups)
        self.notes = tuple(notes)
        self._open_groups = tuple(groups)

    @classmethod
    def open(cls, options: DriverOptions) -> HwmonDriver:
        check_known(cls.name, options.settings, ())
        sensors, notes = find_sensors(options.root)
        thermal = [sensor for sensor in sensors if sensor.channel.quantity == "temperature"]
        power = [sensor for sensor in sensors if sensor.channel.quantity != "temperature"]
        groups = []
        if power:
            groups.append(SensorGroup("power", 10.0, 100.0, power, options.clock_ns))
        if thermal:  # a temperature follows the load in seconds, and some chips take milliseconds to answer
            groups.append(SensorGroup("thermal", 1.0, 10.0, thermal, options.clock_ns))
        return cls(groups, notes)

    def close(self) -> None:
        for group in self._open_groups:
            group.close()


def _value(numbers: Sequence[int], factor: float | None) -> float | int:
    if factor is None:
        return numbers[0]
    product = 1
    for number in numbers:
        product *= number
    return product * factor


def _status(statuses: Sequence[Status]) -> Status:
    """Of a value made of several: MISSING where one is, else INVALID where one is."""
    if Status.MISSING in statuses:
        return Status.MISSING
    return Status.INVALID if Status.INVALID in statuses else Status.NEW
