"""Driver `rapl`: energy of CPU packages, their parts and their memory, as the processor itself accounts for it.

Reads the kernel's powercap zones, and its perf events where the zones may not be read. See docs/devices/rapl.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from drivers.capturing import CapturingGroup
from drivers.contract import Accuracy, Channel, Driver, DriverOptions, Row, Scope, Unavailable
from drivers.rapl.perf_energy import EnergyEvent, PerfCounter, find_energy_events
from drivers.settings import check_known
from drivers.sysfs import Counting, NumberFile, Taken, Together, read_integer, read_text, row_of

_POWERCAP = Path("sys/class/powercap")
_ZONE = re.compile(r"intel-rapl(-mmio)?((?::[0-9a-f]{1,4})+)")  # the kernel numbers zones in hexadecimal
_PACKAGE_NAME = re.compile(r"package-[0-9]{1,6}(-die-[0-9]{1,6})?")
_PART_SCOPES: dict[str, Scope] = {"core": "core", "uncore": "uncore", "dram": "dram"}
_EVENT_PARTS = {"energy-cores": "core", "energy-gpu": "uncore", "energy-ram": "dram"}
_COUNTER_MAX = 2**32 - 1  # every RAPL energy counter is 32 bits wide
_LARGEST = 2**64 - 1

_FIX_PERMISSION = (
    "run `sudo chmod a+r /sys/class/powercap/intel-rapl*:*/energy_uj`; to keep that after a reboot, put the line\n"
    '  ACTION!="remove", SUBSYSTEM=="powercap", KERNEL=="intel-rapl*:*", RUN+="/bin/chmod a+r /sys%p/energy_uj"\n'
    "into /etc/udev/rules.d/70-power-agent-rapl.rules. Any local user can then read the counters, and such readings "
    "have leaked secrets (CVE-2020-8694); docs/devices/rapl.md shows how to let in one group only"
)
_FIX_HIDDEN = (
    "start the container with `--security-opt systempaths=unconfined` (Docker) or `--security-opt "
    "unmask=ALL` (Podman), or measure outside of it"
)
_FIX_VIRTUAL = "in a cloud take a bare-metal instance; else measure on the host, or with a meter, a BMC or a PDU"
_FIX_NO_ZONES = (
    "run `sudo modprobe intel_rapl_msr` (AMD needs Linux 5.11 or newer); in a container, mount /sys/class/powercap and "
    "/sys/devices/virtual/powercap from the host, read-only"
)


@dataclass(frozen=True)
class _Domain:
    """What a counter counts, and where that stands in the power tree."""

    device: str
    scope: Scope
    parent: str | None = None  # core and uncore lie inside their package; dram lies outside of it


@dataclass(frozen=True)
class _Zone:
    """A directory of the powercap tree."""

    identity: tuple[int, ...]  # (0,) or (0, 1)
    directory: Path
    mmio: bool


class EnergyGroup(CapturingGroup[Taken]):
    """All energy counters of the machine's processors."""

    name = "energy"
    default_hz = 10.0
    max_hz = 1000.0  # the hardware updates its counters about every millisecond

    def __init__(self, channels: Sequence[Channel], counters: Sequence[Counting], clock_ns: Callable[[], int]) -> None:
        self.channels = tuple(channels)
        self._counters = Together(counters, clock_ns)
        super().__init__(self._counters.take)

    def _row(self, taken: Taken) -> Row:
        return row_of(taken, *self._counters.judge(taken))

    def close(self) -> None:
        self._counters.close()


class RaplDriver(Driver):
    """The Running Average Power Limit counters of Intel, AMD and Hygon processors."""

    name: ClassVar[str] = "rapl"

    def __init__(self, group: EnergyGroup, notes: Sequence[Unavailable]) -> None:
        self.groups = (group,)
        self.notes = tuple(notes)
        self._group = group

    @classmethod
    def open(cls, options: DriverOptions) -> RaplDriver:
        check_known(cls.name, options.settings, ())
        processor = read_processor(options.root)
        try:
            channels, counters, notes = _open_powercap(options.root, processor)
        except Unavailable as powercap:
            try:
                channels, counters, notes = _open_perf(options.root, processor)
            except Unavailable as perf:
                fix = f"{powercap.fix}; or, for perf, {perf.fix}" if perf.fix else powercap.fix
                raise Unavailable(f"{powercap.reason}; and perf: {perf.reason}", fix) from perf
        return cls(EnergyGroup(channels, counters, options.clock_ns), notes)

    def close(self) -> None:
        self._group.close()


@dataclass(frozen=True)
class Processor:
    """What /proc/cpuinfo says of the first CPU."""

    vendor: str
    model: str
    virtual: bool  # a hypervisor runs below


def read_processor(root: Path) -> Processor:
    """Never fails: what /proc/cpuinfo does not say is empty."""
    fields: dict[str, str] = {}
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            break  # an empty line ends the first CPU
        fields[key.strip()] = value.strip()
    return Processor(
        fields.get("vendor_id", ""), fields.get("model name", ""), "hypervisor" in fields.get("flags", "").split()
    )


def counter_modulus(max_energy_range_uj: int) -> int:
    """µJ at which energy_uj wraps, to the nearest µJ.

    The kernel scales a 32-bit counter by a whole number of nanojoules per count and cuts to µJ, and
    max_energy_range_uj is its last count so scaled (drivers/powercap/intel_rapl_common.c). The wrap is one count
    further: 262 143 328 850 µJ stands for 61 035 nJ a count and a wrap at 262 143 328 911.36 µJ. What is cut off here
    is less than 1 µJ a wrap.
    """
    count_nj = round(max_energy_range_uj * 1000 / _COUNTER_MAX)
    if _COUNTER_MAX * count_nj // 1000 != max_energy_range_uj:
        return max_energy_range_uj + 1  # not such a counter: then one of whole µJ
    return ((_COUNTER_MAX + 1) * count_nj + 500) // 1000


def _open_powercap(root: Path, processor: Processor) -> tuple[list[Channel], list[Counting], list[Unavailable]]:
    """Every zone that can be read, each domain once.

    Raises:
        Unavailable: not one can.
    """
    zones = sorted(_zones(root / _POWERCAP), key=lambda zone: (zone.mmio, zone.identity))
    if not zones:
        if processor.virtual:
            raise Unavailable("this is a virtual machine, and its host passes no RAPL counters on", _FIX_VIRTUAL)
        raise Unavailable(f"{root / _POWERCAP} has no intel-rapl zones", _FIX_NO_ZONES)
    names = {(zone.mmio, zone.identity): read_text(zone.directory / "name") for zone in zones}
    if all(name is None for name in names.values()):
        raise Unavailable(
            f"{zones[0].directory} is listed, but what it points to is not there: container runtimes hide it",
            _FIX_HIDDEN,
        )
    channels: list[Channel] = []
    counters: list[Counting] = []
    notes: list[Unavailable] = []
    seen: set[str] = set()
    for zone in zones:
        domain = _zone_domain(zone, names)
        if domain is None:
            name = names[zone.mmio, zone.identity]
            notes.append(Unavailable(f"{zone.directory} has the name {name!r}, which is no RAPL domain"))
            continue
        if domain.device in seen:
            if zone.mmio:
                continue  # the same counter again, through another door
            serial = ".".join(f"{number:x}" for number in zone.identity)
            domain = _Domain(f"{domain.device}-zone-{serial}", domain.scope, domain.parent)
        try:
            range_uj = _zone_range_uj(zone)
            counter = NumberFile(zone.directory / "energy_uj", 0, _LARGEST if range_uj is None else range_uj)
        except OSError as error:
            fix = _FIX_PERMISSION if isinstance(error, PermissionError) else ""
            notes.append(Unavailable(f"{zone.directory / 'energy_uj'}: {error.strerror}", fix))
            continue
        if range_uj is None:
            notes.append(
                Unavailable(
                    f"{zone.directory / 'max_energy_range_uj'} gives no range: where the counter of {domain.device} "
                    "wraps is unknown, and each wrap will be taken for a reset"
                )
            )
        seen.add(domain.device)
        counters.append(counter)
        modulus = None if range_uj is None else counter_modulus(range_uj)
        text = f"powercap zone {zone.directory.name}"
        channels.append(_channel(domain, processor, 1e-6, modulus, text))
    if not counters:
        raise _most_helpful(notes)
    return channels, counters, notes


def _zones(powercap: Path) -> Iterator[_Zone]:
    for directory in powercap.glob("intel-rapl*"):
        match = _ZONE.fullmatch(directory.name)
        if match is not None:
            identity = tuple(int(part, 16) for part in match[2][1:].split(":"))
            yield _Zone(identity, directory, match[1] is not None)


def _zone_domain(zone: _Zone, names: dict[tuple[bool, tuple[int, ...]], str | None]) -> _Domain | None:
    """The domain of a zone by its name and its parent's; None where they are not those of RAPL."""
    name = names[zone.mmio, zone.identity] or ""
    if len(zone.identity) == 1:
        if _PACKAGE_NAME.fullmatch(name):
            return _Domain(name, "package")
        if name == "psys":
            psys = sorted(key for key, other in names.items() if other == "psys" and len(key[1]) == 1)
            return _Domain(f"psys-{psys.index((zone.mmio, zone.identity))}", "psys")
        return None
    package = names.get((zone.mmio, zone.identity[:-1])) or ""
    if len(zone.identity) == 2 and _PACKAGE_NAME.fullmatch(package) and name in _PART_SCOPES:
        return _part(name, package)
    return None


def _part(name: str, package: str) -> _Domain:
    """A part of "package-0-die-1" such as "core": device "core-0-die-1"."""
    parent = None if name == "dram" else package
    return _Domain(name + package.removeprefix("package"), _PART_SCOPES[name], parent)


def _zone_range_uj(zone: _Zone) -> int | None:
    range_uj = read_integer(zone.directory / "max_energy_range_uj")
    return range_uj if range_uj is not None and 0 < range_uj <= _LARGEST else None


def _most_helpful(notes: Sequence[Unavailable]) -> Unavailable:
    """The first that can be put right; the first of all where none can."""
    return next((note for note in notes if note.fix), notes[0])


def _open_perf(root: Path, processor: Processor) -> tuple[list[Channel], list[Counting], list[Unavailable]]:
    """Every energy event of the PMU `power`.

    Raises:
        Unavailable: there is none, or the kernel lets this user count none of them.
    """
    events, notes = find_energy_events(root)
    packages = _package_names(root, {event.cpu for event in events})
    channels: list[Channel] = []
    counters: list[Counting] = []
    for event in events:
        domain = _event_domain(event, packages)
        if domain is None:
            notes.append(Unavailable(f"the perf event {event.name} on CPU {event.cpu} belongs to no known domain"))
            continue
        try:
            counter = PerfCounter(event.pmu_type, event.config, event.cpu)
        except PermissionError as error:
            paranoid = read_text(root / "proc/sys/kernel/perf_event_paranoid")
            notes.append(
                Unavailable(
                    f"{event.name}: {error.strerror}, with kernel.perf_event_paranoid = {paranoid}",
                    "run `sudo sysctl kernel.perf_event_paranoid=0`, or give the agent the capability CAP_PERFMON",
                )
            )
            continue
        except OSError as error:
            notes.append(Unavailable(f"{event.name} on CPU {event.cpu}: {error}"))
            continue
        counters.append(counter)
        # No modulus: the count starts at zero here and needs 4.3 GJ to wrap, so a decrease is an event reopened.
        text = f"perf event power/{event.name}/ on CPU {event.cpu}"
        channels.append(_channel(domain, processor, event.joules_per_count, None, text))
    if not counters:
        raise _most_helpful(notes)
    return channels, counters, notes


def _package_names(root: Path, cpus: set[int]) -> dict[int, str]:
    """The package of each CPU; with its die, where two of the CPUs share a package. Those without one are left out."""
    places: dict[int, tuple[int, int]] = {}
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        package = read_integer(topology / "physical_package_id")
        if package is not None and package >= 0:
            places[cpu] = (package, read_integer(topology / "die_id") or 0)
    packages = [package for package, _ in places.values()]
    names = {
        cpu: f"package-{package}" if packages.count(package) == 1 else f"package-{package}-die-{die}"
        for cpu, (package, die) in places.items()
    }
    return {cpu: name for cpu, name in names.items() if list(names.values()).count(name) == 1}


def _event_domain(event: EnergyEvent, packages: dict[int, str]) -> _Domain | None:
    package = packages.get(event.cpu)
    if package is None:
        return None
    if event.name == "energy-pkg":
        return _Domain(package, "package")
    if event.name == "energy-psys":
        return _Domain(f"psys{package.removeprefix('package')}", "psys")
    part = _EVENT_PARTS.get(event.name)
    return None if part is None else _part(part, package)


def _channel(domain: _Domain, processor: Processor, scale: float, modulus: int | None, source: str) -> Channel:
    return Channel(
        name=f"rapl/{domain.device}/energy",
        device=domain.device,
        quantity="energy",
        unit="J",
        kind="counter",
        scope=domain.scope,
        parent=domain.parent,
        model=processor.model,
        scale=scale,
        modulus=modulus,
        update_period_s=0.001,  # with jitter; Hähnel et al., SIGMETRICS PER 2012
        accuracy=_accuracy(domain.scope, processor.vendor),
        description=source,
    )


def _accuracy(scope: Scope, vendor: str) -> Accuracy:
    """Limits that this project assumes, because no maker of processors states any."""
    if scope == "dram":
        return Accuracy(
            reading_fraction=0.20,
            source="assumed; no maker states one. RAPL follows the memory's load with a constant offset, which weighs "
            "most at idle (Desrochers, Paradis, Weaver, MEMSYS 2016)",
        )
    if scope == "psys":
        return Accuracy(
            reading_fraction=0.10, source="assumed; no maker states one. What psys covers is up to the board"
        )
    if vendor == "GenuineIntel":
        return Accuracy(
            reading_fraction=0.05,
            source="assumed; Intel states none. Servers since Haswell-EP measure the regulators; others model",
        )
    return Accuracy(
        reading_fraction=0.10, source="assumed; the maker states none, and the figure is a model's, not a measurement"
    )
