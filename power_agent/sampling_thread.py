"""Samples drivers in one thread, each group by its own absolute deadlines.

Drivers share a thread because waking up is most of what sampling costs. One that hangs or is slow is parted from the
others: whoever looks after the threads calls `part`, and gives what it returns to a new thread.
"""

from __future__ import annotations

import ctypes
import heapq
import threading
from collections.abc import Sequence
from contextlib import suppress

from power_agent.clock import Clock, Wake
from power_agent.sampled_driver import SampledDriver
from power_agent.sampled_group import SampledGroup

STUCK_NS = 250_000_000  # a read that takes longer holds up its companions too much
SLOW_SHARE = 0.1  # so does a driver whose reads take this share of the time
_PR_SET_TIMERSLACK = 29

# deadline, a number that is never equal, whose, and which group; no group: try to open the device again
_Deadline = tuple[int, int, SampledDriver, SampledGroup | None]


class SamplingThread(threading.Thread):
    """Reads drivers until it is told to stop, then closes them."""

    def __init__(self, drivers: Sequence[SampledDriver], *, clock: Clock) -> None:
        super().__init__(name="sample " + " ".join(driver.name for driver in drivers), daemon=True)
        self._clock = clock
        self._wake = Wake()
        self._stopping = False
        self._lock = threading.Lock()  # of what follows; never held during a read
        self._drivers = list(drivers)
        self._deadlines: list[_Deadline] = []
        self._numbers = 0
        self._busy: SampledDriver | None = None
        self._busy_since_ns = 0
        self._looked_at_ns = clock.monotonic_ns()
        self._busy_before: dict[SampledDriver, int] = {driver: driver.busy_ns for driver in drivers}
        for driver in drivers:
            for group in driver.groups:
                if not group.ended:
                    self._push(group.ledger.next_ns, driver, group)
            if driver.reopen_at_ns is not None:
                self._push(driver.reopen_at_ns, driver, None)

    def read_now(self) -> None:
        """Ask for a reading of every group out of turn."""
        self._wake.set()

    def stop(self) -> None:
        """Ask for a last reading of every group, and for the end of the thread."""
        self._stopping = True
        self._wake.set()

    def part(self) -> tuple[list[SampledDriver], str]:
        """Take away the companions of a driver whose read hangs, or a driver that is slow, if there is such.

        Returns the drivers that need another thread, and the name of the one that is to blame.
        """
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            culprit, taken = self._ill_matched(now_ns)
            if taken:
                self._drivers = [driver for driver in self._drivers if driver not in taken]
                self._deadlines = [entry for entry in self._deadlines if entry[2] not in taken]
                heapq.heapify(self._deadlines)
            return taken, culprit

    @property
    def busy_with(self) -> str:
        """Name of the driver that is being read; empty: none."""
        busy = self._busy
        return busy.name if busy is not None else ""

    def run(self) -> None:
        """Sample. Called by `start`."""
        _sharpen_timer()
        clock_ns = self._clock.monotonic_ns
        while True:
            if self._wake.raised and self._serve_wake():
                break
            deadlines = self._deadlines
            if not deadlines:
                self._clock.wait_until(None, self._wake)
            elif deadlines[0][0] > clock_ns():
                self._clock.wait_until(deadlines[0][0], self._wake)
            else:
                self._serve_deadlines()
        for driver in self._drivers:
            driver.close()

    def _serve_deadlines(self) -> None:
        """Serve what is due, until nothing is or the flag is raised."""
        clock_ns = self._clock.monotonic_ns
        lock = self._lock
        lock.acquire()
        now_ns = clock_ns()
        while self._deadlines and self._deadlines[0][0] <= now_ns and not self._wake.raised:
            deadline_ns, number, driver, group = self._deadlines[0]
            if group is None or group.ended:
                heapq.heappop(self._deadlines)
            else:
                group.note_read(now_ns)
                deadline_ns += group.period_ns
                if deadline_ns <= now_ns:
                    deadline_ns = group.ledger.next_after(now_ns)
                heapq.heapreplace(self._deadlines, (deadline_ns, number, driver, group))
            self._busy, self._busy_since_ns = driver, now_ns
            lock.release()
            if group is None:
                driver.reopen()
            elif not group.ended:
                driver.read(group, now_ns)
            lock.acquire()
            now_ns = self._note_read(driver, now_ns)
        lock.release()

    def _serve_wake(self) -> bool:
        """Read out of turn. Return whether that was the last reading."""
        self._wake.clear()
        stopping = self._stopping
        for driver in list(self._drivers):
            for group in driver.groups:
                with self._lock:
                    if driver not in self._drivers or group.ended:
                        continue
                    now_ns = self._clock.monotonic_ns()
                    self._busy, self._busy_since_ns = driver, now_ns
                group.ledger.count_extra()
                driver.read(group, now_ns, whole=True)
                with self._lock:
                    self._note_read(driver, now_ns)
                if stopping:
                    group.end(self._clock.monotonic_ns())
        return stopping

    def _note_read(self, driver: SampledDriver, began_ns: int) -> int:
        now_ns = self._clock.monotonic_ns()
        self._busy = None
        driver.busy_ns += now_ns - began_ns
        if driver.reopen_at_ns is not None and not any(e[2] is driver and e[3] is None for e in self._deadlines):
            self._push(driver.reopen_at_ns, driver, None)
        return now_ns

    def _ill_matched(self, now_ns: int) -> tuple[str, list[SampledDriver]]:
        passed_ns = now_ns - self._looked_at_ns
        if len(self._drivers) < 2:
            return "", []
        if self._busy is not None and now_ns - self._busy_since_ns > STUCK_NS:
            return self._busy.name, [driver for driver in self._drivers if driver is not self._busy]
        slow = [d for d in self._drivers if d.busy_ns - self._busy_before[d] > SLOW_SHARE * passed_ns]
        slow = [driver for driver in slow if driver is not self._busy][:1]
        if passed_ns >= STUCK_NS:
            self._looked_at_ns = now_ns
            self._busy_before = {driver: driver.busy_ns for driver in self._drivers}
            if slow:
                return slow[0].name, slow
        return "", []

    def _push(self, deadline_ns: int, driver: SampledDriver, group: SampledGroup | None) -> None:
        self._numbers += 1
        heapq.heappush(self._deadlines, (deadline_ns, self._numbers, driver, group))


def _sharpen_timer() -> None:
    """Have this thread woken at its deadline instead of up to 50 µs later, which is Linux's default."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
