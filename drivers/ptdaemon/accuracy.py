"""Limits of a meter behind PTDaemon, by PTDaemon's name for it and the ranges asked for."""

from __future__ import annotations

from drivers.analyzer_ranges import AMPERES, SMALL_AMPERES, VOLTS, next_range
from drivers.analyzer_uncertainty import WT210, WT300, power_limits
from drivers.contract import Accuracy

_SPECIFICATIONS = {"YokogawaWT210": WT210, "YokogawaWT310": WT300, "YokogawaWT33": WT300}


def accuracy_at(meter: str, volts: float, amperes: float, channels: int, least_factor: float) -> Accuracy | None:
    """Limits of the power that a meter gives where these ranges are asked for; it takes the next higher ones.

    None: no formula is known for it, or it has no ranges so high.

    Args:
        meter: PTDaemon's name for it.
        least_factor: the least power factor of the load.
    """
    specification = next((of for name, of in _SPECIFICATIONS.items() if meter.startswith(name)), None)
    volt_range = next_range(VOLTS, volts)
    ampere_range = next_range(AMPERES if meter.startswith("YokogawaWT33") else (*SMALL_AMPERES, *AMPERES), amperes)
    if specification is None or meter.endswith("_DC") or volt_range is None or ampere_range is None:
        return None
    return power_limits(specification, channels * volt_range * ampere_range, least_factor)
