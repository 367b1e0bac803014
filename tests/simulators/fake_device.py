"""A driver of somebody else's package, found through its entry point: what it does is told by its settings.

Settings: `hz` (default 20), `hang_from` with `release_file` (readings from this number on hang until the file is
there), `fail_from`/`fail_until`, `lost_at`, `finish_at`, `raise_at` (numbers of readings), `journal` (a file that gets
the instant of every reading, so that a test knows what the spool should hold), `channel` (JSON: fields that replace
those of the power channel, however absurd), `value` (what its readings say).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from drivers.contract import Channel, DeviceLost, Driver, DriverOptions, Finished, Group, ReadFailed, Row

NEVER = 1 << 62
POWER_W = 42.5


class FakeGroup(Group):
    """A power gauge that always shows the same, and a counter of readings."""

    max_hz = 1000.0

    def __init__(self, device: str, settings: dict[str, str], clock_ns: Callable[[], int]) -> None:
        self.name = "power"
        self.default_hz = float(settings.get("hz", "20"))
        power = Channel(
            name=f"{device}/0/power",
            device=device,
            quantity="power",
            unit="W",
            kind="gauge",
            window_s=0.1,
            update_period_s=0.05,
        )
        self.channels = (
            msgspec.structs.replace(power, **json.loads(settings.get("channel", "{}"))),
            Channel(name=f"{device}/0/readings", device=device, quantity="energy", unit="J", kind="counter"),
        )
        self._clock_ns = clock_ns
        self._settings = settings
        self._journal = None
        if "journal" in settings:
            self._journal = os.open(settings["journal"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self._watts = float(settings.get("value", POWER_W))
        self.readings = 0

    def read(self) -> Sequence[Row]:
        before_ns = self._clock_ns()
        number = self.readings
        self.readings += 1
        if number >= self._number("hang_from"):
            while not Path(self._settings["release_file"]).exists():
                time.sleep(0.005)
        if self._number("fail_from") <= number < self._number("fail_until"):
            raise ReadFailed("the fake device is told to fail")
        if number == self._number("lost_at"):
            raise DeviceLost("the fake device is told to vanish")
        if number == self._number("finish_at"):
            raise Finished("the fake device is told to end")
        if number == self._number("raise_at"):
            raise KeyError("a mistake of the driver")
        after_ns = self._clock_ns()
        middle_ns = (before_ns + after_ns) // 2
        if self._journal is not None:
            os.write(self._journal, f"{middle_ns}\n".encode())
        return [Row(middle_ns, after_ns - before_ns, (self._watts, number))]

    def _number(self, name: str) -> int:
        return int(self._settings.get(name, NEVER))


class FakeDriver(Driver):
    """The first of two, so that one can hang and the other not."""

    name: ClassVar[str] = "fake"

    def __init__(self, options: DriverOptions) -> None:
        self.groups = (FakeGroup(self.name, dict(options.settings), options.clock_ns),)
        print("a driver that prints to standard output")

    @classmethod
    def open(cls, options: DriverOptions) -> FakeDriver:
        return cls(options)

    def close(self) -> None:
        """Nothing is held that the end of the process does not release."""


class SecondFakeDriver(FakeDriver):
    """The same under another name."""

    name: ClassVar[str] = "fake2"


def install(directory: Path) -> None:
    """Put what a package manager would leave of this package into `directory`, which belongs on PYTHONPATH."""
    info = directory / "fake_device-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-device\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[power_agent.drivers]\nfake = fake_device:FakeDriver\nfake2 = fake_device:SecondFakeDriver\n"
    )
