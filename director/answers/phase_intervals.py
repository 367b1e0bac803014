"""The intervals that energies are given for: phases, what phases of one name cover together, and a host's share of it.

Of one host all devices are given an energy for every phase. Of several, a host's devices are given one for the phases
that the host marked, and for those of names that at most one host marks; what a name covers on all hosts together is
given to all.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from director.energy.cells import Bools, Floats, Ints
from director.energy.component_energy import Intervals
from director.energy.group_energy import union
from director.phases.join import Joins, join, joins_of, participants, waiting
from director.phases.table import PhaseTable

MOST_GROUPS = 100  # phase names listed in the summary; energies.parquet holds all


@dataclass(frozen=True)
class PhaseName:
    """All phases of one name."""

    name: str
    code: int  # in the phase table
    phases: Ints  # rows of the phase table
    begin_ns: Ints  # of their union: disjoint intervals
    end_ns: Ints
    time_bound_ns: float

    @property
    def duration_ns(self) -> int:
        """Of the union."""
        return int((self.end_ns - self.begin_ns).sum())


@dataclass(frozen=True)
class HostIntervals:
    """What the devices of one host are given energies for. Numbers are those of `intervals`."""

    intervals: Intervals
    phases: Ints  # rows of the phase table that the first intervals are
    names: list[Ints]  # per name, disjoint intervals that cover its time on all hosts
    own: list[Ints] = field(default_factory=list)  # per name, of its time on this host; of several hosts
    own_phases: list[int] = field(default_factory=list)  # per name, how many are of this host
    waiting: list[Ints] = field(default_factory=list)  # per name, while others had not ended

    def seconds(self, numbers: Ints) -> float:
        """How long disjoint intervals last together."""
        return float((self.intervals.end_ns[numbers] - self.intervals.begin_ns[numbers]).sum()) * 1e-9


@dataclass(frozen=True)
class JoinedPhases:
    """Which phases of several hosts are one piece of work."""

    hosts: list[str]
    host: Ints  # per row of the phase table, its number in `hosts`; -1: none
    who: Ints  # per row, its participant
    joined: Ints  # per row
    of_name: list[Joins]  # per name


def phase_names(table: PhaseTable) -> tuple[list[PhaseName], int]:
    """Phases by name, the command and the run first, then the longest.

    Of many names only those that last longest are told, and between them the number of the others.
    """
    groups: list[PhaseName] = []
    lasting = np.bincount(table.name_code, weights=table.end_ns - table.begin_ns).tolist()
    codes = np.flatnonzero(np.bincount(table.name_code)).tolist()
    names = table.names
    longest = heapq.nsmallest(MOST_GROUPS, codes, key=lambda c: (c != 0, names[c] != "run", -lasting[c], names[c]))
    for code in longest:
        rows = np.flatnonzero(table.name_code == code)
        begin, end = union(table.begin_ns[rows], table.end_ns[rows])
        groups.append(PhaseName(names[code], code, rows, begin, end, float(table.time_bound_ns[rows].max())))
    return groups, len(codes) - len(groups)


def join_hosts(table: PhaseTable, names: Sequence[PhaseName], hosts: list[str]) -> JoinedPhases:
    """Join the phases of every name over the ranks of all hosts."""
    host = table.host_places(hosts)
    who = participants(table, host)
    joined = join(table, [name.code for name in names[1:]], who)  # the command is one
    nobody = joins_of(table, np.empty(0, np.int64), joined, who)
    return JoinedPhases(
        hosts, host, who, joined, [joins_of(table, n.phases, joined, who) if n.code else nobody for n in names]
    )


class IntervalMaker:
    """Makes the intervals of one host after the other."""

    def __init__(
        self,
        table: PhaseTable,
        names: Sequence[PhaseName],
        idle: list[tuple[int, int]],
        together: JoinedPhases | None,
        bound_at: Callable[[str, Ints], Ints | None],
    ) -> None:
        """`bound_at`: how wrong a host's instants may be on the session's clock; None: that is the host's own."""
        self._bound_at = bound_at
        self._table = table
        self._names = names
        self._idle = idle
        self._together = together
        shared = np.ones(len(table), dtype=bool)
        if together is not None:
            marked = np.unique(np.stack((table.name_code, together.host), axis=1)[together.host >= 0], axis=0)
            hosts_of_name = np.bincount(marked[:, 0], minlength=len(table.names))
            shared = (together.host < 0) | (hosts_of_name[table.name_code] <= 1)
            # sorted by host once, so that a thousand hosts do not each look through all phases
            self._alone = _ByHost(np.where(shared, -1, together.host))
            self._of_name = [_ByHost(together.host[name.phases]) for name in names]
            self._of_joins = [_ByHost(together.host[joins.rows]) for joins in together.of_name]
        self._shared = np.flatnonzero(shared)
        self._is_shared = [bool(shared[name.phases].all()) for name in names]

    def of(self, host: str, measured: str = "") -> HostIntervals:
        """The intervals for the devices of a host, or for those of them that see another host's power."""
        table, together, rows = self._table, self._together, self._shared
        number = together.hosts.index(measured or host) if together is not None else -1
        if together is not None:
            rows = np.sort(np.concatenate((rows, self._alone.places(number))))
        by_host = table.host_code == (table.hosts.index(host) if host in table.hosts else -1)
        bounds = table.time_bound_ns[rows].astype(np.float64)
        pile = _Pile(table.begin_ns[rows], table.end_ns[rows], bounds, by_host[rows])
        covered, own, own_phases, waited = [], [], [], []
        for name, shared in zip(self._names, self._is_shared, strict=True):
            if shared and len(name.begin_ns) == len(name.phases):
                covered.append(np.searchsorted(rows, name.phases))
            else:
                marked_here = bool(by_host[name.phases].all())
                covered.append(pile.add(name.begin_ns, name.end_ns, name.time_bound_ns, marked_here))
        if together is not None:
            for i, (name, joins) in enumerate(zip(self._names, together.of_name, strict=True)):
                phases = name.phases[self._of_name[i].places(number)]
                own_phases.append(len(phases))
                begin, end = union(table.begin_ns[phases], table.end_ns[phases])
                if len(begin) == len(phases):
                    own.append(np.searchsorted(rows, phases))
                else:
                    own.append(pile.add(begin, end, name.time_bound_ns, measured in ("", host)))
                late = waiting(joins, self._of_joins[i].places(number), begin, end)
                waited.append(pile.add(*union(*late), name.time_bound_ns, False))
        intervals = pile.intervals(self._idle, lambda at: self._bound_at(host, at))
        return HostIntervals(intervals, rows, covered, own, own_phases, waited)


class _ByHost:
    """Places of equal host numbers in an array."""

    def __init__(self, hosts: Ints) -> None:
        self._order = np.argsort(hosts, kind="stable")
        self._sorted = hosts[self._order]

    def places(self, host: int) -> Ints:
        """Where the host's number stands, ascending."""
        first, last = np.searchsorted(self._sorted, [host, host + 1])
        return self._order[first:last]


class _Pile:
    """Intervals, to which more are added."""

    def __init__(self, begin_ns: Ints, end_ns: Ints, bound_ns: Floats, marked_here: Bools) -> None:
        self._begins, self._ends, self._bounds, self._here = [begin_ns], [end_ns], [bound_ns], [marked_here]
        self._count = len(begin_ns)

    def add(self, begin_ns: Ints, end_ns: Ints, bound_ns: float, marked_here: bool) -> Ints:
        """Add intervals that have one bound, and return their numbers."""
        self._begins.append(begin_ns)
        self._ends.append(end_ns)
        self._bounds.append(np.full(len(begin_ns), bound_ns))
        self._here.append(np.full(len(begin_ns), marked_here))
        self._count += len(begin_ns)
        return np.arange(self._count - len(begin_ns), self._count)

    def intervals(self, idle: list[tuple[int, int]], bound_at: Callable[[Ints], Ints | None]) -> Intervals:
        """With their bounds against the host's readings.

        Marks and readings of one host bear one clock, so that nothing which ties it to the session's comes between
        them. Where the marks are of another host, what ties either may be wrong.
        """
        begin, end, bound = np.concatenate(self._begins), np.concatenate(self._ends), np.concatenate(self._bounds)
        edges = bound_at(begin), bound_at(end)
        if edges[0] is not None and edges[1] is not None:
            of_host = np.maximum(edges[0], edges[1]).astype(np.float64)
            here = np.concatenate(self._here)
            bound = np.where(here, np.maximum(bound - of_host, 0.0), bound + of_host)
        return Intervals(begin, end, bound, list(idle))
