"""Phases from any log by a regular expression: `epoch=Epoch (?P<index>\\d+) starts`.

A line that matches begins a phase, and ends the one of that name before it. Where a group named `end` took part in the
match, the line only ends the phase. docs/phase-sources.md tells of the other groups.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from director.phases.sources import IsEarly, Problems
from director.phases.sources.log_lines import cut_lines
from director.phases.table import WORK_UNITS
from power_agent.messages import MarkEvent
from power_agent.relay import COPY_ENDED

# A regular expression can take time that grows with a power of the line's length, so lines are kept short. Against
# nested repetitions such as (a+)+ this does not help; their author should change them.
LONGEST_LINE = 4096
_NAME = re.compile(r"\s*([A-Za-z_][\w .-]{0,63}?)\s*=")
_OWN_GROUPS = ("name", "end", "index", "rank", "time_s", "time_ms", *WORK_UNITS)


@dataclass(frozen=True)
class LinePattern:
    """A regular expression and the name of its phases; None: a group named `name` says it."""

    name: str | None
    regex: re.Pattern[str]


def parse_pattern(text: str) -> LinePattern:
    """Parse NAME=REGEX, or a REGEX with a group named `name`.

    Raises:
        ValueError: what is wrong with it and how it should be.
    """
    try:
        whole = re.compile(text)
    except re.error:
        whole = None
    if whole is not None and "name" in whole.groupindex:
        return LinePattern(None, whole)
    prefix = _NAME.match(text)
    if prefix is None:
        example = r"'epoch=Epoch (?P<index>\d+) starts'"
        raise ValueError(
            f"phase pattern {text!r} has no name: write NAME=REGEX such as {example}, or a group (?P<name>…)"
        )
    try:
        return LinePattern(prefix[1], re.compile(text[prefix.end() :]))
    except re.error as error:
        raise ValueError(f"phase pattern {text!r} is no regular expression: {error}") from error


def read(
    path: Path, pattern: str, problems: Problems, arrivals: Path | None = None, is_early: IsEarly | None = None
) -> Iterator[MarkEvent]:
    """Yield the phases that the lines of a log tell.

    Args:
        pattern: as for `parse_pattern`.
        is_early: tells lines of runs before the measured time, which the same log may hold: they are left out.
        arrivals: when each part of the log came, as `power_agent.relay` writes it, for patterns without a time.
    """
    try:
        parsed = parse_pattern(pattern)
    except ValueError as error:
        problems.add(str(path), str(error))
        return
    has_time = bool({"time_s", "time_ms"} & parsed.regex.groupindex.keys())
    if not has_time and arrivals is None:
        text = "the pattern has no group time_s or time_ms, and the instants at which lines came are not known"
        problems.add(str(path), text)
        return
    try:
        when = None if has_time or arrivals is None else _arrival_lookup(arrivals, problems)
        with path.open("rb") as file:
            yield from _Reader(path, parsed, problems, when, is_early if has_time else None).read(
                cut_lines(file, LONGEST_LINE)
            )
    except OSError as error:
        problems.add(str(error.filename or path), f"cannot be read: {error.strerror}")


def _arrival_lookup(path: Path, problems: Problems) -> Callable[[int], int | None]:
    data = path.read_bytes()
    pairs = np.frombuffer(data[: len(data) // 16 * 16], dtype="<i8").reshape(-1, 2)
    if len(pairs) and pairs[-1, 0] == COPY_ENDED:
        problems.add(str(path), "the copy of the output was stopped before its end; later phases are not known")
    kept = pairs[pairs[:, 0] != COPY_ENDED]
    offsets, instants = kept[:, 0], kept[:, 1]

    def when(offset: int) -> int | None:
        place = int(np.searchsorted(offsets, offset, side="right")) - 1
        return int(instants[place]) if place >= 0 else None

    return when


class _Reader:
    def __init__(
        self,
        path: Path,
        pattern: LinePattern,
        problems: Problems,
        when: Callable[[int], int | None] | None,
        is_early: IsEarly | None,
    ) -> None:
        self._path = path
        self._pattern = pattern
        self._problems = problems
        self._when = when
        self._is_early = is_early  # None: no more early lines are expected
        self._open: dict[tuple[str, int | None], str] = {}  # keys, by name and rank

    def read(self, lines: Iterator[tuple[int, bytes]]) -> Iterator[MarkEvent]:
        cut = 0
        for number, (offset, line) in enumerate(lines, start=1):
            cut += len(line) == LONGEST_LINE and not line.endswith(b"\n")
            for part in re.finditer(rb"[^\r\n]+", line):  # a progress bar writes many states into one line
                match = self._pattern.regex.search(part[0].decode("utf-8", "replace"))
                if match is not None:
                    yield from self._events(match, offset + part.start(), number)
        if cut:
            self._problems.add(str(self._path), f"of {cut} lines only the first {LONGEST_LINE} bytes were searched")

    def _events(self, match: re.Match[str], offset: int, number: int) -> Iterator[MarkEvent]:
        groups = {group: text for group, text in match.groupdict().items() if text is not None}
        name = groups.get("name") if self._pattern.name is None else self._pattern.name
        t_ns = self._instant(groups, offset)
        source = f"{self._path.name}:{number}"
        if not name or t_ns is None:
            self._problems.add(
                f"{self._path}:{number}",
                "matches, but its " + ("time cannot be read" if name else "group name is empty"),
            )
            return
        if self._is_early is not None:
            if abs(t_ns) < 1 << 62 and self._is_early(np.array([t_ns]))[1][0]:
                return
            self._is_early = None
        index, rank = _integer(groups.get("index")), _integer(groups.get("rank"))
        opened = self._open.pop((name, rank), None)
        work = {unit: count for unit in WORK_UNITS if (count := _count(groups.get(unit))) is not None}
        attributes = {group: text for group, text in groups.items() if group not in _OWN_GROUPS}
        clock: Literal["monotonic", "wall"] = "wall" if self._when is None else "monotonic"
        lane = self._path.name if rank is None else f"{self._path.name}:rank{rank}"

        def event(op: Literal["begin", "end"], key: str, **more: Any) -> MarkEvent:
            return MarkEvent(
                t_ns=t_ns, clock=clock, op=op, name=name, key=key, lane=lane, rank=rank, source=source, **more
            )

        if "end" in groups:
            yield event("end", opened or "", index=index, work=work, attributes=attributes)
            return
        if opened is not None:
            yield event("end", opened)
        self._open[name, rank] = key = f"{source}:{offset}"
        yield event("begin", key, index=index, work=work, attributes=attributes)

    def _instant(self, groups: dict[str, str], offset: int) -> int | None:
        if self._when is not None:
            return self._when(offset)
        for group, unit_ns in (("time_s", 1_000_000_000), ("time_ms", 1_000_000)):
            if group in groups:
                try:
                    return int(decimal.Decimal(groups[group]) * unit_ns)
                except (decimal.InvalidOperation, ValueError, OverflowError):
                    return None
        return None


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\s*[0-9]{1,18}\s*", text) else None


def _count(text: str | None) -> float | None:
    try:
        count = float(text.replace(",", "")) if text is not None else math.nan
    except ValueError:
        return None
    return count if math.isfinite(count) and count >= 0 else None
