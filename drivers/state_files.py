"""The files of /proc and /sys that tell how a machine is doing, and the channels that `host` reads from each."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from drivers.contract import Channel

# The kernel may interrupt a CPU to learn its frequency: a few tell enough, and 256 would cost the workload.
_FREQUENCY_CPUS_PER_PACKAGE = 4

Values = Sequence[float | int | None]  # None: that value did not come


class StateFile:
    """Files that stay open, and the values of the channels that come from them."""

    def __init__(
        self, paths: Sequence[Path], channels: Sequence[Channel], parse: Callable[[list[bytes]], Values]
    ) -> None:
        """Open the files.

        Raises:
            OSError: one of them is not there, or may not be read.
        """
        self.channels = channels
        self._parse = parse
        self._fds: list[int] = []
        try:
            for path in paths:
                self._fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self.close()
            raise

    def read(self) -> Values:
        """One value per channel; None for each that did not come."""
        try:
            return self._parse([_read_whole(fd) for fd in self._fds])
        except (OSError, ValueError, IndexError):
            return [None] * len(self.channels)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


def open_state_files(root: Path, cpus_by_package: Mapping[int, Sequence[int]]) -> list[StateFile]:
    """All of them that this machine has. A file that is not there is a quantity that it does not offer."""
    found: list[StateFile] = []
    for make in (
        *(_frequency(root, package, cpus) for package, cpus in cpus_by_package.items()),
        _memory(root),
        _network(root),
        _disks(root),
        *(_battery(supply) for supply in sorted((root / "sys/class/power_supply").glob("*"))),
    ):
        try:
            file = make()
        except OSError:
            continue
        if file.channels:
            found.append(file)
        else:
            file.close()
    return found


def _frequency(root: Path, package: int, cpus: Sequence[int]) -> Callable[[], StateFile]:
    few = cpus[:: max(1, -(-len(cpus) // _FREQUENCY_CPUS_PER_PACKAGE))]
    channel = Channel(
        name=f"host/package-{package}/frequency",
        device=f"package-{package}",
        quantity="frequency",
        unit="MHz",
        kind="gauge",
        description=f"mean of CPUs {', '.join(map(str, few))} as the kernel reports it",
    )

    def parse(texts: list[bytes]) -> Values:
        return [sum(int(text) for text in texts) / len(texts) / 1000]  # from kHz

    paths = [root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq" for cpu in few]
    return lambda: StateFile(paths, [channel] if paths else [], parse)


def _memory(root: Path) -> Callable[[], StateFile]:
    channel = Channel(
        name="host/memory/used",
        device="memory",
        quantity="memory",
        unit="B",
        kind="gauge",
        window_s=0.0,
        description="MemTotal - MemAvailable: what could not be given to a new program without swapping",
    )

    def parse(texts: list[bytes]) -> Values:
        kib = {line.split(b":")[0]: int(line.split()[1]) for line in texts[0].splitlines()[:8]}
        try:
            return [1024.0 * (kib[b"MemTotal"] - kib[b"MemAvailable"])]
        except KeyError:
            return [None]

    return lambda: StateFile([root / "proc/meminfo"], [channel], parse)


def _network(root: Path) -> Callable[[], StateFile]:
    """Bytes through each interface with a device behind it; where none has one, as in a container, all but loopback."""
    interfaces = sorted(path.name for path in (root / "sys/class/net").glob("*") if path.name != "lo")
    names = [name for name in interfaces if (root / "sys/class/net" / name / "device").exists()] or interfaces
    channels = [_traffic(name, direction, "bytes") for name in names for direction in ("received", "sent")]

    def parse(texts: list[bytes]) -> Values:
        columns = {}
        for line in texts[0].splitlines()[2:]:
            name, _, numbers = line.partition(b":")
            columns[name.strip().decode()] = numbers.split()
        # Received bytes are the first number behind the name, sent bytes the ninth.
        return [int(columns[name][place]) if name in columns else None for name in names for place in (0, 8)]

    return lambda: StateFile([root / "proc/net/dev"], channels, parse)


def _disks(root: Path) -> Callable[[], StateFile]:
    """Bytes to and from each disk with a device behind it: partitions and volumes on it would count them again."""
    names = sorted(path.name for path in (root / "sys/block").glob("*") if (path / "device").exists())
    # /proc/diskstats counts sectors of 512 bytes, whatever the disk uses.
    channels = [_traffic(name, way, "sectors of 512 B", 512.0) for name in names for way in ("read", "written")]

    def parse(texts: list[bytes]) -> Values:
        rows = (line.split() for line in texts[0].splitlines())
        columns = {fields[2].decode(): fields for fields in rows}
        return [int(columns[name][place]) if name in columns else None for name in names for place in (5, 9)]

    return lambda: StateFile([root / "proc/diskstats"], channels, parse)


def _traffic(device: str, direction: str, counted: str, scale: float = 1.0) -> Channel:
    return Channel(
        name=f"host/{device}/{direction}",
        device=device,
        quantity="traffic",
        unit="B",
        kind="counter",
        scale=scale,
        window_s=0.0,
        description=f"{counted} {direction} since boot",
    )


def _battery(supply: Path) -> Callable[[], StateFile]:
    channel = Channel(
        name=f"host/{supply.name}/charge",
        device=supply.name,
        quantity="charge",
        unit="%",
        kind="gauge",
        description="charge of the battery in percent of full",
    )

    def parse(texts: list[bytes]) -> Values:
        return [float(int(texts[0]))]

    def make() -> StateFile:
        feeds_machine = (supply / "type").read_text().strip() == "Battery" and not _belongs_to_peripheral(supply)
        return StateFile([supply / "capacity"], [channel] if feeds_machine else [], parse)

    return make


def _belongs_to_peripheral(supply: Path) -> bool:
    scope = supply / "scope"
    return scope.exists() and scope.read_text().strip() == "Device"  # the battery of a mouse


def _read_whole(fd: int) -> bytes:
    """All of a file from its start; one read of a long /proc file gives only a page of it."""
    pieces: list[bytes] = []
    size = 0
    while piece := os.pread(fd, 1 << 16, size):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
