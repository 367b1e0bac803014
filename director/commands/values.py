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


def positive(text: str) -> float:
    """A number above 0."""
    return number(text, lambda value: value > 0, "a number above 0")


def not_negative(text: str) -> float:
    """A number, 0 or more."""
    return number(text, lambda value: value >= 0, "a number, 0 or more")


def seconds(text: str) -> float:
    """A number of seconds, at most a day."""
    return number(text, lambda value: 0 <= value <= 86_400, "a number of seconds, 0 to 86400")


def count(text: str) -> int:
    """A whole number, 1 to 999."""
    return int(number(text, lambda value: value == int(value) and 1 <= value <= 999, "a whole number, 1 to 999"))


def names(text: str) -> list[str]:
    """Names between commas."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError("names no driver; `power-agent devices` lists them")
    return found


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


def merged(settings: Iterable[tuple[str, str, str]]) -> dict[str, dict[str, str]]:
    """Settings by driver and key; of equal ones the last counts."""
    by_driver: dict[str, dict[str, str]] = {}
    for driver, key, value in settings:
        by_driver.setdefault(driver, {})[key] = value
    return by_driver
