"""Phases of ranks joined by name and index, against plain Python on phases in any order, with some missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from director.energy.group_energy import union
from director.phases.builder import build
from director.phases.join import join, joins_of, medians, participants, waiting
from director.phases.table import PhaseTable
from power_agent.messages import MarkEvent

Phase = tuple[str, int, int, int | None]  # name, begin, end, index
HOSTS = ["a", "b", "c", "d"]


def table_of(phases: dict[int, Sequence[Phase]], last: int = 10_000) -> PhaseTable:
    """Phases by rank; rank r runs on host r modulo 4."""
    events = []
    for rank, marked in phases.items():
        host = HOSTS[rank % 4]
        for number, (name, begin, end, index) in enumerate(marked):
            for op, t_ns in (("begin", begin), ("end", end)):
                event = MarkEvent(
                    t_ns=t_ns,
                    clock="monotonic",
                    op=op,  # type: ignore[arg-type]
                    name=name,
                    index=index,
                    key=f"{rank}/{number}",
                    lane=f"{host}/{rank}",
                    host=host,
                    rank=rank,
                )
                events.append(event)
    table, warnings, _ = build(
        events, begin_ns=0, end_ns=last, place=lambda _host, _clock, at: (at, np.zeros(len(at), np.int64))
    )
    assert not warnings
    return table


def who_of(table: PhaseTable) -> np.ndarray:
    return participants(table, table.host_places(HOSTS))


def joined_sets(table: PhaseTable, name: str) -> set[frozenset[tuple[int, int]]]:
    """(rank, begin) of the members of each joined phase."""
    codes = [code for code, known in enumerate(table.names) if known != "command"]
    numbers = join(table, codes, who_of(table))
    found: dict[int, set[tuple[int, int]]] = {}
    for row in np.flatnonzero(table.name_code == table.names.index(name)).tolist():
        found.setdefault(int(numbers[row]), set()).add((int(table.rank[row]), int(table.begin_ns[row])))
    assert sorted(found) == list(range(len(found)))  # counted from 0
    firsts = [min(begin for _, begin in found[number]) for number in sorted(found)]
    assert firsts == sorted(firsts)  # by begin
    return {frozenset(members) for members in found.values()}


@given(
    st.dictionaries(
        st.integers(0, 5),
        st.permutations(range(6)).flatmap(lambda order: st.integers(1, 6).map(lambda n: list(order)[:n])),
        min_size=1,
    )
)
@settings(max_examples=150, deadline=None)
def test_an_index_joins_in_whatever_order_ranks_take_the_work(taken: dict[int, list[int]]) -> None:
    phases: dict[int, list[Phase]] = {
        rank: [("step", 100 * place + rank, 100 * place + 50 + rank, index) for place, index in enumerate(order)]
        for rank, order in taken.items()
    }
    expected: dict[int, set[tuple[int, int]]] = {}
    for rank, marked in phases.items():
        for _, begin, _, index in marked:
            assert index is not None
            expected.setdefault(index, set()).add((rank, begin))
    assert joined_sets(table_of(phases), "step") == {frozenset(members) for members in expected.values()}


rounds = st.lists(st.sets(st.integers(1, 5), max_size=5), min_size=1, max_size=4)  # 0 is there always


@given(st.integers(1, 4).flatmap(lambda n: st.lists(rounds.filter(lambda r: len(r) == n), min_size=1, max_size=4)))
@settings(max_examples=100, deadline=None)
def test_indices_that_begin_anew_are_joined_round_by_round(ranks: list[list[set[int]]]) -> None:
    phases: dict[int, list[Phase]] = {}
    expected: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for rank, of_rank in enumerate(ranks):
        for number, kept in enumerate(of_rank):
            for index in sorted({0, *kept}):
                begin = 1000 * number + 100 * index + rank
                phases.setdefault(rank, []).append(("step", begin, begin + 60, index))
                expected.setdefault((number, index), set()).add((rank, begin))
    assert joined_sets(table_of(phases), "step") == {frozenset(members) for members in expected.values()}


@given(
    st.lists(
        st.dictionaries(st.integers(0, 4), st.sets(st.integers(0, 3), max_size=4), min_size=1), min_size=1, max_size=4
    )
)
@settings(max_examples=100, deadline=None)
def test_steps_are_joined_within_their_epoch_even_where_a_rank_missed_epochs(ranks: list[dict[int, set[int]]]) -> None:
    phases: dict[int, list[Phase]] = {}
    expected: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for rank, epochs in enumerate(ranks):
        for epoch, steps in sorted(epochs.items()):
            phases.setdefault(rank, []).append(("epoch", 1000 * epoch + rank, 1000 * epoch + 900 + rank, epoch))
            for index in sorted(steps):
                begin = 1000 * epoch + 200 * index + 10 + rank
                phases[rank].append(("step", begin, begin + 100, index))
                expected.setdefault((epoch, index), set()).add((rank, begin))
    if expected:
        assert joined_sets(table_of(phases), "step") == {frozenset(members) for members in expected.values()}


def test_without_an_index_the_nth_is_joined_with_the_nth() -> None:
    phases: dict[int, list[Phase]] = {
        rank: [("eval", 100 * n + rank, 100 * n + 50, None) for n in range(3)] for rank in (0, 1)
    }
    assert joined_sets(table_of(phases), "eval") == {frozenset({(0, 100 * n), (1, 100 * n + 1)}) for n in range(3)}


def test_steps_in_epochs_that_only_one_rank_marks_are_joined_all_the_same() -> None:
    steps: list[Phase] = [("step", 100 * n, 100 * n + 50, n) for n in range(1, 4)]
    table = table_of({0: [("epoch", 50, 900, 0), *steps], 1: steps})
    assert joined_sets(table, "step") == {frozenset({(0, 100 * n), (1, 100 * n)}) for n in range(1, 4)}


def test_one_process_number_on_two_hosts_is_two_participants() -> None:
    table = table_of({0: [("step", 1, 5, 0)], 1: [("step", 2, 6, 0)]})
    assert len(set(who_of(table)[1:].tolist())) == 2


def test_figures_of_joined_phases() -> None:
    phases: dict[int, list[Phase]] = {
        0: [("step", 0, 50, 0), ("step", 100, 150, 1)],
        1: [("step", 4, 60, 0), ("step", 100, 190, 1)],
        2: [("step", 2, 90, 0)],
        3: [("step", 300, 310, 7)],  # alone: nothing to join with
    }
    table = table_of(phases)
    who = who_of(table)
    joined = join(table, [1], who)
    rows = np.flatnonzero(table.name_code == 1)
    joins = joins_of(table, rows, joined, who)
    assert joins.members.tolist() == [3, 2]
    assert joins.begin_spread_ns.tolist() == [4, 0]
    assert (joins.least_ns.tolist(), joins.median_ns.tolist(), joins.most_ns.tolist()) == (
        [50, 50],
        [56.0, 70.0],
        [88, 90],
    )
    assert joins.last_end_ns.tolist() == [90, 190]
    assert joins.median_end_ns.tolist() == [60.0, 170.0]
    assert table.rank[joins.rows[joins.last]].tolist() == [2, 1]
    assert joins.told.all() and not joins.apart.any()


def test_nobody_is_last_within_what_the_clocks_may_be_off() -> None:
    events = [
        MarkEvent(t_ns=wall, clock="wall", op=op, name="step", index=0, key=lane, lane=lane)  # type: ignore[arg-type]
        for lane, end in (("x", 5_000_000), ("y", 9_000_000))
        for op, wall in (("begin", 1_000_000), ("end", end))
    ]
    for bound_ns, told in ((100_000, False), (-100_000, True)):  # a log's own resolution of 1 ms is added

        def place(_host: str, _clock: str, at: np.ndarray, bound: int = bound_ns) -> tuple[np.ndarray, np.ndarray]:
            return at, np.full(len(at), bound)

        table, _, _ = build(events, begin_ns=0, end_ns=10_000_000, place=place)
        who = participants(table, table.host_places([]))
        joins = joins_of(table, np.array([1, 2]), join(table, [1], who), who)
        assert joins.told.tolist() == [told]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1000)), min_size=1))
def test_medians_are_numpys(values: list[tuple[int, int]]) -> None:
    number, value = np.array(values).T
    expected = [float(np.median(value[number == n])) for n in number]
    assert medians(value, number).tolist() == expected


spans = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4)  # pause, length


@given(st.lists(spans, min_size=2, max_size=4), st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=2))
@settings(max_examples=200, deadline=None)
def test_waiting_is_the_time_between_ones_own_end_and_the_last_one_s(
    ranks: list[list[tuple[int, int]]], beside: list[tuple[int, int]]
) -> None:
    """Against a walk through time, one nanosecond after the other."""
    phases: dict[int, list[Phase]] = {}
    for rank, of_rank in enumerate(ranks):
        now = rank
        for index, (pause, length) in enumerate(of_rank):
            phases.setdefault(rank, []).append(("step", now + pause, now + pause + length, index))
            now += pause + length
    # a second rank of the first host, whose phases overlap with the first one's
    phases[4] = [("step", begin, begin + length, 50 + n) for n, (begin, length) in enumerate(sorted(set(beside)))]
    phases = {rank: marked for rank, marked in phases.items() if marked}
    table = table_of(phases)
    who, host = who_of(table), table.host_places(HOSTS)
    rows = np.flatnonzero(table.name_code == 1)
    joins = joins_of(table, rows, join(table, [1], who), who)
    for number in range(4):
        own = rows[host[rows] == number]
        covered = union(table.begin_ns[own], table.end_ns[own])
        found = waiting(joins, np.flatnonzero(host[joins.rows] == number), *covered)
        ours = {t for begin, end in zip(*found, strict=True) for t in range(int(begin), int(end))}
        busy = {t for row in own.tolist() for t in range(int(table.begin_ns[row]), int(table.end_ns[row]))}
        expected = set()
        for n in range(len(joins)):
            members = np.flatnonzero(joins.join == n)
            mine = [int(joins.end_ns[m]) for m in members if host[joins.rows[m]] == number]
            if not mine:
                continue
            t, last = max(mine), int(joins.end_ns[members].max())
            while t in busy:
                t += 1
            while t < last and t not in busy:
                expected.add(t)
                t += 1
        assert ours == expected
