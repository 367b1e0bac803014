"""Values of the director's options, read from their text, as in `power_agent.option_values`."""

from __future__ import annotations

import argparse

from power_agent.option_values import number


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
