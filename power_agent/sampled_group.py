"""One group of a driver while it is sampled: its rows that are not yet in the spool, and its ledger."""

from __future__ import annotations

import threading

from drivers.contract import Group, Row, Status
from power_agent.messages import Stream, TickCount
from power_agent.row_buffer import RowBuffer
from power_agent.tick_ledger import TickLedger


class SampledGroup:
    """Belongs to the thread that samples it; only `tick_count` and the buffer's `take` are for others."""

    def __init__(self, stream: Stream, group: Group, *, start_ns: int, limit_bytes: int) -> None:
        self.stream = stream
        self.group: Group | None = group  # None: lost, or not there since the driver was opened again
        self.buffer = RowBuffer(stream.channels, limit_bytes)
        self.has_rows = False
        self.ended = False
        self._order: list[int | None] | None = None  # of our channels in the group's rows; None: the same
        self._ledger = TickLedger(start_ns, round(1e9 / stream.rate_hz))
        self._extra = 0
        self._lock = threading.Lock()

    def settle(self, now_ns: int) -> int:
        """A read starts in its turn. Return the next deadline."""
        with self._lock:
            return self._ledger.settle(now_ns)

    def count_extra(self) -> None:
        """A read starts out of turn."""
        with self._lock:
            self._extra += 1

    def end(self, now_ns: int) -> None:
        """No more reads are due."""
        with self._lock:
            self.ended = True
            self._ledger.end(now_ns)

    def tick_count(self, now_ns: int) -> TickCount:
        """The ledger as of now; any thread may ask."""
        with self._lock:
            totals, extra = self._ledger.totals(now_ns), self._extra
        return TickCount(
            stream=self.stream.id,
            due=totals.due,
            taken=totals.taken,
            late=totals.late,
            missed=totals.missed,
            extra=extra,
            dropped_rows=self.buffer.dropped_rows,
            lateness_log2_us=totals.lateness_log2_us,
        )

    def reconnect(self, group: Group | None) -> None:
        """Go on with the group of a driver that was opened again; it may have lost channels, and others are new."""
        self.group = group
        self._order = None
        if group is not None and list(group.channels) != self.stream.channels:
            places = {channel.name: i for i, channel in enumerate(group.channels)}
            self._order = [places.get(channel.name) for channel in self.stream.channels]

    def add(self, row: Row, now_ns: int) -> str:
        """Keep a row of the group. Return what was wrong with it, or nothing."""
        if self._order is not None:
            statuses = row.statuses or bytes(len(row.values))
            row = row._replace(
                values=[0 if place is None else row.values[place] for place in self._order],
                statuses=bytes(Status.MISSING if place is None else statuses[place] for place in self._order),
            )
        self.has_rows = True
        return self.buffer.add(row, now_ns)

    def add_missing(self, t_ns: int, read_ns: int) -> None:
        """Keep a row that says that a reading did not come."""
        self.has_rows = True
        self.buffer.add_missing(t_ns, read_ns)
