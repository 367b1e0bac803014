"""Understands a meter's reading: a value is what the format allows and what the others of its element agree with."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from drivers.analyzers.description import Description, Item
from drivers.contract import Status

LARGEST = 9.9e37  # meters of the 488.2 family write no value as this or more
AGREES = 0.01  # of V·I: as far P may be from V·I·λ, beside what rounding does
NEGATIVE = 0.002  # of the power range: more than that below 0 is no reading of a load


class BadReply(Exception):
    """A reply is not what was asked for; nothing of it can be used."""


class Value(NamedTuple):
    """One item of a reading. `value` means nothing unless the status is NEW."""

    value: float
    status: Status
    text: str = ""  # as it came


class ReplyParser:
    """Replies of one meter."""

    def __init__(self, description: Description) -> None:
        self._items = description.items
        self._separator = description.separator
        self._number = re.compile(description.number)
        self._missing = re.compile(description.missing)
        self._over = re.compile(description.over)

    def values(self, reply: str) -> list[Value]:
        """One value per item.

        Raises:
            BadReply: there are more or fewer, or one is no number.
        """
        parts = reply.strip().split(self._separator)
        if len(parts) != len(self._items):
            raise BadReply(f"{len(parts)} values came instead of {len(self._items)}: {reply[:60]!r}")
        return [self._value(item, part.strip(" ")) for item, part in zip(self._items, parts, strict=True)]

    def _value(self, item: Item, text: str) -> Value:
        if item.header:
            header, _, text = text.partition(" ")
            if header != item.header:
                raise BadReply(f"{header[:20]!r} came where {item.header!r} was asked for")
        if self._missing.fullmatch(text):
            return Value(math.nan, Status.MISSING)
        if self._over.fullmatch(text):
            return Value(math.nan, Status.OVER_RANGE)
        if not self._number.fullmatch(text):
            raise BadReply(f"{text[:20]!r} is no number of this meter")
        number = float(text)
        if not abs(number) < LARGEST:
            return Value(math.nan, Status.MISSING)
        return Value(number, Status.NEW, text)


def bits(reply: str) -> int:
    """A status register.

    Raises:
        BadReply: it is not a whole number from 0 to 65535.
    """
    text = reply.strip(" ")
    if not re.fullmatch(r"\+?\d{1,5}", text) or int(text) > 0xFFFF:
        raise BadReply(f"{text[:20]!r} came where a status register was asked for")
    return int(text)


def mark_over(items: Sequence[Item], values: Sequence[Value], condition: int) -> list[Value]:
    """Say of each value whose bits are set in the condition that it clipped."""
    return [
        value._replace(status=Status.OVER_RANGE) if value.status == Status.NEW and item.over & condition else value
        for item, value in zip(items, values, strict=True)
    ]


def disagreeing(items: Sequence[Item], values: Sequence[Value]) -> set[int]:
    """Elements in which P, V, I and λ (or P, V·A and λ) do not belong together: one came wrongly over the line.

    The meter's own sum, which is of element 0, has to be that of its elements.
    """
    wrong = {element for element in {item.element for item in items} if not _agree(items, values, element)}
    for item, value in zip(items, values, strict=True):
        if item.sum_of and value.status == Status.NEW and not _adds_up(item.sum_of, value, items, values):
            wrong.add(item.element)
    return wrong


def negative(items: Sequence[Item], values: Sequence[Value], range_watts: float | None) -> set[int]:
    """Elements whose power is below 0 by more than a meter without load may show."""
    least_watts = -NEGATIVE * range_watts if range_watts is not None else -1.0
    return {
        item.element
        for item, value in zip(items, values, strict=True)
        if item.quantity == "watts" and value.status == Status.NEW and value.value < least_watts
    }


def _agree(items: Sequence[Item], values: Sequence[Value], element: int) -> bool:
    of: dict[str, Value] = {
        item.quantity: value
        for item, value in zip(items, values, strict=True)
        if item.element == element and value.status == Status.NEW
    }
    if "watts" not in of:
        return True
    if "volts" in of and "amperes" in of:
        volts, amperes = of["volts"].value, of["amperes"].value
        apparent = volts * amperes
        rounding = abs(volts) * last_digit(of["amperes"].text) + abs(amperes) * last_digit(of["volts"].text)
    elif "volt_amperes" in of:
        apparent, rounding = of["volt_amperes"].value, last_digit(of["volt_amperes"].text)
    else:
        return True
    allowed = AGREES * abs(apparent) + rounding + last_digit(of["watts"].text)
    watts = abs(of["watts"].value)
    if apparent < 0 or watts > apparent + allowed:
        return False
    if "power_factor" not in of:
        return True
    factor = abs(of["power_factor"].value)
    allowed += apparent * last_digit(of["power_factor"].text)
    return factor <= 1 + AGREES and abs(watts - apparent * factor) <= allowed


def _adds_up(elements: Sequence[int], total: Value, items: Sequence[Item], values: Sequence[Value]) -> bool:
    parts = [
        value
        for item, value in zip(items, values, strict=True)
        if item.quantity == "watts" and item.element in elements and value.status == Status.NEW
    ]
    if len(parts) < len(elements):
        return True  # nobody can tell
    digits = math.fsum(last_digit(value.text) for value in (*parts, total))
    return abs(math.fsum(value.value for value in parts) - total.value) <= digits * (1 + 1e-9)


def last_digit(text: str) -> float:
    """What the last digit of a number is worth."""
    mantissa, _, exponent = text.upper().partition("E")
    return float(10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))
