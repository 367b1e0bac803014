"""Anything with the standard ENTITY-SENSOR-MIB (RFC 3433): its sensors of watts."""

from __future__ import annotations

import re

from drivers.host_list import Host
from drivers.snmp.ber import Oid
from drivers.snmp.metrics import Metric, Place, Walk, dotted, keep_wanted, make_metric, wanted_outlets

MODEL: Oid = (1, 3, 6, 1, 2, 1, 1, 1, 0)  # sysDescr
_SENSOR: Oid = (1, 3, 6, 1, 2, 1, 99, 1, 1, 1)
_TYPE, _SCALE, _PRECISION, _VALUE, _STATUS, _STAMP, _RATE = 1, 2, 3, 4, 5, 7, 8
_NAME: Oid = (1, 3, 6, 1, 2, 1, 47, 1, 1, 1, 1, 7)
_WATTS = 6
_UNITS = 9  # of the scales from yocto (1) to yotta (17)
_WORKS = frozenset((1,))
_HIGHEST = 1_000_000_000 - 1  # that value stands for all above it


async def find_metrics(host: Host, walk: Walk, model: str) -> list[Metric]:
    """Its sensors of watts; empty where it has none.

    One alone is taken for the whole device. Of several it is not known which lie in which: they are shown and not
    added, unless the setting `outlets` names those that count.

    Raises:
        Unavailable: a sensor that is wanted is not there.
    """
    kinds = await walk((*_SENSOR, _TYPE))
    watts = {dotted(index): index for index, kind in kinds.items() if kind == _WATTS}
    if not watts:
        return []
    columns = {column: await walk((*_SENSOR, column)) for column in (_SCALE, _PRECISION, _STAMP, _RATE)}
    names = await walk(_NAME)
    wanted = wanted_outlets(host)
    metrics: list[Metric] = []
    for number in keep_wanted(list(watts), wanted, "sensor"):
        index = watts[number]
        scale, precision = columns[_SCALE].get(index), columns[_PRECISION].get(index)
        if (
            not isinstance(scale, int)
            or not isinstance(precision, int)
            or not 1 <= scale <= 17
            or not -8 <= precision <= 9
        ):
            continue
        rate_ms = columns[_RATE].get(index)
        metrics.append(
            make_metric(
                host,
                _place(host, number, str(names.get(index) or ""), wanted, alone=len(watts) == 1),
                "power",
                value=(*_SENSOR, _VALUE, *index),
                state=(*_SENSOR, _STATUS, *index),
                works=_WORKS,
                stamp=(*_SENSOR, _STAMP, *index) if columns[_STAMP].get(index) else None,
                step=10.0 ** (3 * (scale - _UNITS) - precision),
                highest=_HIGHEST,
                update_period_s=rate_ms / 1000 if isinstance(rate_ms, int) and 0 < rate_ms < 3_600_000 else None,
                model=model,
            )
        )
    return metrics


def _place(host: Host, number: str, name: str, wanted: dict[str, str] | None, *, alone: bool) -> Place:
    fed = (wanted or {}).get(number, "")
    text = f"sensor {number} {name!r} at {host.address}" + (f", feeds {fed}" if fed else "")
    if alone and not fed:
        return Place(host.name, "wall", None, text)
    word = re.sub(r"[^A-Za-z0-9_.-]+", "_", name[:32]).strip("_")
    device = "-".join(part for part in (fed, host.name, f"sensor{number}", word) if part)
    return Place(device, "wall" if wanted else "rail", None, text)
