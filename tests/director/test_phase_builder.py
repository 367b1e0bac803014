"""Phase tables from marks: pairing, nesting, and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from director.phases.builder import Point, build
from director.phases.table import CLAMPED, CROSSES, NEVER_CLOSED, NEVER_OPENED, PhaseTable, write_phases
from director.session.clock_pairs import Instants
from power_agent.messages import MarkEvent

BEGIN, END = 1000, 2000


def begin(t: int, name: str, **more: Any) -> MarkEvent:
    return MarkEvent(t_ns=t, clock=more.pop("clock", "monotonic"), op="begin", name=name, **more)


def end(t: int, name: str, **more: Any) -> MarkEvent:
    return MarkEvent(t_ns=t, clock=more.pop("clock", "monotonic"), op="end", name=name, **more)


def place(host: str, clock: str, at: Instants) -> tuple[Instants, Instants] | None:
    if host == "lost":
        return None
    return (at - 1_000_000, np.full_like(at, 7)) if clock == "wall" else (at + 100, np.full_like(at, 3))


def nowhere(host: str, clock: str, at: Instants) -> None:
    return None


def table_of(*events: MarkEvent) -> tuple[PhaseTable, list[str], list[Point]]:
    return build(events, begin_ns=BEGIN, end_ns=END, place=place)


def rows(table: PhaseTable) -> list[tuple[str, int, int, int, int]]:
    """Name, begin, end, parent and flags of every row but the command's."""
    columns = (table.name_code, table.begin_ns, table.end_ns, table.parent, table.flags)
    found = list(zip(*(column.tolist() for column in columns), strict=True))
    assert found[0] == (0, BEGIN, END, -1, 0) and table.names[0] == "command"
    return [(table.names[code], *rest) for code, *rest in found[1:]]


def test_phases_nest_in_the_order_of_time_whatever_the_order_of_the_marks() -> None:
    marks = [
        end(1900, "run"),
        begin(1500, "epoch", index=2),
        begin(1100, "run"),
        begin(1200, "epoch", index=1),
        end(1800, "epoch"),
        end(1500, "epoch", index=1),
    ]
    table, warnings, points = table_of(*marks)
    assert warnings == [] and points == []
    assert rows(table) == [("run", 1100, 1900, -1, 0), ("epoch", 1200, 1500, 1, 0), ("epoch", 1500, 1800, 1, 0)]
    assert table.depth.tolist() == [0, 0, 1, 1]
    assert table.index.tolist() == [-1, -1, 1, 2]


def test_a_key_pairs_across_lanes_and_innermost_does_not() -> None:
    table, _, _ = table_of(
        begin(1100, "query", key="a", lane="1:0"),
        begin(1110, "query", key="b", lane="1:1"),
        end(1200, "query", key="a", lane="1:9"),
        begin(1150, "x", lane="1:0"),
        begin(1160, "x", lane="1:0"),
        end(1170, "x", lane="1:0"),
        end(1300, "query", key="b", lane="1:1"),
        end(1180, "x", lane="1:0"),
    )
    assert rows(table) == [
        ("query", 1100, 1200, -1, 0),
        ("query", 1110, 1300, -1, 0),
        ("x", 1150, 1180, 1, 0),
        ("x", 1160, 1170, 3, 0),
    ]
    assert [table.lanes[code] for code in table.lane_code] == ["", "1:0", "1:1", "1:0", "1:0"]


def test_the_end_has_the_last_word_on_what_was_done() -> None:
    table, _, _ = table_of(
        begin(1100, "a", key="k", work={"samples": 5, "tokens": 1}, attributes={"lr": 1, "x": 2}, rank=3),
        end(1200, "a", key="k", work={"samples": 8, "frobs": 3}, attributes={"x": 4}),
    )
    assert table.work["samples"][1] == 8 and table.work["tokens"][1] == 1 and np.isnan(table.work["queries"][1])
    assert table.attributes == {1: {"lr": 1, "x": 4, "frobs": 3}}
    assert table.rank.tolist() == [-1, 3]


def test_what_never_ended_lasts_to_the_end_and_what_never_began_begins_with_the_command() -> None:
    table, warnings, _ = table_of(begin(1100, "a", source="m:2"), end(1300, "b"), end(1400, "c", key="lost"))
    assert rows(table) == [
        ("c", 1000, 1400, -1, NEVER_OPENED | CROSSES),
        ("b", 1000, 1300, 1, NEVER_OPENED | CROSSES),
        ("a", 1100, 2000, -1, NEVER_CLOSED | CROSSES),
    ]
    assert sorted(warnings) == [
        '1 × "a": never ended; taken to last to the end of the command (m:2)',
        '1 × "b": ended but never began; taken to begin with the command',
        '1 × "c": ended but never began; taken to begin with the command',
    ]


def test_a_second_end_changes_nothing_and_is_told() -> None:
    marks = (begin(1100, "a", key="k"), end(1200, "a", key="k"), end(1300, "a", key="k"))
    plain = (begin(1400, "b"), end(1500, "b"), end(1600, "b"))
    table, warnings, _ = table_of(*marks, *plain)
    assert rows(table) == [("a", 1100, 1200, -1, 0), ("b", 1400, 1500, -1, 0)]
    assert sorted(warnings) == [f'1 × "{name}": ended twice; the first end counts' for name in "ab"]


def test_what_reaches_outside_is_cut_to_the_measured_time_and_what_lies_there_is_left_out() -> None:
    marks = (begin(500, "a"), end(1100, "a"), begin(2500, "b"), end(2600, "b"), begin(10, "c"), end(20, "c"))
    table, warnings, _ = table_of(*marks, begin(15, "d"))  # d was killed in an earlier run that the log holds, too
    assert rows(table) == [("a", 1000, 1100, -1, CLAMPED)]
    left_out = [text for text in warnings if "is not of the measured time, and was left out" in text]
    assert sorted(text[:7] for text in left_out) == ['1 × "b"', '1 × "c"', '1 × "d"']


def test_what_lies_in_an_earlier_stage_is_left_out_without_a_word() -> None:
    inside = (begin(500, "run"), end(900, "run"), MarkEvent(t_ns=600, clock="monotonic", op="point", name="p"))
    outside = (begin(10, "run"), end(20, "run"), begin(1100, "run"), end(1200, "run"))
    table, warnings, points = build([*inside, *outside], begin_ns=BEGIN, end_ns=END, place=place, earlier_ns=400)
    assert rows(table) == [("run", 1100, 1200, -1, 0)] and points == []
    assert warnings == ['1 × "run": is not of the measured time, and was left out']


def test_phases_that_overlap_are_flagged_both_and_nest_where_they_fit() -> None:
    marks = [("outer", 1100, 1900), ("a", 1200, 1500), ("b", 1400, 1700), ("in b", 1600, 1650), ("alone", 1800, 1850)]
    table, _, _ = table_of(
        *(begin(t, name, key=name) for name, t, _ in marks), *(end(t, name, key=name) for name, _, t in marks)
    )
    assert rows(table) == [
        ("outer", 1100, 1900, -1, 0),
        ("a", 1200, 1500, 1, CROSSES),
        ("b", 1400, 1700, 1, CROSSES),
        ("in b", 1600, 1650, 3, 0),
        ("alone", 1800, 1850, 1, 0),
    ]


def test_wall_time_is_placed_with_its_bound_and_the_resolution_of_logs() -> None:
    marks = (begin(1_001_100, "a", clock="wall", key="k"), end(1_200, "a", key="k"))
    table, _, points = table_of(*marks, MarkEvent(t_ns=1_001_150, clock="wall", op="point", name="p"))
    assert rows(table) == [("a", 1100, 1200, -1, 0)]
    assert table.time_bound_ns.tolist() == [0, 1_000_007]
    assert points == [Point(1150, 1_000_007, "p", "", None, {})]


def test_an_impossible_time_is_left_out() -> None:
    table, warnings, _ = table_of(begin(10**30, "a"), end(-(10**30), "a", clock="wall"))
    assert rows(table) == []
    assert warnings == ['2 × "a": has an impossible time and was left out']


def test_a_hundred_thousand_phases_of_two_lanes(tmp_path: Path) -> None:
    count = 50_000
    marks = (
        mark
        for index in range(count)
        for lane in ("0", "1")
        for mark in (
            begin(10 * index, "step", key=f"{lane}{index}", lane=lane, index=index, work={"samples": 2.0}),
            end(10 * index + 9, "step", key=f"{lane}{index}", lane=lane),
        )
    )
    table, warnings, _ = build(marks, begin_ns=0, end_ns=10 * count, place=place)
    assert len(table) == 2 * count + 1 and warnings == []
    assert int((table.end_ns - table.begin_ns)[1:].sum()) == 2 * count * 9
    assert not table.flags.any() and (table.parent == -1).all()
    write_phases(tmp_path / "phases.parquet", table)
    found = pq.read_table(tmp_path / "phases.parquet")
    assert found.num_rows == len(table)
    assert found.column("work_samples").null_count == 1 and found.column("index").null_count == 1


def test_the_written_table_says_null_where_nothing_was_said(tmp_path: Path) -> None:
    table, _, _ = table_of(
        begin(1100, "a", index=4, lane="x", attributes={"lr": 0.1, "odd": {1, 2}}), end(1200, "a", lane="x")
    )
    write_phases(tmp_path / "phases.parquet", table)
    command, a = pq.read_table(tmp_path / "phases.parquet").to_pylist()
    assert (command["name"], command["index"], command["work_tokens"], command["attributes"]) == (
        "command",
        *[None] * 3,
    )
    assert (a["name"], a["index"], a["lane"], a["parent"], a["rank"]) == ("a", 4, "x", None, None)
    assert json.loads(a["attributes"]) == {"lr": 0.1, "odd": [1, 2]}


EVENTS = st.builds(
    MarkEvent,
    t_ns=st.integers(990, 1030) | st.integers(),
    clock=st.sampled_from(["monotonic", "monotonic", "monotonic", "wall"]),
    op=st.sampled_from(["begin", "end", "point"]),
    name=st.sampled_from(["a", "b", "command"]),
    index=st.none() | st.integers(0, 2) | st.integers(),
    key=st.sampled_from(["", "", "k", "l", "m"]),
    lane=st.sampled_from(["", "x"]),
    rank=st.none() | st.integers(),
    work=st.dictionaries(st.sampled_from(["samples", "odd"]), st.floats()),
    attributes=st.dictionaries(st.text(), st.integers()),
)


@given(st.lists(EVENTS, max_size=40), st.integers(1000, 1030))
def test_any_marks_make_a_sound_table(events: list[MarkEvent], end_ns: int) -> None:
    table, _, points = build(
        events, begin_ns=1000, end_ns=end_ns, place=lambda _host, _clock, t: (t // 2, np.full_like(t, 5))
    )
    begins, ends, lanes = table.begin_ns.tolist(), table.end_ns.tolist(), table.lane_code.tolist()
    count = len(table)
    assert (begins[0], ends[0], table.names[table.name_code[0]]) == (1000, end_ns, "command")
    keys = [(b, -e) for b, e in zip(begins[1:], ends[1:], strict=True)]
    assert keys == sorted(keys)
    assert all(1000 <= b <= e <= end_ns for b, e in zip(begins, ends, strict=True))
    for row in range(1, count):
        others = [other for other in range(1, count) if other != row and lanes[other] == lanes[row]]
        crosses = any(
            begins[first] < begins[second] < ends[first] < ends[second]
            for other in others
            for first, second in ((row, other), (other, row))
        )
        assert bool(table.flags[row] & CROSSES) == crosses
        parent = int(table.parent[row])
        assert parent < row
        holders = [o for o in others if o < row and ends[o] >= ends[row] and ends[o] > begins[row]]
        assert parent == max(holders, default=-1)
        assert table.depth[row] == (0 if parent == -1 else table.depth[parent] + 1)
    assert all(0 <= row < count for row in table.attributes)
    usable = [event for event in events if abs(event.t_ns) < 1 << 62]
    assert count - 1 <= sum(event.op != "point" for event in usable)
    begun = [event.t_ns // 2 if event.clock == "wall" else event.t_ns for event in usable if event.op == "begin"]
    assert count - 1 >= sum(1000 <= t_ns <= end_ns for t_ns in begun)
    assert [point.t_ns for point in points] == sorted(point.t_ns for point in points)


def test_a_command_that_was_never_measured_is_a_table_of_one_row() -> None:
    table, warnings, points = build([], begin_ns=5, end_ns=5, place=nowhere)
    assert len(table) == 1 and warnings == [] and points == []


def test_many_stamps_of_both_clocks_come_to_the_place_of_one() -> None:
    # more than are placed at once; an impossible time among them moves no other
    count = 40_000
    clocks = ["wall" if i % 3 else "monotonic" for i in range(count)]
    marks = [begin(10 * i + (1_000_000 if clocks[i] == "wall" else 0), "x", clock=clocks[i]) for i in range(count)]
    marks.insert(7, begin(1 << 62, "never", clock="wall"))
    table, warnings, _ = build(marks, begin_ns=0, end_ns=10 * count, place=place)
    assert table.begin_ns[1:].tolist() == list(range(0, 10 * count, 10))
    assert table.time_bound_ns[1:].tolist() == [1_000_007 if clock == "wall" else 0 for clock in clocks]
    assert any("impossible time" in text for text in warnings)


def test_without_a_clock_marks_in_wall_time_are_left_out() -> None:
    marks = [begin(1100, "a"), begin(5, "b", clock="wall"), end(1200, "a"), end(6, "b", clock="wall")]
    table, warnings, _ = build(marks, begin_ns=BEGIN, end_ns=END, place=nowhere)
    assert rows(table) == [("a", 1100, 1200, -1, 0)] and warnings == []
