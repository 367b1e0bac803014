"""What a rule of compliance may ask of a line: the words that the tables of rules are written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from director.mlperf.training.compliance import Check, Rule, Seen

SAMPLES, EPOCH = "samples_count", "epoch_num"


def equal(wanted: object) -> Check:
    """The value is this one."""
    return lambda entry, _: entry.value == wanted


def value(test: Callable[[Any], bool]) -> Check:
    """The value passes the test."""
    return lambda entry, _: test(entry.value)


def has(key: str, or_key: str | None = None) -> Check:
    """One of the keys is in the line's metadata."""
    if or_key is None:
        return lambda entry, _: key in entry.metadata
    return lambda entry, _: key in entry.metadata or or_key in entry.metadata


def to_seen(test: Callable[[Any, Seen], bool]) -> Check:
    """A value that depends on values of lines before."""
    return lambda entry, seen: test(entry.value, seen)


def is_whole(value: Any) -> bool:
    """Whole, but for a rounding error."""
    return bool(abs(round(value) - value) < 0.00001)


NOT_EMPTY = value(lambda value: value != "")
POSITIVE = value(lambda value: value > 0)
NOT_NEGATIVE = value(lambda value: value >= 0)
COUNT = value(lambda value: is_whole(value) and value > 0)
SHARE = value(lambda value: 0.0 <= value <= 1.0)


def once(names: str, check: Check | None = None) -> dict[str, Rule]:
    """Rules for keys, between blanks, that come once."""
    return dict.fromkeys(names.split(), Rule(each=(check,) if check else ()))


def fixed(**values: object) -> dict[str, Rule]:
    """Rules for keys that come with one value."""
    return {name: Rule(each=(equal(value),)) for name, value in values.items()}


def target(
    at: str, reached: Callable[[Any], bool], key: str = "eval_accuracy", *also: Check, first: Check | None = None
) -> dict[str, Rule]:
    """The rule for evaluations, and for the one that ends the run."""
    return {key: Rule(once=False, each=(has(at), *also), first=first, reached=value(reached))}
