"""Puts PTDaemon's stamps, local time of its machine without a zone, on our monotonic clock.

A sample was taken after the request before, which did not bring it, was answered, and before the request that did was.
Each sample so bounds the difference of the two clocks; their intersection is narrower than any.
"""

from __future__ import annotations

_DRIFT = 100e-6  # of two clocks against each other, at most
_STEP_NS = 1_000_000_000  # beyond this, the other clock was set


class StampClock:
    """The difference of the two clocks, better with each sample."""

    def __init__(self) -> None:
        self._low_ns = self._high_ns = 0
        self._stamp_ns = 0
        self._last_ns = -(1 << 62)
        self._known = False

    def place(self, t_us: int, after_ns: int, before_ns: int) -> tuple[int, int]:
        """Instant of our clock of a sample stamped `t_us`, and how wide the bound on it is, in ns.

        Args:
            after_ns, before_ns: the sample was taken between these.
        """
        stamp_ns = t_us * 1000
        low, high = after_ns - stamp_ns, before_ns - stamp_ns
        if self._known:
            slack = round(_DRIFT * abs(stamp_ns - self._stamp_ns))
            old_low, old_high = self._low_ns - slack, self._high_ns + slack
            if old_low - _STEP_NS < high and low < old_high + _STEP_NS:
                low, high = max(low, old_low), min(high, old_high)
                if low > high:  # they contradict, as where the other side stalled: the truth lies between them
                    low, high = high, low
        self._low_ns, self._high_ns, self._stamp_ns, self._known = low, high, stamp_ns, True
        t_ns = max(stamp_ns + (low + high) // 2, self._last_ns + 1)
        self._last_ns = t_ns
        return t_ns, high - low
