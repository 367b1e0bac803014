"""A host's wall clock against its monotonic clock, from pairs read once a second: where a stamp in wall time belongs.

A log stamped in wall time is placed on the monotonic clock through the pairs; a step of the wall clock (somebody or
something set it) is told from its slow steering, and every answer carries a bound on its error.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Instants = npt.NDArray[np.int64]

STEP_NS = 10_000_000  # a change of the offset larger than this, beyond what steering can do, is a step
MAX_SLEW = 500e-6  # the kernel steers the wall clock by at most 500 ppm (adjtimex, MAXFREQ and adjtime's rate)
_LATEST_WALL = 1 << 62  # the year 2116; these limits keep every difference within 64 bits
_LATEST_MONOTONIC = 1 << 60  # 36 years after boot
_FOREVER = (1 << 62) - 1


class ClockFileError(Exception):
    """A clock file that cannot be used: which, and why."""


@dataclass(frozen=True)
class ClockStep:
    """The wall clock was set by `jump_ns` at some instant after `after_ns` and not later than `before_ns`."""

    after_ns: int  # monotonic
    before_ns: int  # monotonic
    jump_ns: int  # positive: it was set forward


@dataclass(frozen=True)
class _Segment:
    """Consecutive pairs without a step, and the span that they may stand for: up to the pairs on both sides."""

    first_ns: int
    last_ns: int
    low_ns: int
    high_ns: int
    monotonic: Instants
    wall: Instants
    half_bracket: npt.NDArray[np.float64]

    def offset_and_bound(self, at: Instants, knots: Instants) -> tuple[Instants, Instants]:
        """Wall minus monotonic at instants given on the clock of `knots` (one of this segment's own), and its bound.

        Between two pairs the wall clock may have been steered at any instant, though only one way, so the whole change
        of the offset is part of the bound; outside the pairs it grows with the fastest steering.
        """
        base_offset = int(self.wall[0]) - int(self.monotonic[0])
        offsets = ((self.wall - self.monotonic) - base_offset).astype(np.float64)
        x, xp = (at - knots[0]).astype(np.float64), (knots - knots[0]).astype(np.float64)
        offset = base_offset + np.rint(np.interp(x, xp, offsets)).astype(np.int64)
        right = np.clip(np.searchsorted(knots, at), 0, len(knots) - 1)
        left = np.clip(np.where(knots[right] > at, right - 1, right), 0, len(knots) - 1)
        bound = np.maximum(self.half_bracket[left], self.half_bracket[right]) + np.abs(offsets[right] - offsets[left])
        outside = np.maximum(np.maximum(knots[0] - at, at - knots[-1]), 0)
        return offset, np.ceil(bound + MAX_SLEW * outside).astype(np.int64)

    def place(self, wall: Instants) -> tuple[Instants, Instants, npt.NDArray[np.float64]]:
        """Where this segment puts wall instants, how wrong that may be, and how good a place it is.

        The last is 2 among its pairs, 1 in the gaps beside them, less the farther before the first or after the last
        of all pairs, and negative where this segment misses: it cannot have shown that wall time.
        """
        offset, error = self.offset_and_bound(wall, self.wall)
        raw = wall - offset
        place = np.clip(raw, self.low_ns, self.high_ns)
        missed = np.maximum(np.abs(raw - place) - error, 0)
        span = np.where(raw < place, self.first_ns - self.low_ns, self.high_ns - self.last_ns)
        before, after = self.first_ns - raw, raw - self.last_ns
        beyond = np.where(self.low_ns == -_FOREVER, before, 0), np.where(self.high_ns == _FOREVER, after, 0)
        rank = 1 - np.maximum(np.maximum(*beyond), 0) / _FOREVER
        rank[(before <= 0) & (after <= 0)] = 2
        return place, np.where(missed > 0, error + missed + span, error), np.where(missed > 0, -missed, rank)


class WallClock:
    """Maps wall time to monotonic time and back. All instants and bounds are in nanoseconds.

    Args:
        monotonic_ns, wall_ns: the two clocks, read together.
        bracket_ns: how long that took on the monotonic clock; `monotonic_ns` is its middle.

    Raises:
        ValueError: no usable pair.
    """

    def __init__(self, monotonic_ns: Instants, wall_ns: Instants, bracket_ns: Instants) -> None:
        usable = (monotonic_ns > -_LATEST_MONOTONIC) & (monotonic_ns < _LATEST_MONOTONIC)
        usable &= (bracket_ns >= 0) & (bracket_ns < _LATEST_MONOTONIC) & (wall_ns >= 0) & (wall_ns < _LATEST_WALL)
        monotonic, kept = np.unique(monotonic_ns[usable], return_index=True)
        if not len(monotonic):
            raise ValueError("no pair of clock readings")
        wall, half = wall_ns[usable][kept], bracket_ns[usable][kept] / 2
        change = np.diff(wall - monotonic)
        tolerance = STEP_NS + MAX_SLEW * np.diff(monotonic) + half[1:] + half[:-1]
        # Inside a segment wall time must grow, or it could not be turned round.
        cuts = np.flatnonzero((np.abs(change) > tolerance) | (np.diff(wall) <= 0))
        self.steps = tuple(ClockStep(int(monotonic[i]), int(monotonic[i + 1]), int(change[i])) for i in cuts)
        edges = [0, *(int(i) + 1 for i in cuts), len(monotonic)]
        self._segments = [
            _Segment(
                first_ns=int(monotonic[a]),
                last_ns=int(monotonic[b - 1]),
                low_ns=int(monotonic[a - 1]) if a else -_FOREVER,
                high_ns=int(monotonic[b]) if b < len(monotonic) else _FOREVER,
                monotonic=monotonic[a:b],
                wall=wall[a:b],
                half_bracket=half[a:b],
            )
            for a, b in itertools.pairwise(edges)
        ]

    @classmethod
    def from_file(cls, path: Path) -> WallClock:
        """Read a session's `clock.parquet`.

        Raises:
            ClockFileError: the file is missing, is not such a file, or holds no pair.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path, columns=["monotonic_ns", "wall_ns", "bracket_ns"])
            columns = [table.column(name).to_numpy().astype(np.int64, casting="safe") for name in table.column_names]
            return cls(*columns)
        except (OSError, pa.ArrowException, TypeError, ValueError) as error:
            raise ClockFileError(f"{path}: cannot be used as the record of the wall clock: {error}") from error

    def to_monotonic(self, wall_ns: Instants) -> tuple[Instants, Instants]:
        """Monotonic instants of wall instants, and how wrong each may be.

        Where the clock was set back, a wall time came twice; the answer is then the earlier instant, and the bound
        reaches to the other. A wall time that a step forward jumped over is placed at the step.
        """
        wall = np.clip(wall_ns, 0, _LATEST_WALL)
        best, bound = np.zeros(len(wall), np.int64), np.zeros(len(wall), np.int64)
        quality = np.full(len(wall), -np.inf)
        for segment in self._segments:
            place, error, rank = segment.place(wall)
            wins = rank > quality
            best, bound, quality = (
                np.where(wins, new, old) for new, old in ((place, best), (error, bound), (rank, quality))
            )
        for segment in self._segments:
            place, error, rank = segment.place(wall)
            bound = np.where(rank >= 1, np.maximum(bound, np.abs(place - best) + error), bound)
        return best, bound

    def to_wall(self, monotonic_ns: Instants) -> tuple[Instants, Instants]:
        """Wall instants (ns since the epoch) of monotonic instants, and how wrong each may be.

        Between the two pairs around a step its instant is not known: the bound is then at least the step itself.
        """
        monotonic = np.clip(monotonic_ns, -_LATEST_MONOTONIC, _LATEST_MONOTONIC)
        wall, bound = np.zeros(len(monotonic), np.int64), np.zeros(len(monotonic), np.int64)
        for index, segment in enumerate(self._segments):
            mine = monotonic >= segment.first_ns if index else np.ones(len(monotonic), bool)
            offset, error = segment.offset_and_bound(monotonic[mine], segment.monotonic)
            if index < len(self.steps):
                step = self.steps[index]
                in_gap = (step.after_ns < monotonic[mine]) & (monotonic[mine] < step.before_ns)
                error = np.where(in_gap, error + abs(step.jump_ns), error)
            wall[mine], bound[mine] = monotonic[mine] + offset, error
        return wall, bound
