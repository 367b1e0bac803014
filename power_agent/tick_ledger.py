"""Accounts for every tick of one stream: taken, late by how much, or missed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

LATENESS_BINS = 32
MIN_TOLERANCE_NS = 1_000_000


@dataclass(frozen=True)
class TickTotals:
    """The ledger's figures at one instant; `messages.TickCount` says what each one means."""

    due: int
    taken: int
    late: int
    missed: int
    extra: int
    lateness_log2_us: list[int]


class TickLedger:
    """Ticks are due at start_ns + k·period_ns, k = 0, 1, 2 …; all instants in nanoseconds of one clock.

    A tick is settled when a read starts for it, or when the next tick comes without one; only then is it counted.
    One thread reads, and tells `note_read` when, which must not be before the tick's deadline nor twice for one tick:
    that is all it costs at each tick. Any thread may ask for the totals.
    """

    def __init__(self, start_ns: int, period_ns: int, earlier: TickTotals | None = None) -> None:
        """`earlier` is what a ledger of the same ticks had counted before it was lost: the gap counts as missed."""
        self._start_ns = start_ns
        self._period_ns = period_ns
        self._tolerance_ns = max(period_ns // 10, MIN_TOLERANCE_NS)
        self._lock = threading.Lock()
        counted = earlier or TickTotals(0, 0, 0, 0, 0, [])
        self._next = counted.due  # first tick that is not settled
        self._taken = counted.taken
        self._late = counted.late
        self._missed = counted.missed
        self._extra = counted.extra
        self._lateness = [*counted.lateness_log2_us, *[0] * 64][:64]  # reads by the bits of their lateness in µs
        self._end_ns: int | None = None
        self._begun: deque[int] = deque()  # reads that are not settled yet
        self.note_read: Callable[[int], None] = self._begun.append

    def next_after(self, now_ns: int) -> int:
        """The first deadline after this instant."""
        return self._start_ns + ((now_ns - self._start_ns) // self._period_ns + 1) * self._period_ns

    def settle(self) -> None:
        """Settle the ticks that the reads serve which `note_read` was told of, and those before them."""
        with self._lock:
            self._settle()

    def _settle(self) -> None:
        while self._begun:
            tick, late_ns = divmod(self._begun.popleft() - self._start_ns, self._period_ns)
            self._missed += tick - self._next
            if late_ns <= self._tolerance_ns:
                self._taken += 1
            else:
                self._late += 1
            self._lateness[(late_ns // 1000).bit_length()] += 1
            self._next = tick + 1

    @property
    def next_ns(self) -> int:
        """The deadline of the first tick that is not settled."""
        self.settle()
        return self._start_ns + self._next * self._period_ns

    def count_extra(self) -> None:
        """A read starts out of turn."""
        with self._lock:
            self._extra += 1

    def end(self, now_ns: int) -> None:
        """Nothing is due from now on."""
        with self._lock:
            if self._end_ns is None:
                self._end_ns = now_ns

    def totals(self, now_ns: int) -> TickTotals:
        """The figures at `now_ns`, also while a read that hangs lets ticks pass."""
        with self._lock:
            self._settle()
            until_ns = now_ns if self._end_ns is None else min(now_ns, self._end_ns)
            passed = (until_ns - self._start_ns) // self._period_ns  # ticks whose successor has come
            missed = self._missed + max(0, passed - self._next)
            last = LATENESS_BINS - 1
            return TickTotals(
                due=self._taken + self._late + missed,
                taken=self._taken,
                late=self._late,
                missed=missed,
                extra=self._extra,
                lateness_log2_us=[*self._lateness[:last], sum(self._lateness[last:])],
            )
