"""Raritan PX2, PX3 and relatives (PDU2-MIB): inlets and outlets, each with its own number of decimal digits."""

from __future__ import annotations

from drivers.host_list import Host
from drivers.snmp.ber import Oid
from drivers.snmp.metrics import (
    Metric,
    Place,
    Walk,
    dotted,
    keep_wanted,
    make_metric,
    outlet_place,
    wanted_outlets,
)

_RARITAN: Oid = (1, 3, 6, 1, 4, 1, 13742, 6)
MODEL: Oid = (*_RARITAN, 3, 2, 1, 1, 3, 1)
_INLET_VALUES, _OUTLET_VALUES = (*_RARITAN, 5, 2, 3, 1), (*_RARITAN, 5, 4, 3, 1)
_INLET_SENSORS, _OUTLET_SENSORS = (*_RARITAN, 3, 3, 4, 1), (*_RARITAN, 3, 5, 4, 1)
_STATE, _VALUE = 3, 4  # columns of values
_UNITS, _DIGITS = 6, 7  # columns of sensors
_ACTIVE_POWER, _ACTIVE_ENERGY = 5, 8  # sensors, as the last number of an index
_WATT, _WATT_HOUR = 3, 5
_MOST_DIGITS = 6
_HIGHEST = 2**32 - 1


async def find_metrics(host: Host, walk: Walk, model: str) -> list[Metric]:
    """What this PDU tells; empty where it is no Raritan PDU.

    Raises:
        Unavailable: an outlet that is wanted is not there.
    """
    wanted = wanted_outlets(host)
    metrics: list[Metric] = []
    whole: str | None = None
    if wanted is None:
        inlets = await _sensors(walk, _INLET_VALUES, _INLET_SENSORS)
        units = list(dict.fromkeys(index[:2] for index in inlets))
        for unit in units:
            name = host.name if len(units) == 1 else f"{host.name}-inlet{dotted(unit).replace('.', '-')}"
            place = Place(name, "wall", None, f"inlet {dotted(unit)} at {host.address}: all its outlets")
            metrics += _metrics(host, place, unit, inlets, _INLET_VALUES, model)
        whole = host.name if len(units) == 1 else None
    outlets = await _sensors(walk, _OUTLET_VALUES, _OUTLET_SENSORS)
    by_number = {_number(index): index[:2] for index in outlets if index[2] == _ACTIVE_POWER}
    if not metrics and not by_number:
        return []
    for number in keep_wanted(list(by_number), wanted, "outlet"):
        place = outlet_place(host, number, (wanted or {}).get(number), whole)
        if wanted is None and whole is None and metrics:  # which of several inlets feeds it, is not known
            place = Place(place.device, "rail", None, place.text)
        metrics += _metrics(host, place, by_number[number], outlets, _OUTLET_VALUES, model)
    return metrics


async def _sensors(walk: Walk, values: Oid, sensors: Oid) -> dict[Oid, float]:
    """Steps in W or J of the power and energy sensors that work, by index (unit, inlet or outlet, sensor)."""
    found = await walk((*values, _VALUE))
    if not found:
        return {}
    states = await walk((*values, _STATE))
    units, digits = await walk((*sensors, _UNITS)), await walk((*sensors, _DIGITS))
    steps: dict[Oid, float] = {}
    for index in found:
        places = digits.get(index)
        if len(index) != 3 or states.get(index) == -1 or not isinstance(places, int) or not 0 <= places <= _MOST_DIGITS:
            continue
        if (index[2], units.get(index)) == (_ACTIVE_POWER, _WATT):
            steps[index] = 10.0**-places
        elif (index[2], units.get(index)) == (_ACTIVE_ENERGY, _WATT_HOUR):
            steps[index] = 3600 * 10.0**-places
    return steps


def _metrics(host: Host, place: Place, unit: Oid, steps: dict[Oid, float], values: Oid, model: str) -> list[Metric]:
    metrics = []
    for sensor in (_ACTIVE_POWER, _ACTIVE_ENERGY):
        index = (*unit, sensor)
        if index in steps:
            metrics.append(
                make_metric(
                    host,
                    place,
                    "power" if sensor == _ACTIVE_POWER else "energy",
                    value=(*values, _VALUE, *index),
                    state=(*values, _STATE, *index),
                    step=steps[index],
                    highest=_HIGHEST,
                    model=model,
                )
            )
    return metrics


def _number(index: Oid) -> str:
    """Of an outlet as it is printed on the PDU; those of linked units with the unit before."""
    return str(index[1]) if index[0] == 1 else f"{index[0]}.{index[1]}"
