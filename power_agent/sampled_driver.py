"""One driver while it is sampled: read, lost, opened again. A mistake of its own costs one reading and no other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from drivers.contract import DeviceLost, Driver, Finished, ReadFailed
from drivers.discovery import Opened, Refused
from power_agent.clock import Clock
from power_agent.event_log import EventLog
from power_agent.sampled_group import SampledGroup

FIRST_PAUSE_NS = 1_000_000_000
LONGEST_PAUSE_NS = 30_000_000_000


class SampledDriver:
    """Belongs to the thread that samples it at the time."""

    def __init__(
        self,
        name: str,
        driver: Driver | None,
        groups: list[SampledGroup],
        *,
        clock: Clock,
        log: EventLog,
        reopen: Callable[[], Opened | Refused],
        notify: Callable[[], None],
    ) -> None:
        """`driver` is None where the device is lost from the start.

        `reopen` opens the driver once more; `notify` tells that rows should be fetched, or the first are there.
        """
        self.name = name
        self.groups = groups
        self.reopen_at_ns: int | None = None  # while the device is lost: when to try again
        self.busy_ns = 0  # time that its reads have taken
        self._driver = driver  # None: lost
        self._clock = clock
        self._log = log
        self._open_again = reopen
        self._notify = notify
        self._pause_ns = FIRST_PAUSE_NS
        if driver is None:
            self._plan_reopening()

    @property
    def has_first_rows(self) -> bool:
        """Whether each group has given a row, or has ended without one."""
        return all(group.has_rows for group in self.groups)

    def read(self, group: SampledGroup, now_ns: int, *, whole: bool = False) -> None:
        """Read a group into its buffer; what goes wrong is a missing row and an event.

        At fast rates the group may keep the reading until a later one, unless `whole`.
        """
        source = group.name
        if group.group is None:
            self._add_missing(group, now_ns)
            return
        try:
            if group.captures_left and not whole:
                group.captures_left -= 1
                group.group.capture()
                return
            rows = group.group.read()
            group.count_read()
            for row in rows:
                complaint = group.buffer.add(row, now_ns)
                if complaint:
                    self._log.add("warning", source, complaint)
            for remark in group.group.remarks():
                self._log.add("warning", source, remark)
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
            self._lose()
        except ReadFailed as error:
            self._add_missing(group, now_ns)
            self._log.add("warning", source, f"a reading failed: {error}")
        except (Exception, SystemExit) as error:  # a driver's mistake costs its own reading and no other
            self._add_missing(group, now_ns)
            self._log.add("error", source, f"the driver failed: {type(error).__name__}: {error}; tell its authors")

    def reopen(self) -> None:
        """Try to open the lost device again."""
        self.reopen_at_ns = None
        result = self._open_again()
        if isinstance(result, Refused):
            self._log.add("warning", self.name, f"it cannot be opened again yet: {result.reason}")
            self._plan_reopening()
            return
        self._driver = result.driver
        found = {group.name: group for group in result.driver.groups}
        for group in self.groups:
            group.reconnect(found.get(group.stream.group))
        self._log.add("info", self.name, "the device is back")

    def close(self) -> None:
        """Close the device, if it is open."""
        driver, self._driver = self._driver, None
        if driver is not None:
            with suppress(Exception):
                driver.close()

    def _add_missing(self, group: SampledGroup, started_ns: int) -> None:
        read_ns = self._clock.monotonic_ns() - started_ns
        group.buffer.add_missing(started_ns + read_ns // 2, read_ns)
        self._note_first_rows(group)

    def _note_first_rows(self, group: SampledGroup) -> None:
        if not group.has_rows:
            group.has_rows = True
            if self.has_first_rows:
                self._notify()

    def _lose(self) -> None:
        self.close()
        for group in self.groups:
            group.group = None
        self._plan_reopening()

    def _plan_reopening(self) -> None:
        self.reopen_at_ns = self._clock.monotonic_ns() + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)  # until a reading succeeds
