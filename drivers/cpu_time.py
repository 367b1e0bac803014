"""What the CPUs of each package have done since boot, from one read of /proc/stat. Shared by `host` and `estimate`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from drivers.contract import ReadFailed

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class CpuTime(NamedTuple):
    """Time that the CPUs of a package have spent since boot, summed over them, in ticks of 1/TICKS_PER_S."""

    busy: int  # user, nice, system, irq, softirq; not steal: there another guest ran
    total: int


class CpuTimes:
    """Reads the CPU time of every package from one open descriptor."""

    def __init__(self, root: Path) -> None:
        """Open /proc/stat below `root`.

        Raises:
            OSError: it is not there, or may not be read.
        """
        self.cpus_by_package = cpus_by_package(root)
        self._package_of = {
            b"cpu%d" % cpu: place for place, cpus in enumerate(self.cpus_by_package.values()) for cpu in cpus
        }
        # Each CPU has one line of at most ten 20-digit numbers; what follows them is of no use here.
        self._size = 256 * (len(self._package_of) + 1)
        self._fd = os.open(root / "proc/stat", os.O_RDONLY | os.O_CLOEXEC)

    def read_stamped(self, clock_ns: Callable[[], int]) -> tuple[int, int, list[CpuTime]]:
        """The middle of the reading and how long it took, both in ns of `clock_ns`, and what `read` gives.

        Raises:
            ReadFailed: this reading did not come.
        """
        begin_ns = clock_ns()
        try:
            times = self.read()
        except (OSError, ValueError) as error:
            raise ReadFailed(f"CPU time cannot be read: {error}") from error
        end_ns = clock_ns()
        return (begin_ns + end_ns) // 2, end_ns - begin_ns, times

    def read(self) -> list[CpuTime]:
        """CPU time of each package, in the order of `cpus_by_package`.

        Raises:
            OSError, ValueError: this reading did not come, or is not what /proc/stat looks like.
        """
        lines = os.pread(self._fd, self._size, 0).split(b"\n")
        if len(self.cpus_by_package) == 1:
            return [_cpu_time(lines[0].split())]  # the sum over all CPUs, which also counts those taken offline
        busy = [0] * len(self.cpus_by_package)
        total = [0] * len(self.cpus_by_package)
        for line in lines[1:]:
            fields = line.split()
            if not fields or not fields[0].startswith(b"cpu"):
                break
            place = self._package_of.get(fields[0])
            if place is not None:
                time = _cpu_time(fields)
                busy[place] += time.busy
                total[place] += time.total
        return [CpuTime(*pair) for pair in zip(busy, total, strict=True)]

    def close(self) -> None:
        os.close(self._fd)


def utilization(before: CpuTime, after: CpuTime) -> float | None:
    """Busy share of the time between two readings, 0 … 1; None where they cannot tell.

    That is so when no tick has passed, and when a counter fell because a CPU was taken offline.
    """
    busy, total = after.busy - before.busy, after.total - before.total
    if total <= 0 or busy < 0:
        return None
    return min(busy / total, 1.0)


def cpus_by_package(root: Path) -> dict[int, list[int]]:
    """Online CPU numbers of each package, by package number; one package 0 where the kernel does not tell."""
    packages: dict[int, list[int]] = {}
    for folder in (root / "sys/devices/system/cpu").glob("cpu[0-9]*"):
        try:
            package = int((folder / "topology/physical_package_id").read_text())
        except (OSError, ValueError):
            continue  # a CPU that is offline has no topology
        packages.setdefault(max(package, 0), []).append(int(folder.name[3:]))  # -1: this platform has no packages
    return {package: sorted(packages[package]) for package in sorted(packages)} or {0: []}


def _cpu_time(fields: list[bytes]) -> CpuTime:
    if len(fields) < 9:
        raise ValueError(f"/proc/stat: expected 'cpu' and at least 8 numbers, found {b' '.join(fields)[:80]!r}")
    # guest and guest_nice, the ninth and tenth, are already part of user and nice
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, fields[1:9])
    busy = user + nice + system + irq + softirq
    return CpuTime(busy, busy + idle + iowait + steal)
