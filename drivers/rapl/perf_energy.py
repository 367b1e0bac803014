"""RAPL energy through perf_event_open: the kernel's PMU `power`, described in /sys and read through a descriptor.

The counts are 64 bits wide, in 2^-32 J, and start at zero when an event is opened: the kernel folds the 32-bit
hardware counters into them by a timer, so there is no wrap to handle (arch/x86/events/rapl.c).
"""

from __future__ import annotations

import ctypes
import math
import os
import platform
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from drivers.contract import Status, Unavailable
from drivers.sysfs import read_integer, read_text

_PMU = Path("sys/bus/event_source/devices/power")
_SYSCALL_NUMBER = {"x86_64": 298, "aarch64": 241}  # of perf_event_open
_ATTR_BYTES = 64  # PERF_ATTR_SIZE_VER0
_CLOSE_ON_EXEC = 8  # PERF_FLAG_FD_CLOEXEC
_MOST_CPUS = 8192  # the kernel's own limit on x86


@dataclass(frozen=True)
class EnergyEvent:
    """One energy counter of one package or die."""

    name: str  # "energy-pkg"
    pmu_type: int
    config: int
    cpu: int  # any CPU of the package may read; the kernel names one
    joules_per_count: float


class PerfCounter:
    """A counting event on one CPU, all processes.

    Raises:
        OSError: the kernel refuses; EACCES or EPERM where the caller may not count on a whole CPU.
    """

    def __init__(self, pmu_type: int, config: int, cpu: int) -> None:
        self.place = f"perf event {config:#x} of PMU {pmu_type} on CPU {cpu}"
        self.trouble = ""
        number = _SYSCALL_NUMBER.get(platform.machine())
        if number is None:
            raise OSError(f"perf_event_open is not known on {platform.machine()}")
        # struct perf_event_attr: type, size, config, sample_period, sample_type, read_format, flags, wakeup_events,
        # bp_type, config1. All but the first three stay zero: count, do not sample, one value a read.
        attr = struct.pack("=IIQQQQQIIQ", pmu_type, _ATTR_BYTES, config, 0, 0, 0, 0, 0, 0, 0)
        syscall = ctypes.CDLL(None, use_errno=True).syscall
        syscall.restype = ctypes.c_long
        descriptor = syscall(
            ctypes.c_long(number),
            ctypes.c_char_p(attr),
            ctypes.c_int(-1),  # every process
            ctypes.c_int(cpu),
            ctypes.c_int(-1),  # no group
            ctypes.c_ulong(_CLOSE_ON_EXEC),
        )
        if descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._descriptor = int(descriptor)
        self.take: Callable[[], bytes] = partial(os.read, self._descriptor, 8)

    def judge(self, raw: bytes) -> tuple[int, Status]:
        """The count since this was opened and NEW, or MISSING where nothing came."""
        if len(raw) != 8:  # end of file: the CPU went offline
            self.trouble = "the kernel stopped the event"
            return 0, Status.MISSING
        return int.from_bytes(raw, "little"), Status.NEW  # both machines above run little-endian Linux

    def close(self) -> None:
        os.close(self._descriptor)


def find_energy_events(root: Path) -> tuple[list[EnergyEvent], list[Unavailable]]:
    """The energy events of the PMU `power`, one for each domain and package, and those that cannot be used.

    Raises:
        Unavailable: there is no such PMU, or its description cannot be understood.
    """
    pmu = root / _PMU
    if not pmu.is_dir():
        raise Unavailable("the kernel has no PMU `power`")
    pmu_type = read_integer(pmu / "type")
    cpus = parse_cpu_list(read_text(pmu / "cpumask") or "")
    layout = read_text(pmu / "format" / "event")
    if pmu_type is None or not 0 <= pmu_type < 2**32 or not cpus or layout != "config:0-7":
        raise Unavailable(f"{pmu} is not described as a RAPL PMU is")
    events: list[EnergyEvent] = []
    notes: list[Unavailable] = []
    for path in sorted((pmu / "events").glob("energy-*")):
        if "." in path.name:
            continue
        config = parse_event(read_text(path) or "")
        scale = parse_scale(read_text(path.with_name(path.name + ".scale")) or "")
        unit = read_text(path.with_name(path.name + ".unit"))
        if config is None or scale is None or unit != "Joules":
            notes.append(Unavailable(f"{path} has no event number, scale, or unit of joules that can be understood"))
            continue
        events += [EnergyEvent(path.name, pmu_type, config, cpu, scale) for cpu in cpus]
    if not events:
        raise Unavailable(f"{pmu} offers no energy event")
    return events, notes


def parse_cpu_list(text: str) -> list[int]:
    """The CPUs in a list such as "0,18" or "0-3,8", ascending; empty for anything that is not one."""
    cpus: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part)
        if match is None:
            return []
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if not first <= last < _MOST_CPUS:
            return []
        cpus.update(range(first, last + 1))
    return sorted(cpus)


def parse_event(text: str) -> int | None:
    """The event number of "event=0x02"; None for anything else. The PMU has 8 bits for it."""
    match = re.fullmatch(r"event=0x([0-9a-fA-F]{1,2})", text)
    return None if match is None else int(match[1], 16)


def parse_scale(text: str) -> float | None:
    """Joules in one count, as in "2.3283064365386962890625e-10"; None for anything but a positive number."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", text, re.ASCII):
        return None
    scale = float(text)
    return scale if 0 < scale < math.inf else None
