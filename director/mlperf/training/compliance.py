"""Which runs count: the checks of a round on a result log, with the outcome of the official compliance checker.

A log is checked in sections: what all logs must hold, then what a division's must, then what the benchmark's must.
A later section's rule for a key replaces what an earlier one said about that key. Rules of each round:
`compliance_rules.py`; how the official checker applies them: mlcommons/logging, compliance_checker/README.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from director.phases.sources.mllog import Entry

Seen = dict[str, Any]  # of a section: the last value of each key so far
Check = Callable[[Entry, Seen], bool]


class Rule(NamedTuple):
    """What a section says of a key. Checks that raise have failed."""

    least: int = 1  # lines with the key
    once: bool = True  # not two lines with different values
    each: tuple[Check, ...] = ()  # of every line; of keys `submission_…`, of the first
    first: Check | None = None  # of the first line
    reached: Check | None = None  # of one line at least
    or_key: str = ""  # lines with this key do as well


Section = Mapping[str, Rule]
_EXPECTED = (TypeError, KeyError, ValueError, ArithmeticError, AttributeError, IndexError)


def problems(entries: Sequence[Entry], sections: Callable[[Mapping[str, Any]], Sequence[Section] | str]) -> list[str]:
    """What the log fails, in words; none: the run counts.

    Args:
        sections: gives the sections for the first values of the keys, or says why there are none.
    """
    first: dict[str, Any] = {}
    for entry in entries:
        first.setdefault(entry.key, entry.value)
    chosen = sections(first)
    if isinstance(chosen, str):
        return [chosen]
    by_key: dict[str, str] = {}
    final: list[str] = []
    for section in chosen:
        for key in section:
            by_key.pop(key, None)
        _check(section, entries, by_key, final)
    return [*by_key.values(), *final]


def _check(section: Section, entries: Sequence[Entry], by_key: dict[str, str], final: list[str]) -> None:
    seen: Seen = {}
    values: dict[str, list[Any]] = {}
    reached: set[str] = set()
    for entry in entries:
        key = entry.key
        rule = section.get(key)
        if rule is None:
            continue
        found = values.get(key)
        if found is None:
            values[key] = [entry.value]
        else:
            found.append(entry.value)
        if found is None or not key.startswith("submission_"):
            for check in rule.each:
                if not _holds(check, entry, seen):
                    by_key[key] = f"{key} is {_text(entry)}, which the rules do not allow"
            seen[key] = entry.value
        if found is None and rule.first is not None and not _holds(rule.first, entry, seen):
            by_key[key] = f"{key} comes first with {_text(entry)}, not where the rules want it"
        if rule.reached is not None and key not in reached and _holds(rule.reached, entry, seen):
            reached.add(key)
    for key, rule in section.items():
        all_values = values.get(key, [])
        if rule.reached is not None and all_values and key not in reached:
            final.append(f"{key} never reaches its target")
        if rule.or_key:
            if not all_values and not values.get(rule.or_key):
                final.append(f"neither {key} nor {rule.or_key} is in the log")
        elif len(all_values) < rule.least:
            by_key[key] = f"{key} is in the log {len(all_values)} times, not {rule.least}"
        elif rule.once and len(all_values) > 1 and all_values.count(all_values[0]) != len(all_values):
            by_key[key] = f"{key} is in the log with different values"


def _holds(check: Check, entry: Entry, seen: Seen) -> bool:
    try:
        return bool(check(entry, seen))
    except _EXPECTED:
        return False


def _text(entry: Entry) -> str:
    value = "" if entry.value is None else f"{entry.value!r:.60} "
    return f"{value}with metadata {entry.metadata!r:.80}" if entry.metadata else value or "null"
