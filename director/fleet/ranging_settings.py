"""What a meter is told in the testing stage: what the ranging stage saw, which it chooses its ranges by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from drivers.discovery import ANALYZERS

_SETTINGS: Final = {"volts": "volts_seen", "amps": "amps_seen"}


def range_settings(driver: str, seen: Mapping[str, float]) -> dict[str, float]:
    """Settings of a driver whose highest volts and amps are known; none of one that has no ranges to set."""
    if driver.partition(":")[0] not in ANALYZERS:
        return {}
    told = {setting: seen[name] for name, setting in _SETTINGS.items() if name in seen}
    return {"probe_s": 0.0, **told}  # the agent's own settings may ask for a probe
