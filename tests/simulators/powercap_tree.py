"""Simulated RAPL on disk: powercap zones as the kernel lays them out, the perf PMU `power`, and /proc/cpuinfo.

The counters behave as the hardware's do: 32 bits of counts, scaled by whole nanojoules and cut to µJ.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

COUNTER_SIZE = 2**32
COUNT_NJ = 61_035  # 2^-14 J, cut to nJ as the kernel does
SERVER_DRAM_COUNT_NJ = 15_300


@dataclass
class Zone:
    """One zone. `energy_joules(t_s)` is the energy used from 0 to t_s; the counter stands at `first_count` at 0."""

    directory: Path
    count_nj: int
    energy_joules: Callable[[float], float]
    first_count: int
    counts: int = 0  # since 0, never wrapped

    @property
    def energy_file(self) -> Path:
        return self.directory / "energy_uj"


class PowercapTree:
    """Zones under `root`, which stands for / ."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.zones: dict[str, Zone] = {}
        (root / "sys/class/powercap").mkdir(parents=True)

    def add(
        self,
        zone: str,
        name: str,
        *,
        count_nj: int = COUNT_NJ,
        energy_joules: Callable[[float], float] = lambda t_s: 100.0 * t_s,
        first_count: int = 0,
        mode: int = 0o444,
    ) -> Zone:
        """Add zone "intel-rapl:0" or "intel-rapl:0:1", with a link to it in /sys/class/powercap."""
        numbers = zone.split(":")
        path = "/".join(":".join(numbers[: depth + 1]) for depth in range(len(numbers)))
        directory = self.root / "sys/devices/virtual/powercap" / path
        directory.mkdir(parents=True, exist_ok=True)
        link = self.root / "sys/class/powercap" / zone
        link.symlink_to(os.path.relpath(directory, link.parent))
        (directory / "name").write_text(f"{name}\n")
        (directory / "enabled").write_text("0\n")
        (directory / "max_energy_range_uj").write_text(f"{(COUNTER_SIZE - 1) * count_nj // 1000}\n")
        self.zones[zone] = Zone(directory, count_nj, energy_joules, first_count)
        self._write(self.zones[zone])
        self.zones[zone].energy_file.chmod(mode)
        return self.zones[zone]

    def advance_to(self, t_s: float) -> None:
        """Let every counter stand where it stands at t_s."""
        for zone in self.zones.values():
            zone.counts = int(zone.energy_joules(t_s) * 1e9 / zone.count_nj)
            self._write(zone)

    def remove(self, zone: str) -> None:
        """As when a package goes offline: whoever holds the file open reads nothing more."""
        gone = self.zones.pop(zone)
        os.truncate(gone.energy_file, 0)
        gone.energy_file.unlink()

    def _write(self, zone: Zone) -> None:
        energy_uj = (zone.first_count + zone.counts) % COUNTER_SIZE * zone.count_nj // 1000
        # One write of constant width into the same file: a reader that holds it open never sees half a number.
        descriptor = os.open(zone.energy_file, os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(descriptor, f"{energy_uj}\n".ljust(24, "\n").encode(), 0)
        os.close(descriptor)


def write_cpuinfo(root: Path, vendor: str, model: str, flags: str = "fpu vme") -> None:
    (root / "proc").mkdir(parents=True, exist_ok=True)
    text = "".join(
        f"processor\t: {cpu}\nvendor_id\t: {vendor}\nmodel name\t: {model}\nflags\t\t: {flags}\n\n" for cpu in range(2)
    )
    (root / "proc/cpuinfo").write_text(text)


def write_perf_pmu(
    root: Path, *, pmu_type: int, cpumask: str, events: dict[str, str], scale: str = "2.3283064365386962890625e-10"
) -> None:
    """The PMU `power`; `events` are such as {"energy-pkg": "event=0x02"}."""
    pmu = root / "sys/bus/event_source/devices/power"
    (pmu / "events").mkdir(parents=True)
    (pmu / "format").mkdir()
    (pmu / "type").write_text(f"{pmu_type}\n")
    (pmu / "cpumask").write_text(f"{cpumask}\n")
    (pmu / "format/event").write_text("config:0-7\n")
    for name, event in events.items():
        (pmu / "events" / name).write_text(f"{event}\n")
        (pmu / "events" / f"{name}.scale").write_text(f"{scale}\n")
        (pmu / "events" / f"{name}.unit").write_text("Joules\n")


def write_topology(root: Path, cpu: int, package: int, die: int = 0) -> None:
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    topology.mkdir(parents=True)
    (topology / "physical_package_id").write_text(f"{package}\n")
    (topology / "die_id").write_text(f"{die}\n")
