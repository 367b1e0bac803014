"""How wrong an analyzer may be by its specification: live, as PTDaemon reckons, and as limits of a channel.

PTDaemon's formula was recovered from published figures of version 1.10.0, and meets the digits that it prints:

    WT210:          u = 0.0015 + 0.001 · Vr·Ar / P + 0.002 · tan φ
    WT310, WT330:   u = 0.001 + 0.0005 · n·Vr·Ar / Σ V·I + 0.002 · Σ P·tan φ / Σ P

Vr and Ar are the ranges, n the number of elements; tan φ = √(1 − PF²) / PF. Sums leave out elements of 0 W or less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from drivers.contract import Accuracy

LIMIT = 0.01  # of MLPerf's rules: above it a run is not accepted
TIMER = 0.0002  # of reading, that an integrator's clock adds


class Specification(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of power: reading · |P| + range · Vr·Ar + phase · |P|·tan φ."""

    reading: float
    range: float
    phase: float = 0.0
    line_filter: float = 0.0  # of reading, in addition while the line filter is on
    fast_rate: float = 0.0  # of reading, in addition where the meter updates every 0.1 s, or as it likes
    dc_range: float | None = None  # in place of `range` in DC, where there is no phase; None: not known
    of_power: bool = False  # live, the range term is told as a share of P, not of V·I
    source: str = ""


WT210 = Specification(
    reading=0.0015, range=0.001, phase=0.002, of_power=True, source="Yokogawa WT210, 45–66 Hz, as PTDaemon has it"
)
WT300 = Specification(
    reading=0.001,
    range=0.0005,
    phase=0.002,
    line_filter=0.003,
    dc_range=0.002,
    source="Yokogawa WT300, 45–66 Hz, 12 months, as PTDaemon has it",
)


def share(specification: Specification, range_watts: float, base: Any, tangent: Any) -> Any:
    """PTDaemon's uncertainty as a share of the reading, of a number or of an array of them.

    Args:
        specification: of the meter.
        range_watts: Vr·Ar, of all elements.
        base: V·I of all elements; where the specification says `of_power`, their power.
        tangent: tan φ, weighted by power.
    """
    return specification.reading + specification.range * range_watts / base + specification.phase * tangent


def tangent(power_factor: float) -> float:
    """tan φ of a power factor; 0 where it is not above 0."""
    factor = min(max(power_factor, 1e-6), 1.0) if power_factor > 0 else 1.0
    return math.sqrt(1 - factor**2) / factor


def live_share(
    specification: Specification, range_watts: float, elements: Sequence[tuple[float, float, float]]
) -> float | None:
    """PTDaemon's uncertainty of one reading; None where no element draws power.

    Args:
        specification: of the meter.
        range_watts: Vr·Ar of one element.
        elements: (watts, volt-amperes, power factor) of each.
    """
    on = [element for element in elements if element[0] > 0]
    watts = sum(element[0] for element in on)
    base = watts if specification.of_power else sum(element[1] for element in on)
    if not base > 0:
        return None
    weighted = sum(element[0] * tangent(element[2]) for element in on) / watts
    return float(share(specification, len(elements) * range_watts, base, weighted))


def power_limits(specification: Specification, range_watts: float, least_power_factor: float) -> Accuracy:
    """Limits of a power channel on fixed ranges, for loads whose power factor is at least this.

    The range term in watts is exact at a power factor of 1 and an upper bound below. The phase term grows with tan φ,
    so it is taken at the least power factor.
    """
    return Accuracy(
        reading_fraction=specification.reading + specification.phase * tangent(least_power_factor),
        absolute=specification.range * range_watts,
        source=f"{specification.source}; power factor at least {least_power_factor:g}",
    )


def energy_limits(power: Accuracy, step_joules: float) -> Accuracy:
    """Limits of the meter's integrator, which adds up power with the limits of that and shows whole steps."""
    return Accuracy(
        reading_fraction=power.reading_fraction + TIMER,
        absolute=step_joules,
        per_second=power.absolute,
        source=power.source,
    )
