"""A driver to start from: a laptop's battery, read from /sys. docs/devices/write-a-driver.md explains each step."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from drivers.contract import Accuracy, Channel, Driver, DriverOptions, Group, ReadFailed, Row, Unavailable


class BatteryPower(Group):
    name = "power"
    default_hz = 1.0
    max_hz = 10.0

    def __init__(self, path: Path, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # opened once: looking it up costs more than reading it
        self.channels = (
            Channel(
                name="template/battery/power",
                device="battery",
                quantity="power",
                unit="W",
                kind="gauge",
                scope="battery",
                accuracy=Accuracy(reading_fraction=0.05, source="a guess: look your device up"),
            ),
        )

    def read(self) -> Sequence[Row]:
        begin_ns = self._clock_ns()
        try:
            microwatts = int(os.pread(self._fd, 32, 0))
        except (OSError, ValueError) as error:
            raise ReadFailed(f"battery power: {error}") from error  # never a zero in its place
        end_ns = self._clock_ns()
        return [Row((begin_ns + end_ns) // 2, end_ns - begin_ns, [microwatts / 1e6])]

    def close(self) -> None:
        os.close(self._fd)


class TemplateDriver(Driver):
    name: ClassVar[str] = "template"

    def __init__(self, group: BatteryPower) -> None:
        self.groups: tuple[BatteryPower] = (group,)

    @classmethod
    def open(cls, options: DriverOptions) -> TemplateDriver:
        for path in sorted((options.root / "sys/class/power_supply").glob("BAT*/power_now")):
            return cls(BatteryPower(path, options.clock_ns))
        raise Unavailable("no battery tells its power in /sys/class/power_supply", "run this on a laptop")

    def close(self) -> None:
        self.groups[0].close()
