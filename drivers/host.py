"""Driver `host`: what the machine is doing: CPU utilisation and frequency, memory, network, disks, battery charge.

No power here; these channels explain it. Files are opened once and read with pread, because looking them up costs more
than reading them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from drivers.contract import Channel, Driver, DriverOptions, Group, Row, Status, Unavailable
from drivers.cpu_time import CpuTimes, utilization
from drivers.settings import check_known
from drivers.state_files import StateFile, open_state_files


class CpuUse(Group):
    """Utilisation of each package since the previous reading."""

    name = "cpu"
    default_hz = 2.0  # for a graph; finding the busy time of all CPUs costs more than reading a GPU
    max_hz = 100.0  # CPU time advances in ticks of 10 ms

    def __init__(self, cpu_times: CpuTimes, clock_ns: Callable[[], int]) -> None:
        self._cpu_times = cpu_times
        self._clock_ns = clock_ns
        self.channels = tuple(
            Channel(
                name=f"host/package-{package}/utilization",
                device=f"package-{package}",
                quantity="utilization",
                unit="%",
                kind="gauge",
                description=f"busy share of {len(cpus)} CPUs since the previous reading",
            )
            for package, cpus in cpu_times.cpus_by_package.items()
        )
        self._before = cpu_times.read()
        self._percent: list[float | None] = [None] * len(self.channels)

    def read(self) -> Sequence[Row]:
        t_ns, read_ns, after = self._cpu_times.read_stamped(self._clock_ns)
        statuses = bytearray()
        for place, (before, now) in enumerate(zip(self._before, after, strict=True)):
            used = utilization(before, now)
            status = Status.NEW
            if used is not None:
                self._percent[place] = 100.0 * used
            else:  # no tick since the previous reading
                status = Status.MISSING if self._percent[place] is None else Status.STALE
            statuses.append(status)
        self._before = after
        values = [percent or 0.0 for percent in self._percent]
        return [Row(t_ns, read_ns, values, bytes(statuses))]

    def close(self) -> None:
        self._cpu_times.close()


class SystemState(Group):
    """Slow quantities of the whole machine."""

    name = "system"
    default_hz = 1.0
    max_hz = 10.0

    def __init__(self, sources: Sequence[StateFile], clock_ns: Callable[[], int]) -> None:
        self._sources = sources
        self._clock_ns = clock_ns
        self.channels = tuple(channel for source in sources for channel in source.channels)

    def read(self) -> Sequence[Row]:
        begin_ns = self._clock_ns()
        values = [value for source in self._sources for value in source.read()]
        end_ns = self._clock_ns()
        statuses = bytes(Status.MISSING if value is None else Status.NEW for value in values)
        known = [0 if value is None else value for value in values]
        return [Row((begin_ns + end_ns) // 2, end_ns - begin_ns, known, statuses)]

    def close(self) -> None:
        for source in self._sources:
            source.close()


class HostDriver(Driver):
    """The machine that the agent runs on."""

    name: ClassVar[str] = "host"

    def __init__(self, cpu: CpuUse, system: SystemState) -> None:
        self.groups = (cpu, system) if system.channels else (cpu,)
        self._open_groups = (cpu, system)

    @classmethod
    def open(cls, options: DriverOptions) -> HostDriver:
        check_known(cls.name, options.settings, ())
        try:
            cpu_times = CpuTimes(options.root)
        except OSError as error:
            raise Unavailable(f"CPU time cannot be read: {error}", "mount /proc where the agent runs") from error
        try:
            cpu = CpuUse(cpu_times, options.clock_ns)
        except (OSError, ValueError) as error:
            cpu_times.close()
            raise Unavailable(f"CPU time cannot be read: {error}", "mount /proc where the agent runs") from error
        files = open_state_files(options.root, cpu_times.cpus_by_package)
        return cls(cpu, SystemState(files, options.clock_ns))

    def close(self) -> None:
        for group in self._open_groups:
            group.close()
