"""The clocks of a session: this host's own, or those of a trace that is replayed."""

from __future__ import annotations

import math
import os
import select
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from power_agent.messages import ReplayClockSpec

# select() wakes up to a thousandth of the wait too late, a plain sleep does not; but only select() can be interrupted.
INTERRUPTIBLE_FROM_S = 0.02

STEP_NS = 10_000_000
SLEW = 500e-6  # the kernel's NTP loop corrects a clock by no more than this fraction of the time that passes


class Wake:
    """A flag that any thread or signal handler raises, and that one thread waits for."""

    def __init__(self) -> None:
        self.raised = False
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # readable while the flag is raised

    def set(self) -> None:
        """Raise the flag, and end a wait for it."""
        self.raised = True
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Lower the flag. Look at what it stands for afterwards, so that nothing raised in between is lost."""
        self.raised = False
        with suppress(BlockingIOError):  # another thread is between raising the flag and writing
            os.eventfd_read(self.fd)

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self.fd)


class Clock(ABC):
    """Monotonic and wall time of a session, in nanoseconds, and waiting in that time."""

    # Attributes, because the sampling loop uses them at every turn.
    monotonic_ns: Callable[[], int]
    real_s_per_ns: float  # seconds that pass on this host while one nanosecond passes in the session

    @abstractmethod
    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC."""

    def wait_until(self, deadline_ns: int | None, wake: Wake) -> None:
        """Sleep until the session's monotonic time is `deadline_ns` (None: for ever).

        A long wait ends early when `wake` is raised; a short one (20 ms) is a plain sleep and does not.
        """
        if deadline_ns is None:
            select.select([wake.fd], [], [])
            return
        left_s = (deadline_ns - self.monotonic_ns()) * self.real_s_per_ns
        if left_s > INTERRUPTIBLE_FROM_S:
            select.select([wake.fd], [], [], left_s)
        elif left_s > 0:
            time.sleep(left_s)


class HostClock(Clock):
    """This host's CLOCK_MONOTONIC and CLOCK_REALTIME."""

    def __init__(self) -> None:
        self.monotonic_ns = time.monotonic_ns
        self.real_s_per_ns = 1e-9

    def wall_ns(self) -> int:
        return time.time_ns()


class ScaledClock(Clock):
    """A replayed trace's time: it starts at the trace's first row and runs `speed` times as fast as the host's."""

    def __init__(self, spec: ReplayClockSpec, host_monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        if not (math.isfinite(spec.speed) and spec.speed > 0):
            raise ValueError(f"the speed of a replay must be a number above 0, not {spec.speed}")
        self._spec = spec
        self._host_monotonic_ns = host_monotonic_ns
        # Integers, so that a long replay neither stands still nor goes back by a rounding error.
        self._numerator, self._denominator = spec.speed.as_integer_ratio()
        self.monotonic_ns = self._session_ns
        self.real_s_per_ns = 1e-9 / spec.speed

    def _session_ns(self) -> int:
        origin_ns = self._spec.monotonic_origin_ns
        return origin_ns + (self._host_monotonic_ns() - origin_ns) * self._numerator // self._denominator

    def wall_ns(self) -> int:
        return self._spec.wall_origin_ns + self._session_ns() - self._spec.monotonic_origin_ns


def make_clock(replay: ReplayClockSpec | None) -> Clock:
    """The clock of a session: the replayed trace's, or without one the host's."""
    return HostClock() if replay is None else ScaledClock(replay)


class ClockPair(NamedTuple):
    """Both clocks at one instant: `wall_ns` was read within `bracket_ns` around `monotonic_ns`."""

    monotonic_ns: int
    wall_ns: int
    bracket_ns: int


def read_pair(clock: Clock, tries: int = 3) -> ClockPair:
    """Read both clocks together; of several tries the one that was interrupted least."""
    pairs = []
    for _ in range(tries):
        before_ns = clock.monotonic_ns()
        wall_ns = clock.wall_ns()
        after_ns = clock.monotonic_ns()
        pairs.append(ClockPair((before_ns + after_ns) // 2, wall_ns, after_ns - before_ns))
    return min(pairs, key=lambda pair: pair.bracket_ns)


def wall_step_ns(before: ClockPair, after: ClockPair) -> int:
    """How far the wall clock was set between two pairs; 0 where slewing and the reading itself explain the change."""
    elapsed_ns = after.monotonic_ns - before.monotonic_ns
    moved_ns = (after.wall_ns - before.wall_ns) - elapsed_ns
    explained_ns = STEP_NS + SLEW * abs(elapsed_ns) + (before.bracket_ns + after.bracket_ns) / 2
    return moved_ns if abs(moved_ns) > explained_ns else 0
