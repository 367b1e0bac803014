"""Driver `estimate`: CPU package power modelled from utilisation, for machines that let nothing be measured.

P = idle + (peak - idle) × u, per package, where u is the busy share of its CPUs. The model is linear, so energy needs
no sampling: it follows from the CPU time since opening, at any rate. docs/devices/estimate.md derives the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from drivers.contract import (
    Accuracy,
    Channel,
    Driver,
    DriverOptions,
    Group,
    Row,
    Scope,
    Status,
    Unavailable,
)
from drivers.cpu_time import TICKS_PER_S, CpuTimes, utilization
from drivers.settings import check_known, read_number

# Thermal design power ÷ hardware threads of server parts of 2020–2023: 1.9 W (EPYC 9654) to 3.4 W (Xeon 8380).
DEFAULT_PEAK_WATTS_PER_CPU = 2.5
# Idle ÷ full power of servers in SPECpower_ssj2008, by CPU family: 0.16 (Skylake) to 0.32 (first EPYC).
DEFAULT_IDLE_SHARE = 0.2
LIMIT_FRACTION = 0.5

# Where one of these is measured, it already holds the power of the packages.
_COVERING_SCOPES: tuple[Scope, ...] = ("package", "psys", "node", "wall")


class PackagePower(Group):
    """Power and energy of each package, from the CPU time that it has spent."""

    name = "power"
    default_hz = 10.0
    max_hz = 100.0  # CPU time advances in ticks of 10 ms

    def __init__(
        self, cpu_times: CpuTimes, idle_watts: float | None, peak_watts: float | None, clock_ns: Callable[[], int]
    ) -> None:
        self._cpu_times = cpu_times
        self._clock_ns = clock_ns
        self._cpus = [len(cpus) for cpus in cpu_times.cpus_by_package.values()]
        self._peak_watts = [DEFAULT_PEAK_WATTS_PER_CPU * n if peak_watts is None else peak_watts for n in self._cpus]
        self._idle_watts = [DEFAULT_IDLE_SHARE * p if idle_watts is None else idle_watts for p in self._peak_watts]
        for idle, peak in zip(self._idle_watts, self._peak_watts, strict=True):
            if idle > peak:
                raise Unavailable(
                    f"idle power of {idle:g} W is more than peak power of {peak:g} W",
                    "give both per package: estimate.idle_watts=NUMBER and estimate.peak_watts=NUMBER",
                )
        stated = "as set" if peak_watts is not None and idle_watts is not None else "generic default"
        self.channels = tuple(
            channel
            for package, idle, peak in zip(cpu_times.cpus_by_package, self._idle_watts, self._peak_watts, strict=True)
            for channel in _channels(f"package-{package}", idle, peak, stated)
        )
        self._start_ns = clock_ns()
        self._start = self._before = cpu_times.read()
        self._watts: list[float | None] = [None] * len(self._cpus)

    def read(self) -> Sequence[Row]:
        """Power is the average since the previous reading; energy counts from opening, in µJ."""
        t_ns, read_ns, after = self._cpu_times.read_stamped(self._clock_ns)
        values: list[float | int] = []
        statuses = bytearray()
        for place, cpus in enumerate(self._cpus):
            idle, span = self._idle_watts[place], self._peak_watts[place] - self._idle_watts[place]
            used = utilization(self._before[place], after[place])
            status = Status.NEW
            if used is not None:
                self._watts[place] = idle + span * used
            else:  # no tick since the previous reading: what was known then is all that is known
                status = Status.MISSING if self._watts[place] is None else Status.STALE
            busy_s = (after[place].busy - self._start[place].busy) / (TICKS_PER_S * cpus)
            energy_uj = 1e6 * span * busy_s + idle * (t_ns - self._start_ns) / 1e3
            values += [self._watts[place] or 0.0, round(energy_uj)]
            statuses += bytes([status, Status.NEW])
        self._before = after
        return [Row(t_ns, read_ns, values, bytes(statuses))]


class EstimateDriver(Driver):
    """Model of CPU package power; refuses to stand beside a measurement of the same joules."""

    name: ClassVar[str] = "estimate"

    def __init__(self, group: PackagePower, cpu_times: CpuTimes) -> None:
        self.groups = (group,)
        self._cpu_times = cpu_times

    @classmethod
    def open(cls, options: DriverOptions) -> EstimateDriver:
        check_known(cls.name, options.settings, ("idle_watts", "peak_watts"))
        measured = [scope for scope in _COVERING_SCOPES if scope in options.measured_scopes]
        if measured:
            raise Unavailable(f"CPU power is already measured ({', '.join(measured)}); no estimate is needed")
        idle_watts = read_number(cls.name, options.settings, "idle_watts", "watts")
        peak_watts = read_number(cls.name, options.settings, "peak_watts", "watts")
        try:
            cpu_times = CpuTimes(options.root)
        except OSError as error:
            raise Unavailable(f"CPU time cannot be read: {error}", "mount /proc where the agent runs") from error
        try:
            return cls(PackagePower(cpu_times, idle_watts, peak_watts, options.clock_ns), cpu_times)
        except (OSError, ValueError) as error:
            cpu_times.close()
            raise Unavailable(f"CPU time cannot be read: {error}", "mount /proc where the agent runs") from error
        except Unavailable:
            cpu_times.close()
            raise

    def close(self) -> None:
        self._cpu_times.close()


def _channels(device: str, idle_watts: float, peak_watts: float, stated: str) -> tuple[Channel, Channel]:
    model = f"idle {idle_watts:g} W, peak {peak_watts:g} W ({stated}), linear in utilisation"
    accuracy = Accuracy(
        reading_fraction=LIMIT_FRACTION,
        source="assumed limits: power per thread of server parts lies within ±50 % of the default",
    )
    power = Channel(
        name=f"estimate/{device}/power",
        device=device,
        quantity="power",
        unit="W",
        kind="gauge",
        scope="package",
        model="linear CPU model",
        window_s=1 / PackagePower.default_hz,
        accuracy=accuracy,
        estimate=True,
        description=f"{model}; average since the previous reading",
    )
    energy = Channel(
        name=f"estimate/{device}/energy",
        device=device,
        quantity="energy",
        unit="J",
        kind="counter",
        scope="package",
        model="linear CPU model",
        scale=1e-6,
        accuracy=accuracy,
        estimate=True,
        description=f"{model}; since sampling began",
    )
    return power, energy
