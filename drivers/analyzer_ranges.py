"""Which range to measure in: the lowest one that does not clip, because the range is most of the uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

VOLTS = (15.0, 30.0, 60.0, 150.0, 300.0, 600.0)  # of Yokogawa's, and of meters made after them
AMPERES = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
SMALL_AMPERES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
CURRENT_MARGIN = 1.1  # that MLPerf's own tool leaves above the highest current of a ranging run
_ROUNDING = 1e-9


def next_range(ranges: Sequence[float], wanted: float) -> float | None:
    """The lowest of the ranges (ascending) that is at least `wanted`; None: there is none so high."""
    return next((each for each in ranges if each >= wanted * (1 - _ROUNDING)), None)


def range_above(ranges: Sequence[float], present: float) -> float | None:
    """The next range up; None: this is the highest."""
    return next((each for each in ranges if each > present * (1 + 1e-6)), None)


def range_for_seen(ranges: Sequence[float], seen: float, margin: float = 1.0) -> float:
    """The lowest of the ranges (ascending) that holds `margin` times what was seen; the highest where none does."""
    return next_range(ranges, seen * margin) or ranges[-1]


def ranges_for(
    volts: Sequence[float], amperes: Sequence[float], max_volts: float, max_amperes: float
) -> tuple[float | None, float | None]:
    """Ranges for a load whose highest voltage and current are known from a ranging run or a probe.

    Returns:
        Volts and amperes; None where the meter has no range so high.
    """
    return next_range(volts, max_volts), next_range(amperes, max_amperes * CURRENT_MARGIN)
