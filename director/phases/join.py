"""Phases of several ranks that are the same piece of work: joined by name and index, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from director.phases.table import PhaseTable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
NOT_JOINED = -1


def participants(table: PhaseTable, hosts: Ints) -> Ints:
    """Who marked each row, as a number: the rank on its host where one is said, else the lane.

    `hosts` holds the number of each row's host.
    """
    ranked = table.rank >= 0
    first = np.where(ranked, hosts, -2)
    second = np.where(ranked, table.rank.astype(np.int64), table.lane_code.astype(np.int64))
    return np.unique(np.stack((first, second), axis=1), axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def join(table: PhaseTable, codes: Sequence[int], who: Ints) -> Ints:
    """The number of the piece of work that each row is one participant's part of, from 0 per name, by begin.

    Phases of one name and index are joined. Where a participant has an index twice, as with steps that are counted from
    0 in each epoch, a round begins when its index does not grow, and equal rounds are joined; phases without an index
    are joined in their order. Where all phases of a name lie in phases of one other name, that is done inside each
    joined phase of that name, so that who missed an epoch is not an epoch off.

    Args:
        codes: the names to join, as in `table.name_code`.
        who: the participant of each row.

    Returns:
        Per row; NOT_JOINED in rows of other names.
    """
    joined = np.full(len(table), NOT_JOINED, dtype=np.int64)
    rows_of = {code: np.flatnonzero(table.name_code == code) for code in codes}
    outer_first = sorted(rows_of, key=lambda code: (int(table.depth[rows_of[code]].min(initial=0)), code))
    for code in outer_first:
        rows = rows_of[code]
        joined[rows] = _number(_outer(table, rows, joined), table.index[rows], who[rows])
    return joined


def _outer(table: PhaseTable, rows: Ints, joined: Ints) -> Ints:
    """The joined phase that each row lies in; 0 for all where that does not tell all of them apart alike."""
    parents = table.parent[rows]
    nothing = np.zeros(len(rows), dtype=np.int64)
    if not len(rows) or (parents < 0).any() or (joined[parents] == NOT_JOINED).any():
        return nothing
    names = table.name_code[parents]
    return joined[parents] if bool((names == names[0]).all()) else nothing


def _number(outer: Ints, index: Ints, who: Ints) -> Ints:
    """Numbers of equal (outer, round, index), in the order of first appearance; rows come in order of time."""
    if not len(index):
        return index
    order = np.lexsort((np.arange(len(index)), outer, who))
    w, o, i = who[order], outer[order], index[order]
    follows = (w[1:] == w[:-1]) & (o[1:] == o[:-1])
    rounds = np.zeros(len(index), dtype=np.int64)
    keys = np.stack((who, outer, index), axis=1)
    if len(np.unique(keys, axis=0)) < len(keys) or bool((index < 0).any()):
        again = np.concatenate(([0], np.cumsum(follows & (i[1:] <= i[:-1]))))
        starts = np.flatnonzero(np.concatenate(([True], ~follows)))
        lengths = np.diff(np.append(starts, len(index)))
        rounds[order] = again - np.repeat(again[starts], lengths)
    index = np.where(index < 0, 0, index)  # of those without one the round tells
    _, first, number = np.unique(
        np.stack((outer, rounds, index), axis=1), axis=0, return_index=True, return_inverse=True
    )
    place = np.empty(len(first), dtype=np.int64)
    place[np.argsort(first, kind="stable")] = np.arange(len(first))
    return place[number.reshape(-1)]


@dataclass(frozen=True)
class Joins:
    """The joined phases of one name that have two participants or more. Arrays per joined phase, unless it is said."""

    rows: Ints  # of the phase table, by joined phase; an array per row, as the next three
    begin_ns: Ints
    end_ns: Ints
    join: Ints  # which joined phase each of these rows belongs to, from 0
    members: Ints
    begin_spread_ns: Ints  # last begin − first begin
    least_ns: Ints  # durations over the participants
    median_ns: Floats
    most_ns: Ints
    first_begin_ns: Ints
    last_end_ns: Ints
    median_end_ns: Floats
    last: Ints  # place in `rows` of the one that ended last
    told: Bools  # the last one ended later than the median by more than the clocks' bounds
    apart: Bools  # some began after others had ended

    def __len__(self) -> int:
        return len(self.members)


def joins_of(table: PhaseTable, rows: Ints, joined: Ints, who: Ints) -> Joins:
    """Durations and ends of the joined phases of one name. `rows` are its rows, the others go by row of the table."""
    number = joined[rows]
    order = np.lexsort((who[rows], number))
    rows, number = rows[order], number[order]
    starts = np.flatnonzero(np.concatenate(([True], number[1:] != number[:-1]))) if len(rows) else np.empty(0, np.int64)
    lengths = np.diff(np.append(starts, len(rows)))
    several = lengths >= 2
    keep = np.repeat(several, lengths)
    rows, lengths = rows[keep], lengths[several]
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64) if len(lengths) else np.empty(0, np.int64)
    label = np.repeat(np.arange(len(lengths)), lengths)
    begin, end = table.begin_ns[rows], table.end_ns[rows]
    duration = end - begin
    bound = _over(np.maximum, table.time_bound_ns[rows], starts)
    last_end, median_end = _over(np.maximum, end, starts), _median(end, label, starts, lengths)
    by_end = np.lexsort((-np.arange(len(rows)), end, label))  # of several that ended together, the first
    first_begin, last_begin = _over(np.minimum, begin, starts), _over(np.maximum, begin, starts)
    return Joins(
        rows=rows,
        begin_ns=begin,
        end_ns=end,
        join=label,
        members=lengths,
        begin_spread_ns=last_begin - first_begin,
        least_ns=_over(np.minimum, duration, starts),
        median_ns=_median(duration, label, starts, lengths),
        most_ns=_over(np.maximum, duration, starts),
        first_begin_ns=first_begin,
        last_end_ns=last_end,
        median_end_ns=median_end,
        last=by_end[starts + lengths - 1],
        told=last_end - median_end > 2 * bound,
        apart=last_begin > _over(np.minimum, end, starts),
    )


def waiting(joins: Joins, mine: Ints, own_begin_ns: Ints, own_end_ns: Ints) -> tuple[Ints, Ints]:
    """Begin and end of the times that a host waited: from its own end of a joined phase to the last one's.

    Not while it was in another phase of the name, nor once it had begun a next one. What waits within the host, one
    rank for another, is not seen.

    Args:
        mine: places in `joins.rows` of the host's phases.
        own_begin_ns, own_end_ns: all phases of the name on the host, as disjoint intervals in ascending order.
    """
    if not len(mine):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    label = joins.join[mine]
    starts = np.flatnonzero(np.concatenate(([True], label[1:] != label[:-1])))
    begin = _over(np.maximum, joins.end_ns[mine], starts)
    end = joins.last_end_ns[label[starts]]
    place = np.searchsorted(own_begin_ns, begin, side="right")
    begin = np.maximum(begin, own_end_ns[place - 1])
    there = place < len(own_begin_ns)
    end[there] = np.minimum(end[there], own_begin_ns[place[there]])
    waited = end > begin
    return begin[waited], end[waited]


def medians(values: Ints, number: Ints) -> Floats:
    """For each value the median of those that have its number."""
    _, label, lengths = np.unique(number, return_inverse=True, return_counts=True)
    label = label.reshape(-1)
    starts = np.cumsum(lengths) - lengths
    return _median(values, label, starts, lengths)[label]


def _over(extreme: np.ufunc, values: Ints, starts: Ints) -> Ints:
    found: Ints = extreme.reduceat(values, starts) if len(starts) else values[:0]
    return found


def _median(values: Ints, label: Ints, starts: Ints, lengths: Ints) -> Floats:
    ordered = values[np.lexsort((values, label))]
    low, high = ordered[starts + (lengths - 1) // 2], ordered[starts + lengths // 2]
    middle: Floats = low + (high - low) / 2
    return middle
