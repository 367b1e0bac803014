"""Clocks that are off by time zones: whole half hours between a log and the run that it is of."""

from __future__ import annotations

HALF_HOUR_MS = 1_800_000.0
_MOST_HOURS = 26
_LEAST_COVERED = 0.5  # of the run, by a log that lies on it


def half_hours_off(start: float, stop: float, first: float, last: float) -> float | None:
    """Whole half hours, in ms, that bring a log onto a run: 0 where it lies on half of it as it is; None: none does."""
    enough = _LEAST_COVERED * (stop - start)
    if min(last, stop) - max(first, start) >= enough:
        return 0.0
    shift = round(((start + stop) / 2 - (first + last) / 2) / HALF_HOUR_MS) * HALF_HOUR_MS
    fits = min(last + shift, stop) - max(first + shift, start) >= enough
    if fits and abs(shift) <= _MOST_HOURS * 2 * HALF_HOUR_MS:
        return shift
    reaches = min(last, stop) > max(first, start)  # logged too little, by the right clock
    return 0.0 if reaches else None
