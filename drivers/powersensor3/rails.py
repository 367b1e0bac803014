"""From levels to volts, amperes, watts and joules of one pair of sensors."""

from __future__ import annotations

import array
import math
from operator import mul

from drivers.contract import Status
from drivers.powersensor3.device import Pair
from drivers.powersensor3.frames import HIGHEST_LEVEL, level_of

MICRO = 10**6
MOST_WATTS = 2000  # that a device measures; a counter that starts anew falls by what it could have risen
_DEBT_UJ = 10_000  # by which energy may have run backwards before the count is no longer believed


class Block:
    """Means of one pair over a block of frames."""

    __slots__ = ("amperes", "amperes_status", "volts", "volts_status", "watts", "watts_status")

    def __init__(self, volts: float, amperes: float, watts: float, volts_over: bool, amperes_over: bool) -> None:
        self.volts, self.amperes, self.watts = volts, amperes, watts
        self.volts_status = Status.OVER_RANGE if volts_over else Status.NEW
        self.amperes_status = Status.OVER_RANGE if amperes_over else Status.NEW
        self.watts_status = max(self.volts_status, self.amperes_status)


class Rail:
    """One pair. Sums are taken in whole levels, so that a mean is exact however long the block."""

    def __init__(self, pair: Pair) -> None:
        self._current_at, self._voltage_at = 1 + 2 * pair.number, 2 + 2 * pair.number
        self._amperes, self._volts = pair.current.per_level, pair.voltage.per_level
        self._amperes_0, self._volts_0 = pair.current.at_zero, pair.voltage.at_zero
        self._current_lowest = 1 if pair.current.clips_low else 0
        self._voltage_lowest = 1 if pair.voltage.clips_low else 0

    def blocks(self, words: array.array[int], size: int, count: int) -> list[Block]:
        """Means of the first `count` blocks of `size` frames. The mean power is Σ u·i / n, not U·I of the means."""
        currents = list(map(level_of, words[self._current_at : 9 * size * count : 9]))
        voltages = list(map(level_of, words[self._voltage_at : 9 * size * count : 9]))
        products = list(map(mul, currents, voltages))
        whole_i = max(currents) < HIGHEST_LEVEL and min(currents) >= self._current_lowest
        whole_u = max(voltages) < HIGHEST_LEVEL and min(voltages) >= self._voltage_lowest
        a, b, a0, b0 = self._amperes, self._volts, self._amperes_0, self._volts_0
        out = []
        for begin in range(0, size * count, size):
            end = begin + size
            i = sum(currents[begin:end]) / size
            u = sum(voltages[begin:end]) / size
            p = sum(products[begin:end]) / size
            watts = a * b * p + a * b0 * i + a0 * b * u + a0 * b0
            over_i = not whole_i and _clips(currents[begin:end], self._current_lowest)
            over_u = not whole_u and _clips(voltages[begin:end], self._voltage_lowest)
            out.append(Block(b * u + b0, a * i + a0, watts, over_u, over_i))
        return out


def _clips(levels: list[int], lowest: int) -> bool:
    return max(levels) >= HIGHEST_LEVEL or min(levels) < lowest


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

    def start_anew(self, block_s: float) -> None:
        """What comes next does not follow from what was before."""
        self._raw -= math.ceil(block_s * MOST_WATTS * MICRO) + 1
        self._rest = 0.0
