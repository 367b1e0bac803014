"""How marks are put into JSON: quickly for the usual, safely for whatever else a workload may pass. Nothing raises."""

from __future__ import annotations

import json
import operator

TYPE_CHECKING = False  # as in typing, whose import the workload is spared
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_LONGEST_NAME = 256  # characters; the rest is cut off
_LARGEST_ATTRIBUTES = 16_384  # characters of JSON
_MOST_NAMES = 1024  # whose encoding is kept
_LARGEST_INTEGER = 2**63 - 1


def _plain_value(value: Any) -> object:
    """What JSON has no word for: a scalar of numpy or torch as its number, anything else as text."""
    try:
        return value.item()
    except Exception:
        return str(value)


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain_value).encode


names: dict[object, bytes] = {}
"""Names in JSON, for those who cannot wait: look here first, then call `encode_name`."""


def encode_name(name: object) -> bytes:
    """A phase's name as JSON, at most 256 characters of it."""
    try:
        text = str(name)
        short = text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"
        encoded = _json(short).encode("utf-8", "replace")
    except Exception:
        return b'"unnamed"'
    if type(name) is str and text is short and len(names) < _MOST_NAMES:
        names[name] = encoded
    return encoded


def encode_details(
    index: object, rank: object, work: Mapping[str, Any], attributes: Mapping[str, Any], error: str | None = None
) -> bytes:
    """The optional fields of a line, each with a comma before it. What cannot be used is named in the attributes."""
    try:
        return _encode_details(index, rank, work, attributes, error)
    except Exception as failure:  # an integer of thousands of digits
        return b',"attributes":{"unusable_details":%b}' % encode_name(failure)


def _encode_details(
    index: object, rank: object, work: Mapping[str, Any], attributes: Mapping[str, Any], error: str | None
) -> bytes:
    text = ""
    unusable: dict[str, str] = {}
    if index is not None:
        text = _integer("index", index, unusable)
    if rank is not None:
        text += _integer("rank", rank, unusable)
    if work:
        counts = ""
        for unit, amount in work.items():
            if type(amount) is int and 0 <= amount <= _LARGEST_INTEGER:
                counts += f',"{unit}":{amount}'
            else:
                counts += _odd_count(unit, amount, unusable)
        if counts:
            text += f',"work":{{{counts[1:]}}}'
    if attributes or unusable:
        text += f',"attributes":{_encode_attributes({**attributes, **unusable})}'
    line = text.encode("utf-8", "replace")
    return line if error is None else b'%b,"error":%b' % (line, encode_name(error))


def _integer(key: str, number: Any, unusable: dict[str, str]) -> str:
    """An integer, also one of numpy or torch; or nothing, with a note."""
    try:
        integer = number if type(number) is int else operator.index(number)
        if -_LARGEST_INTEGER <= integer <= _LARGEST_INTEGER:
            return f',"{key}":{integer}'
    except Exception:
        pass
    unusable[f"unusable_{key}"] = _short_repr(number)
    return ""


def _odd_count(unit: str, amount: Any, unusable: dict[str, str]) -> str:
    """A count that is a fraction, or a scalar of numpy or torch; or nothing, with a note."""
    try:
        return f',"{unit}":{_json(float(amount))}'  # fails for what is not finite
    except Exception:
        unusable[f"unusable_{unit}"] = _short_repr(amount)
        return ""


def _encode_attributes(attributes: Mapping[str, Any]) -> str:
    try:
        text = _json(attributes)
    except Exception:  # a value that refers to itself, is not a number, or whose __str__ fails; a key that is no str
        text = _json({str(key): _short_repr(value) for key, value in attributes.items()})
    if len(text) > _LARGEST_ATTRIBUTES:
        text = _json({"dropped_attributes": f"{len(text)} characters of JSON; {_LARGEST_ATTRIBUTES} is the most"})
    return text


def _short_repr(value: object) -> str:
    try:
        return repr(value)[:_LONGEST_NAME]
    except Exception as error:
        return f"its repr failed: {type(error).__name__}"
