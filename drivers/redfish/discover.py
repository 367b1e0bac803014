"""Finds the one resource of a BMC that tells the power of its machine, newest schema first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from drivers.contract import ReadFailed, Status, Unavailable
from drivers.redfish import resources
from drivers.redfish.client import Client, Denied, NotThere
from drivers.redfish.resources import (
    Chassis,
    Collection,
    EnvironmentMetrics,
    Excerpt,
    NotAsDescribed,
    Power,
    Root,
    Sensor,
    parse,
)

_MOST_CHASSIS = 64
_MOST_SENSORS = 256

# Values in the order of the channels, a status each, and the device's own word for the instant; None: it says none.
Understood = tuple[Sequence[float | int], Sequence[Status], str | None]


@dataclass(frozen=True)
class Found:
    """A resource to poll."""

    path: str
    understand: Callable[[bytes], Understood]  # raises NotAsDescribed
    energy: str  # the property that counts; empty: there is none
    how: str  # where the figure comes from, for the reader
    model: str
    sensor: Sensor | None = None  # what it says of itself


async def find_power(client: Client, root: Root, wanted_chassis: str | None) -> Found:
    """Look at each chassis: EnvironmentMetrics, then Sensors, then Power.

    Raises:
        Unavailable: there is no power of the whole machine, or there are several that may overlap.
        ReadFailed: the BMC fails.
    """
    if root.chassis is None:
        raise Unavailable("the BMC lists no chassis", "update its firmware")
    members = parse(await client.get(root.chassis.uri), Collection).members[:_MOST_CHASSIS]
    every = [parse(await client.get(member.uri), Chassis) for member in members]
    if wanted_chassis is not None:
        every = [chassis for chassis in every if chassis.id == wanted_chassis]
    found: list[tuple[Chassis, Found]] = []
    reasons: list[str] = []
    for chassis in every:
        for look in (_in_environment, _in_sensors, _in_power):
            try:
                resource = await look(client, chassis)
            except (NotThere, NotAsDescribed, Unavailable) as error:
                reasons.append(f"{chassis.id}: {getattr(error, 'reason', error)}")
                continue
            if resource is not None:
                found.append((chassis, resource))
                break
    return _outermost(found, [chassis.id for chassis in every], reasons)


def _outermost(found: Sequence[tuple[Chassis, Found]], ids: Sequence[str], reasons: Sequence[str]) -> Found:
    """What is inside another chassis with power is in that one's figure."""
    if not found:
        told = f" ({'; '.join(reasons[:3])})" if reasons else ""
        where = ", ".join(ids) or "none of that name"
        raise Unavailable(
            f"the BMC tells no power of its machine; chassis: {where}{told}",
            "try the driver ipmi; some BMCs need a licence for power readings",
        )
    uris = {chassis.uri for chassis, _ in found}
    outer = [(c, f) for c, f in found if c.links is None or c.links.inside is None or c.links.inside.uri not in uris]
    for several in (outer, [(c, f) for c, f in outer if c.links is not None and c.links.systems]):
        if len(several) == 1:
            return several[0][1]
    names = ", ".join(chassis.id for chassis, _ in outer)
    raise Unavailable(f"several chassis tell power and may overlap: {names}", "choose one: redfish.chassis=ID")


async def _in_environment(client: Client, chassis: Chassis) -> Found | None:
    if chassis.environment is None:
        return None
    path = chassis.environment.uri
    metrics = parse(await client.get(path), EnvironmentMetrics)
    if metrics.power is None or metrics.power.reading is None:
        return None
    energy = _counter(metrics.energy)
    sensor = None
    if metrics.power.sensor:
        try:
            sensor = parse(await client.get(metrics.power.sensor.partition("#")[0]), Sensor)
        except Denied:
            raise
        except (ReadFailed, NotAsDescribed):  # the excerpt does without it
            sensor = None
    if sensor is not None and sensor.time is not None and sensor.reading is not None and not energy:
        how = f"the sensor {metrics.power.sensor}, by EnvironmentMetrics"
        return Found(metrics.power.sensor or "", _of_sensor, "", how, chassis.model or "", sensor)
    understand = partial(_of_environment, energy=energy)
    return Found(path, understand, energy, f"EnvironmentMetrics of {chassis.id}", chassis.model or "", sensor)


def _counter(energy: Excerpt | None) -> str:
    """The property to read: one alone, as they count from different days. The one since the sensor was made is best."""
    for name in ("lifetime", "reading"):
        if energy is not None and resources.micro_kwh(getattr(energy, name))[1] is Status.NEW:
            return name
    return ""


async def _in_sensors(client: Client, chassis: Chassis) -> Found | None:
    if chassis.sensors is None:
        return None
    whole: list[tuple[str, Sensor]] = []
    for member in parse(await client.get(chassis.sensors.uri), Collection).members[:_MOST_SENSORS]:
        try:
            sensor = parse(await client.get(member.uri), Sensor)
        except (NotThere, NotAsDescribed):
            continue
        if resources.is_whole(sensor):
            whole.append((member.uri, sensor))
    if len(whole) > 1:
        names = ", ".join(sensor.name for _, sensor in whole)
        raise Unavailable(f"several sensors of the chassis' power: {names}")
    if not whole:
        return None
    path, sensor = whole[0]
    return Found(path, _of_sensor, "", f"the sensor {sensor.name!r} of {chassis.id}", chassis.model or "", sensor)


async def _in_power(client: Client, chassis: Chassis) -> Found | None:
    if chassis.power is None:
        return None
    path = chassis.power.uri
    members = parse(await client.get(path), Power).control
    if not members:
        return None
    place, why = resources.choose_control(members)
    chosen = members[place]
    how = f"PowerControl {chosen.member or place} {chosen.name!r} of {chassis.id}, chosen by {why}"
    if len(members) > 1:
        how += f"; {len(members) - 1} others may lie inside and are not read"

    def understand(raw: bytes) -> Understood:
        now = parse(raw, Power).control
        same = [m for m in now if (m.member, m.name) == (chosen.member, chosen.name)]
        if len(same) != 1:
            raise NotAsDescribed(f"PowerControl {chosen.member} {chosen.name!r} is gone")
        value, status = resources.watts(same[0].watts, same[0].health)
        return (value,), (status,), None

    return Found(path, understand, "", how, chassis.model or "")


def _of_environment(raw: bytes, energy: str) -> Understood:
    metrics = parse(raw, EnvironmentMetrics)
    watts, status = resources.watts(metrics.power.reading if metrics.power is not None else None)
    if not energy:
        return (watts,), (status,), None
    kwh = getattr(metrics.energy, energy) if metrics.energy is not None else None
    count, count_status = resources.micro_kwh(kwh)
    return (watts, count), (status, count_status), None


def _of_sensor(raw: bytes) -> Understood:
    sensor = parse(raw, Sensor)
    if sensor.kind not in (None, "Power") or sensor.unit not in (None, "W"):
        return (math.nan,), (Status.INVALID,), sensor.time
    value, status = resources.watts(sensor.reading, sensor.health)
    return (value,), (status,), sensor.time
