"""Finds drivers by name and opens them: the built-in ones, and those of other packages.

Another package offers a driver through the entry-point group `power_agent.drivers`; see docs/devices/write-a-driver.md.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType

from drivers.contract import Driver, DriverOptions, Scope, Unavailable

ENTRY_POINT_GROUP = "power_agent.drivers"
INSTANCE_NAME = r"[\w-]+"

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "nvml": "drivers.nvml.driver:NvmlDriver",
        "rapl": "drivers.rapl.driver:RaplDriver",
        "hwmon": "drivers.hwmon.driver:HwmonDriver",
        "host": "drivers.host:HostDriver",
        "ipmi": "drivers.ipmi.driver:IpmiDriver",
        "redfish": "drivers.redfish.driver:RedfishDriver",
        "snmp": "drivers.snmp.driver:SnmpDriver",
        "replay": "drivers.replay.driver:ReplayDriver",
        "ptdaemon": "drivers.ptdaemon.driver:PtdDriver",
        "estimate": "drivers.estimate:EstimateDriver",
        "wt210": "drivers.analyzers.yokogawa:Wt210Driver",
        "wt310e": "drivers.analyzers.yokogawa:Wt300Driver",
        "wt330e": "drivers.analyzers.yokogawa:Wt330Driver",
        "gpm83xx": "drivers.analyzers.gpm83xx:Gpm83xxDriver",
        "pw333x": "drivers.analyzers.pw333x:Pw333xDriver",
        "chroma6620x": "drivers.analyzers.chroma6620x:Chroma6620xDriver",
        "lmg": "drivers.analyzers.lmg:LmgDriver",
        "scpi": "drivers.analyzers.scpi:ScpiDriver",
        "modbus": "drivers.modbus.driver:ModbusDriver",
        "powersensor3": "drivers.powersensor3.driver:PowerSensor3Driver",
    }
)
ANALYZERS = ("wt210", "wt310e", "wt330e", "gpm83xx", "pw333x", "chroma6620x", "lmg", "scpi")
# Drivers that open nothing by themselves, by the setting that says where their device is.
ADDRESSED: Mapping[str, str] = MappingProxyType(
    {
        "replay": "path",
        "redfish": "hosts",
        "snmp": "hosts",
        "ptdaemon": "host",
        "modbus": "map",
        **dict.fromkeys((*ANALYZERS, "powersensor3"), "port"),
    }
)


@dataclass(frozen=True)
class Opened:
    """A driver that is open; whoever asked for it closes it."""

    name: str
    driver: Driver


@dataclass(frozen=True)
class Refused:
    """A driver that cannot be used here: why, and the command or step that would change it."""

    name: str
    reason: str
    fix: str


def open_drivers(
    names: Sequence[str] | None,
    *,
    root: Path = Path("/"),
    settings: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    clock_ns: Callable[[], int] = time.monotonic_ns,
) -> list[Opened | Refused]:
    """Open the named drivers, or with None all that work by themselves or are told by `settings` where their device is.

    A name is that of a kind of device, or KIND:INSTANCE, as in `yokogawa:rack1`: one of several devices of a kind,
    with settings of its own. A driver that cannot be used is an answer here, never an exception. `estimate` comes last,
    because it may only fill the gaps that measurements leave.
    """
    places, results = _known_drivers()
    if names is None:
        names = [kind for kind in places if kind not in ADDRESSED or ADDRESSED[kind] in settings.get(kind, {})]
        names += [name for name in settings if ":" in name]
    else:
        results = [refused for refused in results if refused.name in names]
    for name in sorted(dict.fromkeys(names), key=lambda name: name == "estimate"):
        kind, instance = _parted(name)
        if kind not in places:
            results.append(_unknown(name, list(places)))
            continue
        opened_before = [result for result in results if isinstance(result, Opened)]
        options = DriverOptions(
            root=root,
            instance=instance,
            settings=settings.get(name, {}),
            clock_ns=clock_ns,
            measured_scopes=_measured_scopes(opened_before),
        )
        results.append(_open(name, places[kind], options, opened_before))
    return results


def find_unknown(names: Iterable[str]) -> Refused | None:
    """The first name that no driver has, and what it may have been meant to be."""
    places, _ = _known_drivers()
    return next((_unknown(name, list(places)) for name in names if _parted(name)[0] not in places), None)


def _parted(name: str) -> tuple[str, str]:
    """Kind and instance of a driver's name; a name of another form is a kind that nobody knows."""
    kind, colon, instance = name.partition(":")
    return (kind, instance) if not colon or re.fullmatch(INSTANCE_NAME, instance) else (name, "")


def _known_drivers() -> tuple[dict[str, str | EntryPoint], list[Opened | Refused]]:
    """Where each driver is found, and those whose name another driver already has."""
    places: dict[str, str | EntryPoint] = dict(BUILT_IN)
    clashes: list[Opened | Refused] = []
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        if entry_point.name in places:
            reason = f"{entry_point.value} calls its driver {entry_point.name!r}, a name that another driver has"
            clashes.append(
                Refused(
                    entry_point.name, reason, f"rename the entry point in its package, or remove {entry_point.value}"
                )
            )
        else:
            places[entry_point.name] = entry_point
    return places, clashes


def _unknown(name: str, known: list[str]) -> Refused:
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return Refused(name, f"there is no driver {name!r}", f"{hint}Known drivers: {', '.join(sorted(known))}")


def _measured_scopes(opened: Sequence[Opened]) -> frozenset[Scope]:
    return frozenset(
        channel.scope
        for result in opened
        for group in result.driver.groups
        for channel in group.channels
        if channel.quantity in ("power", "energy") and channel.scope != "none" and not channel.estimate
    )


def _open(name: str, place: str | EntryPoint, options: DriverOptions, opened: Sequence[Opened]) -> Opened | Refused:
    try:
        driver_class = _load(place)
    except Exception as error:  # a package of others may fail in any way while it is imported
        text = f"its code cannot be loaded: {type(error).__name__}: {error}"
        return Refused(name, text, "install what is missing, or leave this driver out")
    try:
        driver = driver_class.open(options)
    except Unavailable as unavailable:
        return Refused(name, unavailable.reason, unavailable.fix)
    except Exception as error:  # a driver's mistake must not cost the readings of all the others
        text = f"opening it failed: {type(error).__name__}: {error}"
        return Refused(name, text, "report this to the driver's authors; the other drivers go on without it")
    taken = {
        channel.name: other.name for other in opened for group in other.driver.groups for channel in group.channels
    }
    for group in driver.groups:
        for channel in group.channels:
            if channel.name in taken:
                driver.close()
                other_name = taken[channel.name]
                if other_name == name:
                    fix = "report this to the driver's authors, or give its devices names of their own"
                    return Refused(name, f"it offers two channels called {channel.name}", fix)
                reason = f"its channel {channel.name} is already offered by the driver {other_name!r}"
                return Refused(name, reason, f"leave out one of the two drivers {name!r} and {other_name!r}")
            taken[channel.name] = name
    return Opened(name, driver)


def _load(place: str | EntryPoint) -> type[Driver]:
    if isinstance(place, EntryPoint):
        loaded = place.load()
    else:
        module, _, attribute = place.partition(":")
        loaded = getattr(importlib.import_module(module), attribute)
    if not (isinstance(loaded, type) and issubclass(loaded, Driver)):
        raise TypeError(f"{loaded!r} is not a subclass of drivers.contract.Driver")
    return loaded
