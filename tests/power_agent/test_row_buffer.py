from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.contract import Channel, Kind, Row, Status
from power_agent.row_buffer import RowBuffer
from power_agent.row_format import row_struct


def channel(name: str, kind: Kind) -> Channel:
    return Channel(name=name, device="d", quantity="power", unit="W", kind=kind)


CHANNELS = [channel("d/power", "gauge"), channel("d/energy", "counter"), channel("d/state", "state")]
NOW_NS = 77


def rows_of(buffer: RowBuffer) -> list[tuple[Any, ...]]:
    rows, payload = buffer.take()
    unpacked = list(row_struct(CHANNELS).iter_unpack(payload))
    assert len(unpacked) == rows
    return unpacked


def added(values: Any, statuses: Any = None, t_ns: Any = 5, read_ns: Any = 6) -> tuple[tuple[Any, ...], str]:
    buffer = RowBuffer(CHANNELS, 1 << 20)
    complaint = buffer.add(Row(t_ns, read_ns, values, statuses), NOW_NS)
    (row,) = rows_of(buffer)
    return row, complaint


def test_a_row_is_little_endian_and_unpadded() -> None:
    buffer = RowBuffer(CHANNELS, 1 << 20)
    assert buffer.add(Row(1, 2, (1.0, 3, -1)), NOW_NS) == ""
    # 1.0 is 0x3FF0000000000000 in IEEE 754; three status bytes follow the values.
    expected = "0100000000000000 0200000000000000 000000000000f03f 0300000000000000 ffffffffffffffff 000000"
    assert buffer.take() == (1, bytes.fromhex(expected))
    assert buffer.take() == (0, b"")


def test_what_is_absent_has_no_value() -> None:
    statuses = bytes([Status.MISSING, Status.OVER_RANGE, Status.STALE])
    row, complaint = added((1.5, 9, 4), statuses)
    assert complaint == ""
    assert math.isnan(row[2])
    assert row[3:] == (0, 4, statuses)


def test_what_stands_for_an_absent_value_may_be_anything() -> None:
    row, complaint = added((None, math.nan, 4), bytes([Status.MISSING, Status.MISSING, Status.NEW]))
    assert complaint == ""
    assert row[3:5] == (0, 4)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_gauge_that_is_no_number_is_invalid_and_costs_no_other_channel(value: float) -> None:
    row, complaint = added((value, 9, 4))
    assert math.isnan(row[2])
    assert row[3:] == (9, 4, bytes([Status.INVALID, Status.NEW, Status.NEW]))
    assert "d/power" in complaint


@pytest.mark.parametrize(
    ("values", "statuses"),
    [
        ((1.0, 2), None),
        ((1.0, 2, 3, 4), None),
        ((), None),
        (None, None),
        ("abc", None),
        (("1", 2, 3), None),
        ((1.0, 2.5, 3), None),
        ((1.0, 2**63, 3), None),
        ((1.0, 2, None), None),
        ((1.0, 2, 3), b"\0\0"),
        ((1.0, 2, 3), b"\0\0\5"),
        ((1.0, 2, 3), [0, 0, 0]),
        ((1.0, 2, 3), "abc"),
    ],
)
def test_a_row_of_the_wrong_shape_is_invalid_as_a_whole(values: Any, statuses: Any) -> None:
    row, complaint = added(values, statuses)
    assert row[:2] == (5, 6)
    assert row[3:] == (0, 0, bytes([Status.INVALID] * 3))
    assert "counts as invalid" in complaint


def test_an_instant_of_the_wrong_type_is_replaced_and_the_row_is_invalid() -> None:
    row, complaint = added((1.0, 2, 3), t_ns=5.5)
    assert row[:2] == (NOW_NS, 0)
    assert row[-1] == bytes([Status.INVALID] * 3)
    assert "t_ns=5.5" in complaint


def test_finite_gauges_whose_sum_is_not_finite_are_kept() -> None:
    channels = [channel("a", "gauge"), channel("b", "gauge")]
    buffer = RowBuffer(channels, 1 << 20)
    assert buffer.add(Row(1, 1, (1.7e308, 1.7e308)), NOW_NS) == ""
    assert row_struct(channels).unpack(buffer.take()[1])[2:4] == (1.7e308, 1.7e308)


def test_a_full_buffer_drops_the_newest_and_counts_them() -> None:
    size = row_struct(CHANNELS).size + 64  # with what Python needs for each
    buffer = RowBuffer(CHANNELS, 10 * size + 1)
    for number in range(15):
        buffer.add(Row(number, 0, (0.0, number, 0)), NOW_NS)
        assert buffer.is_filling == (number + 1 > 2)
    assert buffer.dropped_rows == 5
    assert [row[0] for row in rows_of(buffer)] == list(range(10))
    buffer.add(Row(99, 0, (0.0, 0, 0)), NOW_NS)
    assert [row[0] for row in rows_of(buffer)] == [99]


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.binary(max_size=3), st.just([])
)


@settings(deadline=None)
@given(
    anything,
    anything,
    st.one_of(anything, st.lists(anything, max_size=4), st.tuples(anything, anything, anything)),
    st.one_of(anything, st.binary(min_size=3, max_size=3)),
)
def test_whatever_a_driver_says_becomes_one_row_that_can_be_read(
    t_ns: Any, read_ns: Any, values: Any, statuses: Any
) -> None:
    row, _ = added(values, statuses, t_ns, read_ns)
    assert len(row[-1]) == 3
    assert max(row[-1]) <= max(Status)
    for value, status, absent in zip(row[2:5], row[-1], (math.nan, 0, 0), strict=True):
        if status > Status.STALE:
            assert value == absent or math.isnan(value)
        else:
            assert math.isfinite(value)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**63 - 1))))
def test_rows_come_back_as_they_went_in(values: list[tuple[float, int]]) -> None:
    buffer = RowBuffer(CHANNELS, 1 << 20)
    for number, (gauge, counter) in enumerate(values):
        assert buffer.add(Row(number, 1, (gauge, counter, 1)), NOW_NS) == ""
    new = bytes(3)
    assert rows_of(buffer) == [(i, 1, gauge, counter, 1, new) for i, (gauge, counter) in enumerate(values)]
