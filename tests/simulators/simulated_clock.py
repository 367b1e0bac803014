"""A clock that stands still but for sleeping and for what a test adds, so that sampling has an exact outcome."""

from __future__ import annotations

from collections.abc import Callable

from power_agent.clock import Clock, Wake


class SimulatedClock(Clock):
    """Sleeping takes no time here, and ends exactly at its deadline."""

    def __init__(self, now_ns: int = 1_000_000_000) -> None:
        self.now_ns = now_ns
        self.monotonic_ns = lambda: self.now_ns
        self.real_s_per_ns = 0.0
        self.at: list[tuple[int, Callable[[], None]]] = []  # (instant, what happens then), in order of time

    def wall_ns(self) -> int:
        return self.now_ns + 1_700_000_000_000_000_000

    def wait_until(self, deadline_ns: int | None, wake: Wake) -> None:
        """Go to the deadline, or to what happens before it."""
        if self.at and (deadline_ns is None or self.at[0][0] <= deadline_ns):
            instant_ns, happen = self.at.pop(0)
            self.now_ns = max(self.now_ns, instant_ns)
            happen()
        else:
            assert deadline_ns is not None, "nothing will ever happen"
            self.now_ns = max(self.now_ns, deadline_ns)
