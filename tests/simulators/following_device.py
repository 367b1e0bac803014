"""A meter whose power follows a real process: `on_watts` while it runs, `off_watts` while it is stopped or gone.

Settings: `pid_file` (where the process writes its id), `update_s`, `window_s`, `delay_s`: every `update_s` it publishes
the mean over the `window_s` that ended `delay_s` before. It says nothing of these itself.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from drivers.contract import Channel, Driver, DriverOptions, Group, Row

OFF_WATTS, ON_WATTS = 50.0, 450.0
LOOK_S = 0.002


class Watched:
    """When the process ran: looked at often, in a thread."""

    def __init__(self, pid_file: Path) -> None:
        self._pid_file = pid_file
        self._stat: Path | None = None
        self._edges_ns: list[int] = []  # on first
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def mean(self, begin_ns: int, end_ns: int) -> float:
        """Share of the time that it ran."""
        edges = [*self._edges_ns]
        if len(edges) % 2:
            edges.append(1 << 62)
        on = sum(max(0, min(b, end_ns) - max(a, begin_ns)) for a, b in zip(edges[::2], edges[1::2], strict=True))
        return on / (end_ns - begin_ns)

    def _look(self) -> None:
        while not self.stop.wait(LOOK_S):
            if self._runs() != bool(len(self._edges_ns) % 2):
                self._edges_ns.append(time.monotonic_ns() - round(LOOK_S / 2 * 1e9))

    def _runs(self) -> bool:
        with suppress(OSError, ValueError):
            if self._stat is None:
                self._stat = Path(f"/proc/{int(self._pid_file.read_text())}/stat")
            return self._stat.read_text().rpartition(")")[2].split()[0] not in "TZX"
        self._stat = None  # another may follow
        return False


class FollowingGroup(Group):
    """Its one channel."""

    name = "power"
    default_hz = 50.0
    max_hz = 50.0

    def __init__(self, settings: dict[str, str], watched: Watched) -> None:
        self.channels = (
            Channel(
                name="following/0/power", device="0", quantity="power", unit="W", kind="gauge", scope="wall", model="M1"
            ),
        )
        self._update_ns, self._window_ns, self._delay_ns = (
            round(float(settings[name]) * 1e9) for name in ("update_s", "window_s", "delay_s")
        )
        self._watched = watched
        self._random = random.Random(1)
        self._update, self._watts = -1, 0.0

    def read(self) -> Sequence[Row]:
        now_ns = time.monotonic_ns()
        update = now_ns // self._update_ns
        if update != self._update:
            end_ns = update * self._update_ns - self._delay_ns
            share = self._watched.mean(end_ns - self._window_ns, end_ns)
            self._update, self._watts = update, OFF_WATTS + (ON_WATTS - OFF_WATTS) * share + self._random.gauss(0, 0.5)
        return [Row(now_ns, 0, (self._watts,))]


class FollowingDriver(Driver):
    """See the module."""

    name: ClassVar[str] = "following"

    def __init__(self, options: DriverOptions) -> None:
        self._watched = Watched(Path(options.settings["pid_file"]))
        self.groups = (FollowingGroup(dict(options.settings), self._watched),)

    @classmethod
    def open(cls, options: DriverOptions) -> FollowingDriver:
        return cls(options)

    def close(self) -> None:
        self._watched.stop.set()


def install(directory: Path) -> None:
    """Put what a package manager would leave of this package into `directory`, which belongs on PYTHONPATH."""
    info = directory / "following_device-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: following-device\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[power_agent.drivers]\nfollowing = following_device:FollowingDriver\n")
