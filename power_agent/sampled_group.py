"""One group of a driver while it is sampled: its rows that are not yet in the spool, and its ledger."""

from __future__ import annotations

from collections.abc import Sequence

from drivers.contract import Channel, Group, Row, Status
from power_agent.messages import Stream, TickCount
from power_agent.row_buffer import RowBuffer
from power_agent.tick_ledger import TickLedger, TickTotals

CAPTURE_S = 0.2  # rows that wait in a group are lost with the process, and while its device hangs


class SampledGroup:
    """Belongs to the thread that samples it; `tick_count` and the buffer's `take` are for any thread."""

    def __init__(
        self,
        stream: Stream,
        group: Group | None,
        *,
        start_ns: int,
        limit_bytes: int,
        earlier: TickCount | None = None,
    ) -> None:
        """`earlier` is what a sampler that died had counted of the same stream."""
        self.stream = stream
        self.name = f"{stream.driver}.{stream.group}"
        self.captures_left = 0  # until the next reading that gives rows
        self.group: Group | None = None  # None: lost, or not there since the driver was opened again
        self.reconnect(group)
        self.buffer = RowBuffer(stream.channels, limit_bytes)
        self.buffer.dropped_rows = earlier.dropped_rows if earlier is not None else 0
        self.period_ns = round(1e9 / stream.rate_hz)
        self.ledger = TickLedger(start_ns, self.period_ns, _totals(earlier))
        self.note_read = self.ledger.note_read
        self.has_rows = False  # now or before; also true where it ended without one
        self.ended = False

    def count_read(self) -> None:
        """A read gave rows: the next readings up to CAPTURE_S may be captures."""
        self.ledger.settle()
        if self.group is not None and self.group.can_capture:
            self.captures_left = max(0, int(self.stream.rate_hz * CAPTURE_S) - 1)

    def end(self, now_ns: int) -> None:
        """No more reads are due."""
        self.ended = True
        self.ledger.end(now_ns)

    def tick_count(self, now_ns: int) -> TickCount:
        """The ledger as of now."""
        totals = self.ledger.totals(now_ns)
        return TickCount(
            stream=self.stream.id,
            due=totals.due,
            taken=totals.taken,
            late=totals.late,
            missed=totals.missed,
            extra=totals.extra,
            dropped_rows=self.buffer.dropped_rows,
            lateness_log2_us=totals.lateness_log2_us,
        )

    def reconnect(self, group: Group | None) -> None:
        """Go on with the group of a driver that was opened again; it may have lost channels, and others are new."""
        if group is not None and list(group.channels) != self.stream.channels:
            group = _Rearranged(group, self.stream.channels)
        self.group = group
        self.captures_left = 0


def _totals(count: TickCount | None) -> TickTotals | None:
    if count is None:
        return None
    return TickTotals(count.due, count.taken, count.late, count.missed, count.extra, count.lateness_log2_us)


class _Rearranged(Group):
    """Shows a group's values in the places of other channels; those that it lacks are missing."""

    def __init__(self, group: Group, channels: Sequence[Channel]) -> None:
        self.name = group.name
        self.channels = tuple(channels)
        self.default_hz = group.default_hz
        self.max_hz = group.max_hz
        self._group = group
        places = {channel.name: place for place, channel in enumerate(group.channels)}
        self._places = [places.get(channel.name) for channel in channels]

    def read(self) -> Sequence[Row]:
        return [self._rearrange(row) for row in self._group.read()]

    def remarks(self) -> Sequence[str]:
        return self._group.remarks()

    def _rearrange(self, row: Row) -> Row:
        statuses = row.statuses or bytes(len(row.values))
        return row._replace(
            values=[0 if place is None else row.values[place] for place in self._places],
            statuses=bytes(Status.MISSING if place is None else statuses[place] for place in self._places),
        )
