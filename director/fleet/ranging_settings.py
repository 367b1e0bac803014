"""What a meter is told in the testing stage: ranges that hold what the ranging stage saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from drivers.analyzer_ranges import CURRENT_MARGIN

TAKE_RANGES: Final = frozenset({"wt210", "wt310e", "wt330e", "gpm83xx"})  # kinds of meters that are set to a range
_HIGHEST_AMPERES: Final = (20.0, 40.0)  # of their models


def range_settings(seen: Mapping[str, float]) -> dict[str, float]:
    """Settings of a driver whose highest volts and amps are known. A higher current than was seen has some room."""
    settings = {"probe_s": 0.0}  # the agent's own may say to find ranges by a probe
    if "volts" in seen:
        settings["volts"] = seen["volts"]
    if "amps" in seen:
        amperes = seen["amps"] * CURRENT_MARGIN
        for highest in _HIGHEST_AMPERES:
            if seen["amps"] <= highest < amperes:
                amperes = highest
        settings["amps"] = amperes
    return settings
