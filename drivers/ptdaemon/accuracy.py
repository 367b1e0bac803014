"""Limits of a meter behind PTDaemon, from its ranges: PTDaemon's own formula, with the least power factor assumed.

    WT210           0.15 % of P + 0.1 %  · Vr·Ar     + 0.2 % · P · tan φ
    WT310, WT330    0.1 %  of P + 0.05 % · n · Vr·Ar + 0.2 % · P · tan φ

Vr and Ar are the ranges, n the number of channels. See director/mlperf/audit/uncertainty.py, where the formula meets
what PTDaemon publishes of each sample.
"""

from __future__ import annotations

import math

from drivers.contract import Accuracy

LEAST_POWER_FACTOR = 0.9
_VOLTS = (15.0, 30.0, 60.0, 150.0, 300.0, 600.0)
_SMALL = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_AMPERES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_SHARES = {"YokogawaWT210": (0.0015, 0.001), "YokogawaWT310": (0.001, 0.0005), "YokogawaWT33": (0.001, 0.0005)}


def accuracy_at(meter: str, volts: float, amperes: float, channels: int, least_factor: float) -> Accuracy | None:
    """Limits of the power that a meter gives where these ranges are asked for; it takes the next higher ones.

    None: no formula is known for it, or it has no ranges so high.

    Args:
        meter: PTDaemon's name for it.
        least_factor: the least power factor of the load.
    """
    shares = next((of for name, of in _SHARES.items() if meter.startswith(name) and not meter.endswith("_DC")), None)
    currents = _AMPERES if meter.startswith("YokogawaWT33") else (*_SMALL, *_AMPERES)
    volt_range = next((one for one in _VOLTS if one >= volts * (1 - 1e-9)), None)
    ampere_range = next((one for one in currents if one >= amperes * (1 - 1e-9)), None)
    if shares is None or volt_range is None or ampere_range is None:
        return None
    return Accuracy(
        reading_fraction=shares[0] + 0.002 * math.sqrt(1 - least_factor**2) / least_factor,
        absolute=shares[1] * channels * volt_range * ampere_range,
        source=f"PTDaemon's formula, {volt_range:g} V × {ampere_range:g} A, power factor ≥ {least_factor:g}",
    )
