"""Samples one driver: all its groups in one thread, each by its own absolute deadlines."""

from __future__ import annotations

import ctypes
import heapq
import threading
from collections.abc import Callable
from contextlib import suppress

from drivers.contract import DeviceLost, Driver, Finished, ReadFailed
from drivers.discovery import Opened, Refused
from power_agent.clock import Clock, Wake
from power_agent.event_log import EventLog
from power_agent.sampled_group import SampledGroup

FIRST_PAUSE_NS = 1_000_000_000
LONGEST_PAUSE_NS = 30_000_000_000
_REOPEN = -1  # stands in the heap of deadlines for "try to open the device again"
_PR_SET_TIMERSLACK = 29


class SamplingThread(threading.Thread):
    """Reads one driver until it is told to stop, then closes it. A device that hangs holds up only this thread."""

    def __init__(
        self,
        name: str,
        driver: Driver,
        groups: list[SampledGroup],
        *,
        start_ns: int,
        clock: Clock,
        log: EventLog,
        reopen: Callable[[], Opened | Refused],
        notify: Callable[[], None],
    ) -> None:
        """`reopen` opens the driver once more; `notify` tells that rows should be fetched, or the first are there."""
        super().__init__(name=f"sample {name}", daemon=True)
        self.driver_name = name
        self.groups = groups
        self._driver: Driver | None = driver  # None: lost
        self._clock = clock
        self._log = log
        self._reopen_driver = reopen
        self._notify = notify
        self._deadlines = [(start_ns, i) for i in range(len(groups))]  # a heap
        self._pause_ns = FIRST_PAUSE_NS
        self._wake = Wake()
        self._stopping = False

    @property
    def has_first_rows(self) -> bool:
        """Whether each group has given a row, or has ended without one."""
        return all(group.has_rows for group in self.groups)

    def read_now(self) -> None:
        """Ask for a reading of every group out of turn."""
        self._wake.set()

    def stop(self) -> None:
        """Ask for a last reading of every group, and for the end of the thread."""
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        """Sample. Called by `start`."""
        _sharpen_timer()
        deadlines = self._deadlines
        clock_ns = self._clock.monotonic_ns
        try:
            while True:
                if self._wake.raised and self._serve_wake():
                    break
                now_ns = clock_ns()
                if not deadlines:
                    self._clock.wait_until(None, self._wake)
                elif deadlines[0][0] > now_ns:
                    self._clock.wait_until(deadlines[0][0], self._wake)
                elif deadlines[0][1] == _REOPEN:
                    heapq.heappop(deadlines)
                    self._reopen()
                else:
                    i = deadlines[0][1]
                    group = self.groups[i]
                    if group.ended:
                        heapq.heappop(deadlines)
                    else:
                        heapq.heapreplace(deadlines, (group.ledger.settle(now_ns), i))
                        self._read(group, now_ns)
        finally:
            self._close_driver()

    def _serve_wake(self) -> bool:
        """Read out of turn. Return whether that was the last reading."""
        self._wake.clear()
        stopping = self._stopping
        for group in self.groups:
            if not group.ended:
                group.ledger.count_extra()
                self._read(group, self._clock.monotonic_ns())
        if stopping:
            for group in self.groups:
                group.end(self._clock.monotonic_ns())
        return stopping

    def _read(self, group: SampledGroup, now_ns: int) -> None:
        source = group.name
        if group.group is None:
            self._add_missing(group, now_ns)
            return
        try:
            rows = group.group.read()
            for row in rows:
                complaint = group.buffer.add(row, now_ns)
                if complaint:
                    self._log.add("warning", source, complaint)
            self._pause_ns = FIRST_PAUSE_NS
            if not group.has_rows and rows:
                self._note_first_rows(group)
            if len(rows) > 1 and group.buffer.is_filling:
                self._notify()
        except Finished as error:
            group.end(self._clock.monotonic_ns())
            self._note_first_rows(group)
            self._log.add("info", source, str(error) or "the device has no more to give")
        except DeviceLost as error:
            self._add_missing(group, now_ns)
            self._log.add("warning", source, f"the device was lost: {error}; it is opened again as soon as it answers")
            self._lose_driver()
        except ReadFailed as error:
            self._add_missing(group, now_ns)
            self._log.add("warning", source, f"a reading failed: {error}")
        except (Exception, SystemExit) as error:  # a driver's mistake costs its own reading and no other
            self._add_missing(group, now_ns)
            self._log.add("error", source, f"the driver failed: {type(error).__name__}: {error}; tell its authors")

    def _add_missing(self, group: SampledGroup, started_ns: int) -> None:
        read_ns = self._clock.monotonic_ns() - started_ns
        group.buffer.add_missing(started_ns + read_ns // 2, read_ns)
        self._note_first_rows(group)

    def _note_first_rows(self, group: SampledGroup) -> None:
        if not group.has_rows:
            group.has_rows = True
            if self.has_first_rows:
                self._notify()

    def _lose_driver(self) -> None:
        self._close_driver()
        for group in self.groups:
            group.group = None
        self._plan_reopening()

    def _plan_reopening(self) -> None:
        heapq.heappush(self._deadlines, (self._clock.monotonic_ns() + self._pause_ns, _REOPEN))
        self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)  # until a reading succeeds

    def _reopen(self) -> None:
        result = self._reopen_driver()
        if isinstance(result, Refused):
            self._log.add("warning", self.driver_name, f"it cannot be opened again yet: {result.reason}")
            self._plan_reopening()
            return
        self._driver = result.driver
        found = {group.name: group for group in result.driver.groups}
        for group in self.groups:
            group.reconnect(found.get(group.stream.group))
        self._log.add("info", self.driver_name, "the device is back")

    def _close_driver(self) -> None:
        driver, self._driver = self._driver, None
        if driver is not None:
            with suppress(Exception):
                driver.close()


def _sharpen_timer() -> None:
    """Have this thread woken at its deadline instead of up to 50 µs later, which is Linux's default."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
