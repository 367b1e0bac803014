"""APC rack PDUs (PowerNet-MIB, rPDU2): the device, its phases and its metered outlets."""

from __future__ import annotations

from drivers.host_list import Host
from drivers.snmp.ber import Oid
from drivers.snmp.metrics import (
    Metric,
    Place,
    Table,
    Walk,
    dotted,
    keep_wanted,
    make_metric,
    outlet_place,
    wanted_outlets,
)

_APC: Oid = (1, 3, 6, 1, 4, 1, 318, 1, 1)
MODEL: Oid = (*_APC, 12, 1, 5, 0)
_DEVICE_POWER, _DEVICE_ENERGY = (*_APC, 26, 4, 3, 1, 5), (*_APC, 26, 4, 3, 1, 9)
_PHASE_POWER = (*_APC, 26, 6, 3, 1, 7)
_OUTLET_POWER, _OUTLET_ENERGY = (*_APC, 26, 9, 4, 3, 1, 7), (*_APC, 26, 9, 4, 3, 1, 11)
_IDENT_POWER = (*_APC, 12, 1, 16)

_HUNDREDTH_KW, _TENTH_KWH = 10.0, 360_000.0


async def find_metrics(host: Host, walk: Walk, model: str) -> list[Metric]:
    """What this PDU tells; empty where it is no APC PDU.

    Raises:
        Unavailable: an outlet that is wanted is not there.
    """

    def power(place: Place, oid: Oid, step: float) -> Metric:
        return make_metric(host, place, "power", value=oid, step=step, model=model)

    def energy(place: Place, oid: Oid) -> Metric:
        return make_metric(host, place, "energy", value=oid, step=_TENTH_KWH, model=model)

    wanted = wanted_outlets(host)
    metrics: list[Metric] = []
    devices = _told(await walk(_DEVICE_POWER))
    whole: str | None = None
    if wanted is None and devices:
        energies = _told(await walk(_DEVICE_ENERGY))
        for index in devices:
            name = host.name if len(devices) == 1 else f"{host.name}-unit{dotted(index)}"
            place = Place(name, "wall", None, f"rPDU2 device {dotted(index)} at {host.address}: all its outlets")
            metrics.append(power(place, (*_DEVICE_POWER, *index), _HUNDREDTH_KW))
            if index in energies:
                metrics.append(energy(place, (*_DEVICE_ENERGY, *index)))
        whole = host.name if len(devices) == 1 else None
        for index in _told(await walk(_PHASE_POWER)):
            text = f"phase {dotted(index)} at {host.address}: a part of the device's power"
            place = Place(f"{host.name}-phase{dotted(index).replace('.', '-')}", "rail", whole, text)
            metrics.append(power(place, (*_PHASE_POWER, *index), _HUNDREDTH_KW))
    elif wanted is None:  # the older table; some models leave it at 0
        watts = {index: value for index, value in _told(await walk(_IDENT_POWER)).items() if value}
        place = Place(host.name, "wall", None, f"rPDUIdent at {host.address}: all its outlets")
        return [power(place, (*_IDENT_POWER, *index), 1.0) for index in watts]
    outlets = _told(await walk(_OUTLET_POWER))
    if not devices and not outlets:
        return []
    energies = _told(await walk(_OUTLET_ENERGY)) if outlets else {}
    by_number = {dotted(index): index for index in outlets}
    for number in keep_wanted(list(by_number), wanted, "outlet"):
        index = by_number[number]
        # Outlets of several units lie in one of them each, which the index does not say: shown, and not added.
        place = outlet_place(host, number, (wanted or {}).get(number), whole)
        if wanted is None and whole is None and metrics:
            place = Place(place.device, "rail", None, place.text)
        metrics.append(power(place, (*_OUTLET_POWER, *index), 1.0))
        if index in energies:
            metrics.append(energy(place, (*_OUTLET_ENERGY, *index)))
    return metrics


def _told(table: Table) -> dict[Oid, int]:
    """What the model can tell: -1 says that it cannot."""
    return {index: value for index, value in table.items() if isinstance(value, int) and value >= 0}
