"""Wall time placed on the monotonic clock: exact on made-up clocks, and within its bound on any that could be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from director.session.clock_pairs import ClockFileError, ClockStep, WallClock

S = 1_000_000_000
EPOCH = 1_700_000_000 * S  # some day in 2023


def ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def clock_of(pairs: list[tuple[int, int]], bracket: int = 200) -> WallClock:
    monotonic, wall = ints(*(m for m, _ in pairs)), ints(*(w for _, w in pairs))
    return WallClock(monotonic, wall, np.full(len(pairs), bracket, np.int64))


def one(answer: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]) -> tuple[int, int]:
    return int(answer[0][0]), int(answer[1][0])


def test_a_constant_offset_is_exact_and_bounded_by_half_the_bracket() -> None:
    clock = clock_of([(i * S, EPOCH + i * S) for i in range(5)])
    assert one(clock.to_monotonic(ints(EPOCH + 2_345_678_901))) == (2_345_678_901, 100)
    assert one(clock.to_wall(ints(2_345_678_901))) == (EPOCH + 2_345_678_901, 100)
    assert clock.steps == ()


def test_outside_the_pairs_the_bound_grows_by_500_ppm() -> None:
    clock = clock_of([(10 * S, EPOCH), (11 * S, EPOCH + S)])
    assert one(clock.to_monotonic(ints(EPOCH - 4 * S))) == (6 * S, 100 + 2_000_000)
    assert one(clock.to_wall(ints(13 * S))) == (EPOCH + 3 * S, 100 + 1_000_000)


def test_a_clock_that_runs_fast_is_interpolated() -> None:
    # 100 ppm fast: 100 µs more each second.
    clock = clock_of([(i * S, EPOCH + i * (S + 100_000)) for i in range(4)])
    at, bound = one(clock.to_monotonic(ints(EPOCH + (S + 100_000) * 3 // 2)))
    assert at == pytest.approx(3 * S // 2, abs=1)
    assert bound == 100 + 100_000


def test_a_step_forward_is_seen_and_what_it_jumped_over_lies_at_the_step() -> None:
    jump = 5 * S
    clock = clock_of([(0, EPOCH), (S, EPOCH + S), (2 * S, EPOCH + 2 * S + jump), (3 * S, EPOCH + 3 * S + jump)])
    assert clock.steps == (ClockStep(S, 2 * S, jump),)
    assert one(clock.to_monotonic(ints(EPOCH + S // 2))) == (S // 2, 100)
    assert one(clock.to_monotonic(ints(EPOCH + 5 * S // 2 + jump))) == (5 * S // 2, 100)
    at, bound = one(clock.to_monotonic(ints(EPOCH + 4 * S)))  # a time that never was
    assert S <= at <= 2 * S
    assert bound >= S


def test_where_the_clock_was_set_back_the_bound_reaches_to_both_instants() -> None:
    back = 3 * S
    before = [(i * S, EPOCH + i * S) for i in range(11)]
    after = [(i * S, EPOCH + i * S - back) for i in range(11, 21)]
    clock = clock_of(before + after)
    assert clock.steps == (ClockStep(10 * S, 11 * S, -back),)
    # EPOCH + 9 s came at 9 s, and again at 12 s.
    assert one(clock.to_monotonic(ints(EPOCH + 9 * S))) == (9 * S, 3 * S + 100)
    # EPOCH + 5 s came once.
    assert one(clock.to_monotonic(ints(EPOCH + 5 * S))) == (5 * S, 100)
    # In the span of the step the wall time is one of two.
    _, bound = one(clock.to_wall(ints(10 * S + S // 2)))
    assert bound >= back


def test_steering_and_a_gap_in_the_pairs_are_no_step() -> None:
    # 60 s without a pair, and the clock steered by 400 ppm meanwhile: 24 ms.
    assert clock_of([(0, EPOCH), (60 * S, EPOCH + 60 * S + 24_000_000)]).steps == ()
    assert len(clock_of([(0, EPOCH), (S, EPOCH + S + 24_000_000)]).steps) == 1


def test_no_pair_is_an_error_and_nonsense_is_no_pair() -> None:
    with pytest.raises(ValueError):
        clock_of([])
    with pytest.raises(ValueError):
        WallClock(ints(1), ints(-5), ints(0))


def test_a_file_is_read_and_an_alien_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "clock.parquet"
    pq.write_table(pa.table({"monotonic_ns": [0, S], "wall_ns": [EPOCH, EPOCH + S], "bracket_ns": [10, 10]}), path)
    assert one(WallClock.from_file(path).to_monotonic(ints(EPOCH + 7))) == (7, 5)
    for content in (b"", b"PAR1 not really PAR1"):
        path.write_bytes(content)
        with pytest.raises(ClockFileError, match=str(path)):
            WallClock.from_file(path)
    pq.write_table(pa.table({"monotonic_ns": ["a"], "wall_ns": [0], "bracket_ns": [0]}), path)
    with pytest.raises(ClockFileError):
        WallClock.from_file(path)
    with pytest.raises(ClockFileError):
        WallClock.from_file(tmp_path / "none")


@st.composite
def histories(draw: st.DrawFn) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """True monotonic and wall time every 10 ms: steered by up to 500 ppm, now and then set.

    A clock that is set there and back within a second, or steered against a step, leaves no trace in the pairs.
    """
    seconds = draw(st.integers(3, 12))
    slews = draw(st.lists(st.floats(-500e-6, 500e-6), min_size=seconds, max_size=seconds))
    jumps = draw(st.dictionaries(st.integers(0, seconds - 1), st.integers(-20 * S, 20 * S), max_size=2))
    for second in jumps:
        slews[second] = 0.0
    steered = np.cumsum(np.repeat(np.array(slews) * 1e7, 100))
    offset = np.concatenate([[0.0], steered[:-1]]).round().astype(np.int64)
    for at, jump in jumps.items():
        offset[at * 100 + draw(st.integers(1, 99)) :] += jump
    monotonic = np.arange(seconds * 100, dtype=np.int64) * 10_000_000
    return monotonic, EPOCH + monotonic + offset


@settings(max_examples=60, deadline=None)
@given(histories(), st.integers(0, 1_000_000), st.randoms(use_true_random=False))
def test_the_truth_is_within_the_bound(
    history: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], bracket: int, random: object
) -> None:
    monotonic, wall = history
    noise = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    error = noise.integers(-(bracket // 2), bracket // 2 + 1, len(monotonic[::100]))
    clock = WallClock(monotonic[::100] + error, wall[::100], np.full(len(error), bracket, np.int64))
    inside = slice(0, len(monotonic) - 99)
    at, bound = clock.to_monotonic(wall[inside])
    # One rounding each way.
    assert (np.abs(at - monotonic[inside]) <= bound + 2).all()
    shown, bound = clock.to_wall(monotonic[inside])
    assert (np.abs(shown - wall[inside]) <= bound + 2).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 3), min_size=1, max_size=8),
    st.integers(-(2**63), 2**63 - 1),
)
def test_any_numbers_give_an_answer_or_a_plain_refusal(pairs: list[tuple[int, int, int]], instant: int) -> None:
    columns = [np.array(column, np.int64) for column in zip(*pairs, strict=True)]
    try:
        clock = WallClock(*columns)
    except ValueError:
        return
    for at, bound in (clock.to_monotonic(ints(instant)), clock.to_wall(ints(instant))):
        assert len(at) == 1
        assert bound[0] >= 0
