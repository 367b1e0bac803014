"""Places a device's own clock on this host's: what has least delay is nearest to the truth.

A frame is seen here later than it was taken, never earlier. Of many pairs (device time, arrival) the line that lies
below all of them and touches two of those around the middle is therefore the map; its slope is the drift (Moon,
Skelly, Towsley, INFOCOM 1999). The least delay itself, tenths of a millisecond over USB, cannot be seen and stays in.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

MOST_DRIFT = 500e-6
_BIN_US = 1_000_000  # of each second the pair with least delay is kept
_BINS = 128
_LEAST_SPAN_US = 10_000_000  # below, delays differ by more than the clocks drift
_SLEW = 0.01  # how fast what was told may follow what was learned
_RECENT_BINS = 3  # before the rate is known, older ones would mislead
_SLIP_US = 700.0  # the least delays of _SLIP_BINS seconds lie that far above all before: frames were lost unseen
_SLIP_BINS = 2


class DeviceClock:
    """Host time of device time. What it tells never goes back. Device time in µs, host time in ns."""

    def __init__(self) -> None:
        self.rate = 1.0  # host seconds in a device second
        self.settled = False  # whether the rate is known
        self._least: deque[tuple[int, float]] = deque(maxlen=_BINS)  # device time, host µs − device µs
        self._bin = 0
        self._bound_us = 0.0
        self._shown: tuple[float, float] | None = None  # device time and offset that was last told

    def note(self, device_us: int, arrived_ns: int) -> bool:
        """A frame of that device time arrived then. Return whether the device's time must have slipped before."""
        offset = arrived_ns / 1000 - device_us
        number = device_us // _BIN_US
        if self._least and number == self._bin:
            if offset < self._least[-1][1]:
                self._least[-1] = (device_us, offset)
            return False
        slipped = self._has_slipped()
        if slipped:
            self._least = deque(list(self._least)[-_SLIP_BINS:], maxlen=_BINS)
        self._fit()
        self._bin = number
        self._least.append((device_us, offset))
        return slipped

    @property
    def knows(self) -> bool:
        """Whether there is a map."""
        return bool(self._least)

    def restart(self) -> None:
        """Device time was lost: offsets before are void, the rate holds."""
        self._least.clear()

    def host_ns(self, device_us: float) -> int:
        """When that was, on this host."""
        goal = self._offset_at(device_us)
        if self._shown is None:
            self._shown = (device_us, goal)
        at, shown = self._shown
        passed = max(device_us - at, 0.0)
        drift = (self.rate - 1) * passed
        most = _SLEW * passed
        shown += drift + min(max(goal - shown - drift, -most), most)
        if passed:
            self._shown = (device_us, shown)
        return round(1000 * (device_us + shown))

    @property
    def bound_ns(self) -> int:
        """How far the least delays of single seconds lie apart: what the map may be off by, beside the least delay."""
        return round(1000 * self._bound_us)

    def _offset_at(self, device_us: float) -> float:
        known = list(self._least) if self.settled else list(self._least)[-_RECENT_BINS:]
        return min(offset + (self.rate - 1) * (device_us - at) for at, offset in known)

    def _has_slipped(self) -> bool:
        recent = list(self._least)[-_RECENT_BINS - _SLIP_BINS :]
        if len(recent) <= _SLIP_BINS:
            return False
        before = recent[:-_SLIP_BINS]
        return all(
            offset > max(o + (self.rate - 1) * (at - t) for t, o in before) + _SLIP_US
            for at, offset in recent[-_SLIP_BINS:]
        )

    def _fit(self) -> None:
        """Once a second: rate and bound from what is known by now."""
        pairs = list(self._least)
        if len(pairs) < 2:
            return
        if pairs[-1][0] - pairs[0][0] >= _LEAST_SPAN_US:
            slope = _lower_slope(pairs)
            self.rate = 1 + min(max(slope, -MOST_DRIFT), MOST_DRIFT)
            self.settled = True
        at = pairs[-1][0]
        reduced = sorted(offset + (self.rate - 1) * (at - t) for t, offset in pairs)
        self._bound_us = reduced[len(reduced) // 2] - reduced[0]


def _lower_slope(points: list[tuple[int, float]]) -> float:
    """Of the edge of the lower convex hull above the middle of the points."""
    hull: list[tuple[int, float]] = []
    for point in points:
        while len(hull) > 1 and _turns_up(hull[-2], hull[-1], point) <= 0:
            hull.pop()
        hull.append(point)
    middle = sum(at for at, _ in points) / len(points)
    for (t0, o0), (t1, o1) in pairwise(hull):
        if t0 <= middle <= t1:
            return (o1 - o0) / (t1 - t0)
    return 0.0


def _turns_up(a: tuple[int, float], b: tuple[int, float], c: tuple[int, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
