"""Reads the settings that a user gives a driver as text, and refuses what it does not know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from drivers.contract import Unavailable


def check_known(driver: str, settings: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuse a setting that the driver does not have: a misspelt one must not go unnoticed.

    Raises:
        Unavailable: names the setting and those that exist.
    """
    for key in settings:
        if key not in known:
            raise Unavailable(
                f"it has no setting {key!r}", f"use one of: {', '.join(f'{driver}.{key}' for key in known)}"
            )


def read_number(driver: str, settings: Mapping[str, str], key: str, unit: str) -> float | None:
    """A setting that is a finite number of at least 0; None where it is not given.

    Raises:
        Unavailable: it is not such a number.
    """
    text = settings.get(key)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise Unavailable(
            f"{driver}.{key} is {text!r}, which is not a number of {unit}", f"give it as {driver}.{key}=NUMBER"
        )
    return number
