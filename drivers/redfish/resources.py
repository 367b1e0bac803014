"""The Redfish resources that hold power, read narrowly: what has another form than the schema says is no value.

Schemas: EnvironmentMetrics 1.3, Sensor 1.7, Power 1.7, Chassis 1.23 (DMTF DSP8010).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from drivers.contract import Status, Unavailable

MOST_MEMBERS = 512

Members = Annotated[list[Any], Meta(max_length=MOST_MEMBERS)]
T = TypeVar("T")

_HIGHEST_WATTS = 1e6  # of one machine or enclosure
_HIGHEST_KWH = 1e12
_NOT_WORKING = frozenset(("Absent", "Disabled", "UnavailableOffline", "StandbyOffline", "Starting"))
_DURATION = re.compile(
    r"P(?:([0-9]{1,6})D)?(?:T(?:([0-9]{1,6})H)?(?:([0-9]{1,6})M)?(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)S)?)?"
)
_PARTS = frozenset(  # values of PhysicalContext
    (
        *("CPU", "CPUSubsystem", "Memory", "MemorySubsystem", "GPU", "GPUSubsystem", "Accelerator", "FPGA", "ASIC"),
        *("Fan", "NetworkingDevice", "StorageDevice", "StorageSubsystem", "Switch", "ComputeBay", "StorageBay"),
        "Board",
    )
)
_WHOLE = ("Chassis", "SystemBoard", "PowerSubsystem", "PowerSupply")
_WHOLE_NAME = re.compile(r"\b(system|server|chassis|total|node|enclosure)\b", re.IGNORECASE)
_PART_NAME = re.compile(
    r"\b(cpus?|processors?|memory|dimms?|gpus?|accelerators?|fans?|drives?|storage|pcie)\b", re.IGNORECASE
)


class NotAsDescribed(ValueError):
    """An answer that is not what the schema says."""


class Link(msgspec.Struct, frozen=True):
    """A reference to a resource."""

    uri: Annotated[str, Meta(max_length=1024)] = msgspec.field(name="@odata.id")


class Collection(msgspec.Struct, frozen=True):
    members: Annotated[list[Link], Meta(max_length=MOST_MEMBERS)] = msgspec.field(name="Members")


class Health(msgspec.Struct, frozen=True):
    state: str | None = msgspec.field(name="State", default=None)


class Excerpt(msgspec.Struct, frozen=True):
    """A copy of a sensor's reading inside another resource."""

    reading: float | None = msgspec.field(name="Reading", default=None)
    lifetime: float | None = msgspec.field(name="LifetimeReading", default=None)
    sensor: str | None = msgspec.field(name="DataSourceUri", default=None)


class EnvironmentMetrics(msgspec.Struct, frozen=True):
    power: Excerpt | None = msgspec.field(name="PowerWatts", default=None)
    energy: Excerpt | None = msgspec.field(name="EnergykWh", default=None)


class Sensor(msgspec.Struct, frozen=True):
    name: str = msgspec.field(name="Name", default="")
    reading: float | None = msgspec.field(name="Reading", default=None)
    kind: str | None = msgspec.field(name="ReadingType", default=None)
    unit: str | None = msgspec.field(name="ReadingUnits", default=None)
    time: str | None = msgspec.field(name="ReadingTime", default=None)
    sensing: str | None = msgspec.field(name="SensingInterval", default=None)
    averaging: str | None = msgspec.field(name="AveragingInterval", default=None)
    accuracy_percent: float | None = msgspec.field(name="Accuracy", default=None)
    context: str | None = msgspec.field(name="PhysicalContext", default=None)
    health: Health | None = msgspec.field(name="Status", default=None)


class PowerControl(msgspec.Struct, frozen=True):
    member: str = msgspec.field(name="MemberId", default="")
    name: str = msgspec.field(name="Name", default="")
    watts: float | None = msgspec.field(name="PowerConsumedWatts", default=None)
    context: str | None = msgspec.field(name="PhysicalContext", default=None)
    health: Health | None = msgspec.field(name="Status", default=None)


class Power(msgspec.Struct, frozen=True):
    control: Annotated[list[PowerControl], Meta(max_length=MOST_MEMBERS)] = msgspec.field(
        name="PowerControl", default_factory=list
    )


class ChassisLinks(msgspec.Struct, frozen=True):
    systems: Members = msgspec.field(name="ComputerSystems", default_factory=list)
    inside: Link | None = msgspec.field(name="ContainedBy", default=None)


class Chassis(msgspec.Struct, frozen=True):
    uri: str = msgspec.field(name="@odata.id")
    id: str = msgspec.field(name="Id")
    model: str | None = msgspec.field(name="Model", default=None)
    environment: Link | None = msgspec.field(name="EnvironmentMetrics", default=None)
    sensors: Link | None = msgspec.field(name="Sensors", default=None)
    power: Link | None = msgspec.field(name="Power", default=None)
    links: ChassisLinks | None = msgspec.field(name="Links", default=None)


class ServiceLinks(msgspec.Struct, frozen=True):
    sessions: Link | None = msgspec.field(name="Sessions", default=None)


class Root(msgspec.Struct, frozen=True):
    """The resource /redfish/v1/."""

    chassis: Link | None = msgspec.field(name="Chassis", default=None)
    links: ServiceLinks | None = msgspec.field(name="Links", default=None)


def parse(raw: bytes, kind: type[T]) -> T:
    """A resource.

    Raises:
        NotAsDescribed: it is no JSON, or a part that is used has another form than its schema says.
    """
    try:
        return msgspec.json.decode(raw.decode(), type=kind)  # in parts that it skips, msgspec takes any bytes for text
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotAsDescribed(f"it is no {kind.__name__} resource: {error}") from None


def watts(value: float | None, health: Health | None = None) -> tuple[float, Status]:
    """A power reading: null, or one of a part that does not work, is MISSING; what no machine draws is INVALID."""
    if value is None or (health is not None and health.state in _NOT_WORKING):
        return math.nan, Status.MISSING
    if not 0 < value <= _HIGHEST_WATTS:  # a machine whose BMC answers draws something
        return math.nan, Status.INVALID
    return value, Status.NEW


def micro_kwh(value: float | None) -> tuple[int, Status]:
    """An energy reading in millionths of a kWh."""
    if value is None:
        return 0, Status.MISSING
    if not 0 <= value <= _HIGHEST_KWH:
        return 0, Status.INVALID
    return round(value * 1e6), Status.NEW


def seconds(duration: str | None) -> float | None:
    """An ISO 8601 duration such as "PT0.5S"; None where it is none, or not above 0."""
    found = _DURATION.fullmatch(duration or "")
    if found is None:
        return None
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest or None


def choose_control(members: Sequence[PowerControl]) -> tuple[int, str]:
    """The member that tells the power of the whole machine, and why; others may be parts of it and are not added.

    Raises:
        Unavailable: none does, or it cannot be told which.
    """
    told = [place for place, member in enumerate(members) if member.watts is not None]
    whole = [
        place
        for place in told
        if members[place].context not in _PARTS
        and not (members[place].context is None and _PART_NAME.search(members[place].name))
    ]
    if not whole:
        raise Unavailable(
            "PowerControl has no member for the whole machine", "update the BMC's firmware; else use a PDU"
        )
    for reason, fits in (
        ("being the only one that is no part", whole),
        ("its PhysicalContext", [place for place in whole if members[place].context in _WHOLE]),
        ("its name", [place for place in whole if _WHOLE_NAME.search(members[place].name)]),
    ):
        if len(fits) == 1:
            return fits[0], reason
    names = ", ".join(f"{members[place].member} {members[place].name!r}" for place in whole)
    raise Unavailable(
        f"PowerControl has several members that may overlap: {names}", "tell the project which one is the whole machine"
    )


def is_whole(sensor: Sensor) -> bool:
    """Whether a sensor tells the power of the whole machine."""
    of_power = sensor.kind == "Power" and sensor.unit == "W" and sensor.reading is not None
    return of_power and (
        sensor.context == "Chassis" or (sensor.context is None and bool(_WHOLE_NAME.search(sensor.name)))
    )
