"""Accounts for every tick of one stream: taken, late by how much, or missed."""

from __future__ import annotations

from dataclasses import dataclass, field

LATENESS_BINS = 32
MIN_TOLERANCE_NS = 1_000_000


def _bins() -> list[int]:
    return [0] * LATENESS_BINS


@dataclass(frozen=True)
class TickTotals:
    """The ledger's figures at one instant; `messages.TickCount` says what each one means."""

    due: int
    taken: int
    late: int
    missed: int
    lateness_log2_us: list[int]


@dataclass
class TickLedger:
    """Ticks are due at start_ns + k·period_ns, k = 0, 1, 2 …; all instants in nanoseconds of one clock.

    A tick is settled when a read starts for it, or when the next tick comes without one; only then is it counted.
    """

    start_ns: int
    period_ns: int
    _next: int = 0  # first tick that is not settled
    _taken: int = 0
    _late: int = 0
    _missed: int = 0
    _lateness: list[int] = field(default_factory=_bins)
    _end_ns: int | None = None

    def settle(self, now_ns: int) -> int:
        """A read starts now: settle the tick that it serves and those before it. Return the next deadline.

        Not to be called before the deadline that the last call returned (at first, `start_ns`).
        """
        tick = (now_ns - self.start_ns) // self.period_ns
        late_ns = (now_ns - self.start_ns) - tick * self.period_ns
        self._missed += tick - self._next
        if late_ns <= max(self.period_ns // 10, MIN_TOLERANCE_NS):
            self._taken += 1
        else:
            self._late += 1
        self._lateness[min((late_ns // 1000).bit_length(), LATENESS_BINS - 1)] += 1
        self._next = tick + 1
        return self.start_ns + self._next * self.period_ns

    def end(self, now_ns: int) -> None:
        """Nothing is due from now on."""
        if self._end_ns is None:
            self._end_ns = now_ns

    def totals(self, now_ns: int) -> TickTotals:
        """The figures at `now_ns`, also while a read that hangs lets ticks pass."""
        until_ns = now_ns if self._end_ns is None else min(now_ns, self._end_ns)
        passed = (until_ns - self.start_ns) // self.period_ns  # ticks whose successor has come
        missed = self._missed + max(0, passed - self._next)
        return TickTotals(
            due=self._taken + self._late + missed,
            taken=self._taken,
            late=self._late,
            missed=missed,
            lateness_log2_us=list(self._lateness),
        )
