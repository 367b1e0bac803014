"""One table of phases out of marks from many places: begins paired with ends, and told what did not fit."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from director.phases.nesting import nest
from director.phases.table import CLAMPED, CROSSES, NEVER_CLOSED, NEVER_OPENED, WORK_UNITS, PhaseTable
from director.session.clock_pairs import Instants
from power_agent.messages import MarkEvent

COMMAND = "command"
# (host, "monotonic" or "wall", its instants) → session's instants, and how wrong each may be; None: they have no place
Place = Callable[[str, str, Instants], tuple[Instants, Instants] | None]
_OPEN = -(1 << 63)  # stands for an end that did not come
_LATEST = 1 << 62  # ns; 146 years: an instant beyond is nonsense
LOG_RESOLUTION_NS = 1_000_000  # logs with wall time stamp in milliseconds, cut off and not rounded
_HIGHEST_RANK = np.iinfo(np.int32).max
_MOST_WARNINGS = 20
_AT_ONCE = 1 << 14  # marks whose wall time is placed together


@dataclass(frozen=True)
class Point:
    """An instant that the workload or its log named."""

    t_ns: int  # monotonic, session time
    time_bound_ns: int
    name: str
    lane: str
    index: int | None
    attributes: dict[str, Any]


def build(
    events: Iterable[MarkEvent],
    *,
    begin_ns: int,
    end_ns: int,
    place: Place,
    host: str = "",
    bound_ns: int = 0,
    earlier_ns: int | None = None,
) -> tuple[PhaseTable, list[str], list[Point]]:
    """Build the table of phases.

    Args:
        events: marks in any order; those of equal time in one lane in the order they were made.
        begin_ns, end_ns: the measured command, on the session's clock.
        place: puts instants there; marks that have no place are left out. Asked of wall times and of named hosts.
        host, bound_ns: where the command ran, and how wrong its edges may be.
        earlier_ns: where an earlier stage began, whose marks are known to be there, and are left out without a word.

    Returns:
        The table, whose row 0 is the command; warnings in plain words; and the points in order of time.
    """
    builder = _Builder(begin_ns, end_ns, host, bound_ns, begin_ns if earlier_ns is None else earlier_ns)
    for event, t_ns, time_bound_ns in _placed(events, place):
        builder.add(event, t_ns, time_bound_ns)
    return builder.finish()


def _placed(events: Iterable[MarkEvent], place: Place) -> Iterator[tuple[MarkEvent, int, int]]:
    """Every mark with its instant on the session's clock and how wrong that may be."""
    coming = iter(events)
    while batch := list(islice(coming, _AT_ONCE)):
        instants: dict[tuple[str, str], list[int]] = {}  # by clock, of those that need a place
        for event in batch:
            if (event.host or event.clock == "wall") and abs(event.t_ns) < _LATEST:
                instants.setdefault((event.host, event.clock), []).append(event.t_ns)
        placed: dict[tuple[str, str], Iterator[tuple[int, int]] | None] = {}
        for (host, clock), at_ns in instants.items():
            found = place(host, clock, np.array(at_ns, dtype=np.int64))
            resolution_ns = LOG_RESOLUTION_NS if clock == "wall" else 0
            placed[host, clock] = (
                zip(found[0].tolist(), (found[1] + resolution_ns).tolist(), strict=True) if found is not None else None
            )
        for event in batch:
            if not (event.host or event.clock == "wall") or abs(event.t_ns) >= _LATEST:
                yield event, event.t_ns, 0
            elif (mine := placed[event.host, event.clock]) is not None:
                yield event, *next(mine)


class _Warnings:
    """Counts what is alike, and remembers where the first of a kind was."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def add(self, kind: str, name: str, source: str) -> None:
        self._counts[kind, name] += 1
        self._first.setdefault((kind, name), source)

    def texts(self) -> list[str]:
        texts = []
        for (kind, name), count in self._counts.most_common(_MOST_WARNINGS):
            source = self._first[kind, name]
            where = "" if not source else f" ({source})" if count == 1 else f" (first: {source})"
            texts.append(f'{count} × "{name}": {kind}{where}')
        if len(self._counts) > _MOST_WARNINGS:
            texts.append(f"and {len(self._counts) - _MOST_WARNINGS} more kinds of trouble with phases")
        return texts


class _Codes(dict[str, int]):
    """Texts as small numbers, given in the order in which they are first asked for."""

    def __missing__(self, text: str) -> int:
        code = self[text] = len(self)
        return code


class _Builder:
    """Columns grow as marks come in, one row per begin; what needs all marks to be known waits for `finish`."""

    def __init__(self, begin_ns: int, end_ns: int, host: str, bound_ns: int, earlier_ns: int) -> None:
        self._span = (begin_ns, max(begin_ns, end_ns))
        self._earlier_ns = earlier_ns
        self._warnings = _Warnings()
        self._points: list[Point] = []
        self._names, self._lanes, self._hosts = _Codes({COMMAND: 0}), _Codes({"": 0}), _Codes()
        self._begin, self._end, self._bound, self._index = array("q"), array("q"), array("q"), array("q")
        self._begin_order, self._end_order = array("q"), array("q")
        self._name, self._lane, self._host, self._rank = array("i"), array("i"), array("i"), array("i")
        self._flags: dict[int, int] = {}  # by row, as the work: most have none
        self._work: dict[str, dict[int, float]] = {unit: {} for unit in WORK_UNITS}
        self._attributes: dict[int, dict[str, Any]] = {}
        self._sources: dict[int, str] = {}  # of rows that are open
        self._row_of_key: dict[str, int] = {}
        self._keyed_ends: list[tuple[int, int, int, MarkEvent]] = []  # instant, order, bound; their begin may come yet
        self._plain_ends: list[tuple[int, int, int, MarkEvent]] = []
        self._order = 0
        self._new_row(self._span[0], self._span[1], bound_ns, COMMAND, "", host)

    def add(self, event: MarkEvent, t_ns: int, bound_ns: int) -> None:
        self._order += 1
        if abs(t_ns) >= _LATEST:
            self._warnings.add("has an impossible time and was left out", event.name, event.source)
        elif event.op == "begin":
            self._begin_phase(event, t_ns, bound_ns)
        elif event.op == "point":
            self._add_point(event, t_ns, bound_ns)
        elif not event.key:
            self._plain_ends.append((t_ns, self._order, bound_ns, event))
        elif event.key in self._row_of_key:
            self._end_row(self._row_of_key[event.key], event, t_ns, bound_ns, self._order)
        else:
            self._keyed_ends.append((t_ns, self._order, bound_ns, event))

    def _new_row(self, begin_ns: int, end_ns: int, bound_ns: int, name: str, lane: str, host: str) -> int:
        row = len(self._begin)
        self._begin.append(begin_ns)
        self._end.append(end_ns)
        self._bound.append(bound_ns)
        self._name.append(self._names[name])
        self._lane.append(self._lanes[lane])
        self._host.append(self._hosts[host])
        self._begin_order.append(self._order)
        self._end_order.append(0)
        self._index.append(-1)
        self._rank.append(-1)
        return row

    def _begin_phase(self, event: MarkEvent, t_ns: int, bound_ns: int) -> int:
        row = self._new_row(t_ns, _OPEN, bound_ns, event.name, event.lane, event.host)
        if event.key:
            if event.key in self._row_of_key:
                self._warnings.add("began twice under one key", event.name, event.source)
            self._row_of_key[event.key] = row
        self._sources[row] = event.source
        self._describe(row, event)
        return row

    def _describe(self, row: int, event: MarkEvent) -> None:
        """What a mark says about its phase; the end has the last word."""
        attributes = event.attributes
        if event.index is not None:
            if 0 <= event.index < _LATEST:
                self._index[row] = event.index
            else:
                attributes = {**attributes, "index": event.index}
        if event.rank is not None and 0 <= event.rank <= _HIGHEST_RANK:
            self._rank[row] = event.rank
        for unit, amount in event.work.items():
            column = self._work.get(unit)
            if column is None:
                attributes = {**attributes, unit: amount}
            elif 0 <= amount < float("inf"):
                column[row] = amount
            else:
                self._warnings.add(f"its count of {unit} is {amount} and was left out", event.name, event.source)
        if attributes:
            self._attributes.setdefault(row, {}).update(attributes)

    def _end_row(self, row: int, event: MarkEvent, t_ns: int, bound_ns: int, order: int) -> None:
        if self._end[row] != _OPEN:
            self._warnings.add("ended twice; the first end counts", event.name, event.source)
            return
        if t_ns < self._begin[row]:
            self._warnings.add("ended before it began; taken as of no length", event.name, event.source)
            t_ns = self._begin[row]
        self._end[row] = t_ns
        self._end_order[row] = order
        self._bound[row] = max(self._bound[row], bound_ns)
        self._sources.pop(row)
        self._describe(row, event)

    def _add_point(self, event: MarkEvent, t_ns: int, bound_ns: int) -> None:
        if not min(self._earlier_ns, self._span[0]) <= t_ns <= self._span[1]:
            self._warnings.add("a point outside the measured time", event.name, event.source)
        attributes = dict(event.attributes)
        self._points.append(Point(t_ns, bound_ns, event.name, event.lane, event.index, attributes))

    def finish(self) -> tuple[PhaseTable, list[str], list[Point]]:
        for t_ns, order, bound_ns, event in self._keyed_ends:
            row = self._row_of_key.get(event.key)
            if row is None:
                self._never_opened(event, t_ns, bound_ns)
            else:
                self._end_row(row, event, t_ns, bound_ns, order)
        self._pair_plain_ends()
        names = list(self._names)
        for row, source in self._sources.items():
            self._end[row] = max(self._begin[row], self._span[1])
            self._flags[row] = NEVER_CLOSED
            self._warnings.add("never ended; taken to last to the end of the command", names[self._name[row]], source)
        table = self._table(names)
        points = [point for point in self._points if point.t_ns + point.time_bound_ns >= self._span[0]]
        return table, self._warnings.texts(), sorted(points, key=lambda point: point.t_ns)

    def _pair_plain_ends(self) -> None:
        """Ends without a key belong to the innermost open phase of their name in their lane, as of their instant."""
        ends: dict[tuple[int, int], list[tuple[int, int, int, MarkEvent]]] = {}
        for end in self._plain_ends:
            ends.setdefault((self._lanes[end[3].lane], self._names[end[3].name]), []).append(end)
        rows: dict[tuple[int, int], list[int]] = {group: [] for group in ends}
        if ends:
            for row, group in enumerate(zip(self._lane, self._name, strict=True)):
                if row and group in rows:
                    rows[group].append(row)
        for group, group_ends in ends.items():
            self._pair_group(rows[group], group_ends)

    def _pair_group(self, rows: list[int], ends: list[tuple[int, int, int, MarkEvent]]) -> None:
        """Walk through the begins and ends of one name in one lane in order of time."""
        steps: list[tuple[int, int, int, int | MarkEvent]] = []  # instant, order, bound or which edge, row or mark
        steps += [(self._begin[row], self._begin_order[row], 0, row) for row in rows]
        steps += [(self._end[row], self._end_order[row], 1, row) for row in rows if self._end[row] != _OPEN]
        steps += ends
        steps.sort(key=lambda step: step[:2])
        opened: set[int] = set()
        stacks: dict[int | None, list[int]] = {None: []}  # by index; None: all
        for t_ns, order, number, what in steps:
            if isinstance(what, MarkEvent):
                row = self._innermost(what.index, opened, stacks)
                if row is not None:
                    self._end_row(row, what, t_ns, number, order)
                    opened.discard(row)
                elif len(stacks) > 1 and what.index in stacks:
                    self._warnings.add("ended twice; the first end counts", what.name, what.source)
                else:
                    self._never_opened(what, t_ns, number)
            elif number == 0:
                opened.add(what)
                stacks[None].append(what)
                stacks.setdefault(self._index[what], []).append(what)
            else:
                opened.discard(what)

    @staticmethod
    def _innermost(index: int | None, opened: set[int], stacks: dict[int | None, list[int]]) -> int | None:
        """The open row that began last, among those of this index, or else those without one."""
        for wanted in [None] if index is None else [index, -1]:
            stack = stacks.get(wanted, [])
            while stack and stack[-1] not in opened:
                stack.pop()
            if stack:
                return stack[-1]
        return None

    def _never_opened(self, event: MarkEvent, t_ns: int, bound_ns: int) -> None:
        self._warnings.add("ended but never began; taken to begin with the command", event.name, event.source)
        row = self._new_row(min(self._span[0], t_ns), _OPEN, bound_ns, event.name, event.lane, event.host)
        self._sources[row] = event.source
        self._flags[row] = NEVER_OPENED
        self._end_row(row, event, t_ns, bound_ns, self._order)

    def _table(self, names: list[str]) -> PhaseTable:
        begin, end = np.array(self._begin), np.array(self._end)
        flags = _column(self._flags, len(begin), 0, np.dtype(np.uint16))
        outside = (begin < self._span[0]) | (end > self._span[1])
        flags[outside] |= CLAMPED
        # As where a log goes on from an earlier run, which may have been killed in the middle of a phase.
        alien = (end < self._span[0]) | (begin > self._span[1])
        alien |= (begin < self._span[0]) & ((flags & NEVER_CLOSED) > 0)
        of_earlier_stage = (begin >= self._earlier_ns) & (end < self._span[0])
        for row in np.flatnonzero(alien & ~of_earlier_stage).tolist():
            self._warnings.add("is not of the measured time, and was left out", names[self._name[row]], "")
        for row in np.flatnonzero(outside & ~alien).tolist():
            self._warnings.add("lay outside the measured time, and was cut to it", names[self._name[row]], "")
        begin, end = np.clip(begin, *self._span), np.clip(end, *self._span)
        not_command = np.arange(len(begin)) > 0
        order = np.lexsort((np.array(self._begin_order), -end, begin, not_command))
        order = order[~alien[order]]
        begin, end, flags, lane = begin[order], end[order], flags[order], np.array(self._lane)[order]
        parent, depth, crosses = nest(begin, end, lane)
        flags[crosses] |= CROSSES
        place = np.full(len(alien), -1)
        place[order] = np.arange(len(order))
        return PhaseTable(
            begin_ns=begin,
            end_ns=end,
            name_code=np.array(self._name, dtype=np.int32)[order],
            index=np.array(self._index)[order],
            parent=parent,
            depth=depth,
            lane_code=lane,
            rank=np.array(self._rank, dtype=np.int32)[order],
            flags=flags,
            time_bound_ns=np.array(self._bound)[order],
            work={
                unit: _column(amounts, len(alien), np.nan, np.dtype(np.float64))[order]
                for unit, amounts in self._work.items()
            },
            names=names,
            lanes=list(self._lanes),
            host_code=np.array(self._host, dtype=np.int32)[order],
            hosts=list(self._hosts),
            attributes={int(place[row]): kept for row, kept in self._attributes.items() if place[row] >= 0},
        )


def _column(values: dict[int, int] | dict[int, float], count: int, missing: float, kind: np.dtype[Any]) -> Any:
    column = np.full(count, missing, dtype=kind)
    if values:
        column[np.fromiter(values.keys(), np.int64, len(values))] = np.fromiter(values.values(), kind, len(values))
    return column
