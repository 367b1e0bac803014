"""Energies against closed forms, and what must hold for any trace."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from director.energy.align import Aligned, align
from director.energy.channel_timing import timing_of
from director.energy.interval_energy import interval_energies
from director.session.trace_store import Piece
from drivers.contract import Accuracy, Channel, Status

S = 1_000_000_000


def gauge(update_s: float | None = 1.0, window_s: float | None = 1.0, accuracy: float | None = None) -> Channel:
    return Channel(
        name="sim/m/power",
        device="m",
        quantity="power",
        unit="W",
        kind="gauge",
        scope="wall",
        update_period_s=update_s,
        window_s=window_s,
        accuracy=Accuracy(reading_fraction=accuracy) if accuracy is not None else None,
    )


def counter(modulus: int | None = None, scale: float = 1e-6, update_s: float | None = 0.001) -> Channel:
    return Channel(
        name="sim/m/energy",
        device="m",
        quantity="energy",
        unit="J",
        kind="counter",
        scope="package",
        scale=scale,
        modulus=modulus,
        update_period_s=update_s,
    )


def piece(t_ns: list[int] | np.ndarray, values: object, statuses: object = None, dtype: type = np.float64) -> Piece:
    t = np.asarray(t_ns, dtype=np.int64)
    status = np.zeros(len(t), dtype=np.uint8) if statuses is None else np.asarray(statuses, dtype=np.uint8)
    return Piece(t, np.zeros(len(t), dtype=np.int64), [np.asarray(values, dtype=dtype)], [status])


def cut(channel: Channel, rate_hz: float, pieces: list[Piece], edges_ns: list[int]) -> Aligned:
    return align(channel, timing_of(channel, rate_hz), pieces, np.asarray(edges_ns, dtype=np.int64), 0)


def energies(channel: Channel, rate_hz: float, pieces: list[Piece], phases: list[tuple[int, int]]):  # type: ignore[no-untyped-def]
    begin, end = (np.asarray(x, dtype=np.int64) for x in zip(*phases, strict=True))
    edges = np.unique(np.concatenate((begin, end)))
    aligned = align(channel, timing_of(channel, rate_hz), pieces, edges, 0)
    i, j = np.searchsorted(edges, begin), np.searchsorted(edges, end)
    return interval_energies(channel, timing_of(channel, rate_hz), aligned, i, j, np.zeros(len(phases)))


def test_constant_power_gives_power_times_time() -> None:
    t = np.arange(0, 60 * S, S)
    found = energies(gauge(), 1.0, [piece(t, np.full(60, 200.0))], [(10 * S, 20 * S), (10 * S, 10 * S + S // 20)])
    assert found.joules == pytest.approx([2000.0, 10.0], rel=1e-12)
    assert found.coverage == pytest.approx([1.0, 1.0])
    assert found.expanded_joules == pytest.approx([0.0, 0.0], abs=1e-9)  # nobody states an accuracy, nothing else errs


def test_a_full_window_meter_is_exact_where_phase_edges_meet_its_windows() -> None:
    # readings at 1 … 10 s are means of the second before, published at once: update lag 0.5 s on average is what a
    # polled meter has; here the poll comes right at the update, so windows are shifted by half an update
    channel = gauge(update_s=0.0, window_s=1.0)
    watts = [100.0, 100.0, 300.0, 300.0, 300.0, 100.0, 100.0, 100.0, 100.0, 100.0]
    found = energies(channel, 1.0, [piece([k * S for k in range(1, 11)], watts)], [(2 * S, 5 * S), (1 * S, 9 * S)])
    assert found.joules == pytest.approx([900.0, 1400.0], rel=1e-12)


def test_counter_differences_are_exact_over_many_wraps() -> None:
    modulus = 1 << 20
    rng = np.random.default_rng(3)
    steps = rng.integers(0, 300_000, 500)  # µJ per 100 ms, up to 3 W
    true = np.concatenate(([777], 777 + np.cumsum(steps)))
    t = np.arange(501) * (S // 10)
    channel = counter(modulus, update_s=0.0)
    found = energies(channel, 10.0, [piece(t, true % modulus, dtype=np.int64)], [(0, int(t[-1]))])
    assert (true[-1] - true[0]) // modulus > 50
    assert found.joules[0] == (true[-1] - true[0]) * 1e-6
    assert found.coverage[0] == 1.0


def test_a_64_bit_counter_wraps_too() -> None:
    channel = counter(1 << 64, scale=2.0**-32, update_s=0.0)
    start = (1 << 63) - 1000  # as a signed reading: about to overflow
    raw = np.array([start + k * 500 for k in range(5)], dtype=np.uint64).astype(np.int64)
    found = energies(channel, 10.0, [piece([k * S // 10 for k in range(5)], raw, dtype=np.int64)], [(0, 4 * S // 10)])
    assert found.joules[0] == 2000 * 2.0**-32


def test_a_reset_is_not_a_wrap_and_its_energy_is_not_known() -> None:
    # 200 W for 10 s, reset to 0 by a driver reload at 5 s, 200 W again: the cell of the reset is not measured
    t = np.arange(0, 101) * (S // 10)
    micro = np.arange(101) * 20_000_000
    micro[50:] -= micro[50]
    for channel in (counter(None, update_s=0.0), counter(262_143_328_850, update_s=0.0)):
        found = energies(channel, 10.0, [piece(t, micro, dtype=np.int64)], [(0, 10 * S)])
        assert found.coverage[0] == pytest.approx(0.99)
        assert found.joules[0] == pytest.approx(2000.0)  # bridged as a gap is, not taken for zero


def test_a_gap_is_interpolated_and_never_called_measured() -> None:
    t = [k * S for k in range(60) if not 20 < k < 40]
    found = energies(gauge(), 1.0, [piece(t, np.full(len(t), 100.0))], [(10 * S, 50 * S)])
    assert found.joules[0] == pytest.approx(4000.0)
    assert found.coverage[0] == pytest.approx((40 - 19) / 40)  # 19 s between the half cells around the gap


def test_too_little_measured_gives_no_figure() -> None:
    t = [k * S for k in range(60) if k < 15]
    found = energies(gauge(), 1.0, [piece(t, np.full(len(t), 100.0))], [(10 * S, 50 * S), (20 * S, 30 * S)])
    assert np.isnan(found.joules).all()
    assert found.coverage[1] == 0.0


def test_missing_and_nan_are_not_zero() -> None:
    t = np.arange(0, 60 * S, S)
    watts = np.full(60, 100.0)
    statuses = np.zeros(60, dtype=np.uint8)
    watts[20], statuses[20] = 0.0, Status.MISSING
    watts[30] = np.nan
    watts[40], statuses[40] = 99999.0, Status.INVALID
    found = energies(gauge(), 1.0, [piece(t, watts, statuses)], [(10 * S, 50 * S)])
    assert found.joules[0] == pytest.approx(4000.0)
    assert found.missing[0] == 3
    assert found.peak_watts[0] == 100.0


def test_backward_and_repeated_instants_are_dropped() -> None:
    t = [0, 1 * S, 2 * S, 2 * S, 1 * S, 3 * S, 4 * S, 5 * S]
    found = energies(gauge(), 1.0, [piece(t, np.full(8, 50.0))], [(0, 3 * S)])
    assert found.joules[0] == pytest.approx(150.0)
    assert found.missing[0] == 2


def test_no_reading_at_all() -> None:
    found = energies(gauge(), 1.0, [], [(0, S)])
    assert np.isnan(found.joules[0])
    assert found.coverage[0] == 0.0


def test_accuracy_adds_up_as_rectangular_limits() -> None:
    t = np.arange(0, 60 * S, S)
    found = energies(gauge(accuracy=0.05), 1.0, [piece(t, np.full(60, 100.0))], [(10 * S, 50 * S)])
    assert found.expanded_joules[0] == pytest.approx(2 * 0.05 * 4000 / np.sqrt(3))


def test_edge_term_covers_a_step_at_the_phase_edge() -> None:
    # 200 → 650 → 200 W exactly over the phase, read by a 1 s full-window meter at any offset: the bias of
    # overlap weights is ΔP·dt·f(1−f) per edge, at most a quarter
    channel = gauge(update_s=1.0, window_s=1.0)
    for offset in np.linspace(0, 0.99, 34):
        updates = np.arange(0, 80) + offset
        overlap = np.clip(np.minimum(updates, 70) - np.maximum(updates - 1, 10), 0, 1)
        watts = 200 + 450 * overlap
        t = np.round((updates + 0.5) * S).astype(np.int64)  # polled half an update later
        found = energies(channel, 1.0, [piece(t, watts)], [(10 * S, 70 * S)])
        assert abs(found.joules[0] - 650 * 60) <= found.expanded_joules[0]


traces = st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1000)), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(traces, st.lists(st.integers(-5, 1500), min_size=2, max_size=12, unique=True), st.integers(1, 7), st.booleans())
def test_parts_sum_to_the_whole_and_pieces_do_not_matter(
    steps: list[tuple[int, float]], edges: list[int], pieces: int, counts: bool
) -> None:
    unit = S // 10
    t = np.cumsum([dt for dt, _ in steps]) * unit
    watts = np.array([w for _, w in steps])
    values = np.cumsum(np.round(watts * 1000)).astype(np.int64) if counts else watts
    channel = counter(None, 1e-3, 0.0) if counts else gauge(0.1, 0.1)
    dtype = np.int64 if counts else np.float64
    edge_ns = sorted(e * unit for e in edges)
    whole = cut(channel, 10.0, [piece(t, values, dtype=dtype)], edge_ns)
    bounds = np.linspace(0, len(t), pieces + 1).astype(int)
    split = [piece(t[a:b], values[a:b], dtype=dtype) for a, b in itertools.pairwise(bounds)]
    again = cut(channel, 10.0, split, edge_ns)
    for name in ("joules_at", "measured_ns_at", "readings_at", "peak_watts", "least_watts", "edge_spread_watts"):
        np.testing.assert_allclose(getattr(again, name), getattr(whole, name), rtol=1e-9, atol=1e-6, err_msg=name)
    assert (np.diff(whole.joules_at) >= -1e-9).all()  # powers are not negative here
    n = len(edge_ns)
    begin, end = np.arange(n - 1), np.arange(1, n)
    timing = timing_of(channel, 10.0)
    parts = interval_energies(channel, timing, whole, begin, end, np.zeros(n - 1))
    total = interval_energies(channel, timing, whole, np.array([0]), np.array([n - 1]), np.zeros(1))
    if np.isfinite(parts.joules).all() and np.isfinite(total.joules).all() and (parts.coverage > 0.999).all():
        assert parts.joules.sum() == pytest.approx(total.joules[0], rel=1e-9, abs=1e-6)
    assert ((parts.coverage >= 0) & (parts.coverage <= 1)).all()
    assert (parts.expanded_joules[np.isfinite(parts.joules)] >= 0).all()


def test_many_pieces_of_a_long_trace() -> None:
    rng = np.random.default_rng(5)
    t = np.arange(20_000) * (S // 100) + rng.integers(0, 1000, 20_000)
    watts = rng.uniform(100, 300, 20_000)
    channel = gauge(0.01, 0.01)
    edges = np.sort(rng.integers(-S, 201 * S, 500)).tolist()
    one = cut(channel, 100.0, [piece(t, watts)], edges)
    split = [piece(t[a : a + 700], watts[a : a + 700]) for a in range(0, 20_000, 700)]
    many = cut(channel, 100.0, split, edges)
    np.testing.assert_allclose(many.joules_at, one.joules_at, rtol=1e-10)
    np.testing.assert_array_equal(many.peak_watts, one.peak_watts)
    np.testing.assert_allclose(many.roughness_at, one.roughness_at, rtol=1e-9)
    np.testing.assert_allclose(many.edge_hidden_watts, one.edge_hidden_watts, rtol=1e-9)
    # peaks against a plain search: cells that overlap the segment
    at = t - 0.01 * S
    left = np.concatenate(([at[0] - S // 200], (at[1:] + at[:-1]) / 2))
    right = np.concatenate(((at[1:] + at[:-1]) / 2, [at[-1] + S // 200]))
    for k in range(0, 499, 7):
        a, b = edges[k], edges[k + 1]
        touching = watts[(right > a) & (left < b)]
        if a < b and a > left[0] and b < right[-1]:
            assert one.peak_watts[k] == touching.max()
    # and of intervals of every length, whole trace included
    begin = np.concatenate((rng.integers(0, 400, 100), [0]))
    end = np.concatenate((np.minimum(begin[:-1] + rng.integers(1, 400, 100), 499), [499]))
    found = interval_energies(channel, timing_of(channel, 100.0), one, begin, end, np.zeros(101))
    for k in range(101):
        assert found.peak_watts[k] == np.nanmax(one.peak_watts[begin[k] : end[k]])
        assert found.least_watts[k] == np.nanmin(one.least_watts[begin[k] : end[k]])


def test_a_stamped_counter_is_cut_at_its_own_instants_and_its_offset_grows_with_time() -> None:
    accuracy = Accuracy(reading_fraction=0.001, absolute=36.0, per_second=0.75)
    channel = msgspec.structs.replace(counter(update_s=1.0), stamped=True, accuracy=accuracy)
    timing = timing_of(channel, 5.0)  # asked five times a second, it gives a row each second
    assert (timing.poll_ns, timing.lag_ns, timing.step_ns) == (S, 0, 0)
    instants = np.arange(101) * S
    joules = np.arange(101) * 600_000_000  # µJ: 600 W
    edges = np.array([20 * S, 80 * S])
    aligned = align(channel, timing, [piece(instants, joules, dtype=np.int64)], edges, 0)
    found = interval_energies(channel, timing, aligned, np.array([0]), np.array([1]), np.zeros(1))
    assert found.joules[0] == pytest.approx(36_000.0)
    assert found.terms["meter"][0] == pytest.approx((36.0 + 36.0 + 45.0) / 3**0.5)
    assert found.terms["step"][0] == 0.0


@pytest.mark.parametrize("kind", ["gauge", "counter"])
@pytest.mark.parametrize("stamped", [False, True])
@pytest.mark.parametrize("update_s", [None, 1.0])
@pytest.mark.parametrize("window_s", [None, 4.0])
def test_a_delay_makes_every_reading_older_by_itself(
    kind: Any, stamped: bool, update_s: float | None, window_s: float | None
) -> None:
    """Whatever else is known, and of the lag alone."""
    prompt = Channel(
        name="s/0/x", device="0", quantity="power", unit="W", kind=kind, stamped=stamped, update_period_s=update_s,
        window_s=window_s,
    )  # fmt: skip
    late = timing_of(msgspec.structs.replace(prompt, delay_s=0.5), 10.0)
    assert late.lag_ns == pytest.approx(timing_of(prompt, 10.0).lag_ns + 0.5e9)
    assert replace(late, lag_ns=0.0) == replace(timing_of(prompt, 10.0), lag_ns=0.0)
