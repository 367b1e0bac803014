"""Values of options, read from their text. Each raises `argparse.ArgumentTypeError` with a text for the user."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable


def number(text: str, accepts: Callable[[float], bool], wanted: str) -> float:
    """A finite number that `accepts` says yes to; `wanted` says in words what that is."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and accepts(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def rate(text: str) -> tuple[str, float]:
    """DRIVER[.GROUP]=HZ as the name and the rate in Hz."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not DRIVER[.GROUP]=HZ, such as nvml=20")
    return name, number(value, lambda hz: hz > 0, "a rate in Hz above 0")


def setting(text: str) -> tuple[str, str, str]:
    """DRIVER.KEY=VALUE as its three parts."""
    name, equals, value = text.partition("=")
    driver, dot, key = name.partition(".")
    if not (equals and dot and driver and key):
        raise argparse.ArgumentTypeError(f"{text!r} is not DRIVER.KEY=VALUE, such as estimate.idle_watts=40")
    return driver, key, value


def host_names(text: str) -> list[str]:
    """A,B as a list of names of hosts, which may be empty."""
    import msgspec

    from power_agent.wire.messages import HostName

    names = [name.strip() for name in text.split(",") if name.strip()]
    try:
        return msgspec.convert(names, list[HostName])
    except msgspec.ValidationError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of hosts, such as node1,node2") from None


def merged(settings: Iterable[tuple[str, str, str]]) -> dict[str, dict[str, str]]:
    """Settings by driver and key; of equal ones the last counts."""
    by_driver: dict[str, dict[str, str]] = {}
    for driver, key, value in settings:
        by_driver.setdefault(driver, {})[key] = value
    return by_driver
