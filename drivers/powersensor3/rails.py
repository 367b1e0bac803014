"""From levels to volts, amperes, watts and joules of one pair of sensors."""

from __future__ import annotations

import array
import math
from collections.abc import Sequence
from operator import mul
from typing import NamedTuple

from drivers.contract import Status
from drivers.powersensor3.device import Pair
from drivers.powersensor3.frames import HIGHEST_LEVEL, level_of

MICRO = 10**6
MOST_WATTS = 2000  # that a device measures; a counter that starts anew falls by what it could have risen
_DEBT_UJ = 10_000  # by which energy may have run backwards before the count is no longer believed


class Columns(NamedTuple):
    """Means of one pair over consecutive blocks of frames. A column of statuses is None where all are NEW."""

    volts: list[float]
    amperes: list[float]
    watts: list[float]
    volts_statuses: list[Status] | None
    amperes_statuses: list[Status] | None

    @property
    def watts_statuses(self) -> list[Status] | None:
        """Of a product: the worse of both."""
        if self.volts_statuses is None or self.amperes_statuses is None:
            return self.volts_statuses or self.amperes_statuses
        return list(map(max, self.volts_statuses, self.amperes_statuses))


class Rail:
    """One pair. Sums are taken in whole levels, so that a mean is exact however long the block."""

    def __init__(self, pair: Pair) -> None:
        self._current_at, self._voltage_at = 1 + 2 * pair.number, 2 + 2 * pair.number
        self._amperes, self._volts = pair.current.per_level, pair.voltage.per_level
        self._amperes_0, self._volts_0 = pair.current.at_zero, pair.voltage.at_zero
        self._current_lowest = 1 if pair.current.clips_low else 0
        self._voltage_lowest = 1 if pair.voltage.clips_low else 0

    def columns(self, words: array.array[int], size: int, count: int) -> Columns:
        """Means of the first `count` blocks of `size` frames. The mean power is Σ u·i / n, not U·I of the means."""
        currents = list(map(level_of, words[self._current_at : 9 * size * count : 9]))
        voltages = list(map(level_of, words[self._voltage_at : 9 * size * count : 9]))
        products = list(map(mul, currents, voltages))
        volts_statuses = _statuses(voltages, self._voltage_lowest, size)
        amperes_statuses = _statuses(currents, self._current_lowest, size)
        a, b, a0, b0 = self._amperes / size, self._volts / size, self._amperes_0, self._volts_0
        ab, ab0, a0b, a0b0 = a * b * size, a * b0, a0 * b, a0 * b0
        i, u, p = (sums(levels, size) for levels in (currents, voltages, products))
        return Columns(
            [b * each + b0 for each in u],
            [a * each + a0 for each in i],
            [ab * of_p + ab0 * of_i + a0b * of_u + a0b0 for of_p, of_i, of_u in zip(p, i, u, strict=True)],
            volts_statuses,
            amperes_statuses,
        )


def sums(numbers: list[int], size: int) -> list[int]:
    """Of each `size` of them."""
    if size == 1:
        return numbers
    return [sum(numbers[begin : begin + size]) for begin in range(0, len(numbers), size)]


def _statuses(levels: list[int], lowest: int, size: int) -> list[Status] | None:
    if max(levels) < HIGHEST_LEVEL and min(levels) >= lowest:
        return None
    blocks = (levels[begin : begin + size] for begin in range(0, len(levels), size))
    return [Status.OVER_RANGE if max(block) >= HIGHEST_LEVEL or min(block) < lowest else Status.NEW for block in blocks]


class EnergyCount:
    """Joules so far, as a counter of whole µJ that only grows.

    Where samples were lost it starts anew, below all that it showed before: a decrease says that what lies across it is
    not known. It starts the lower the later it is made, so that this holds for one that was opened again, too.
    """

    def __init__(self, now_ns: int) -> None:
        self._raw = -now_ns // 1000 * MOST_WATTS
        self._rest = 0.0  # µJ not shown yet; below zero: energy that ran backwards

    def add(self, joules: float) -> tuple[int, Status]:
        """The count after that much more, and whether it can be believed."""
        self._rest += joules * MICRO
        if self._rest >= 1:
            whole = math.floor(self._rest)
            self._raw += whole
            self._rest -= whole
        return self._raw, Status.INVALID if self._rest < -_DEBT_UJ else Status.NEW

    def add_all(self, watts: Sequence[float], seconds: Sequence[float]) -> tuple[list[int], list[Status] | None]:
        """`add` for each of these in turn; None: all can be believed."""
        raw, rest = self._raw, self._rest
        counts: list[int] = []
        least = rest
        rests: list[float] = []
        for power, time_s in zip(watts, seconds, strict=True):
            rest += power * time_s * MICRO
            if rest >= 1:
                whole = int(rest)
                raw += whole
                rest -= whole
            elif rest < least:
                least = rest
            counts.append(raw)
            rests.append(rest)
        self._raw, self._rest = raw, rest
        if least >= -_DEBT_UJ:
            return counts, None
        return counts, [Status.INVALID if each < -_DEBT_UJ else Status.NEW for each in rests]

    def start_anew(self, block_s: float) -> None:
        """What comes next does not follow from what was before."""
        self._raw -= math.ceil(block_s * MOST_WATTS * MICRO) + 1
        self._rest = 0.0
