"""Rows of one stream that are not yet in the spool: checked, packed, and bounded in bytes."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from drivers.contract import Channel, Row, Status
from power_agent.row_format import row_struct

_BELIEVABLE = Status.STALE  # the highest status whose value counts
_HIGHEST = max(Status)
_OBJECT_BYTES = 64  # that Python needs beyond a row's own bytes


class RowBuffer:
    """One thread adds rows, another takes them away.

    A device's mistakes become INVALID values here; `add` says in words what was wrong, for the event log.
    """

    def __init__(self, channels: Sequence[Channel], limit_bytes: int) -> None:
        self._channels = channels
        self._struct = row_struct(channels)
        self._all_new = bytes(len(channels))
        self._limit_rows = limit_bytes // (self._struct.size + _OBJECT_BYTES)
        self._rows: deque[bytes] = deque()  # needs no lock: one end is the one thread's, the other the other's
        self.dropped_rows = 0  # that came while the buffer was full

    @property
    def is_filling(self) -> bool:
        """Whether it is time to take the rows away."""
        return len(self._rows) > self._limit_rows // 4

    def add(self, row: Row, now_ns: int) -> str:
        """Pack a row. Return what was wrong with it, or nothing; `now_ns` stands in for an instant that is no instant.

        Raises:
            Exception: `row` is nothing like a Row.
        """
        t_ns, read_ns, values, statuses = row
        if statuses is None:
            statuses = self._all_new
            try:
                if math.isfinite(sum(values)):
                    self._append(self._struct.pack(t_ns, read_ns, *values, statuses))
                    return ""
            except Exception:  # whatever it is, the careful way finds out
                pass
        return self._add_carefully(t_ns, read_ns, values, statuses, now_ns)

    def add_missing(self, t_ns: int, read_ns: int) -> None:
        """Add a row without any value: the reading that was due did not come."""
        self._append_absent(t_ns, read_ns, Status.MISSING)

    def take(self) -> tuple[int, bytes]:
        """Take all rows: how many, and their bytes."""
        rows = [self._rows.popleft() for _ in range(len(self._rows))]
        return len(rows), b"".join(rows)

    def _append(self, packed: bytes) -> None:
        if len(self._rows) < self._limit_rows:
            self._rows.append(packed)
        else:
            self.dropped_rows += 1

    def _append_absent(self, t_ns: int, read_ns: int, status: Status) -> None:
        values = [_absent(channel) for channel in self._channels]
        statuses = bytes([status]) * len(self._channels)
        self._append(self._struct.pack(t_ns, read_ns, *values, statuses))

    def _checked(self, statuses: object) -> bytes:
        if not isinstance(statuses, bytes) or len(statuses) != len(self._channels) or max(statuses) > _HIGHEST:
            raise ValueError(f"its statuses are not {len(self._channels)} bytes, each a Status")
        return statuses

    def _add_carefully(self, t_ns: object, read_ns: object, values: object, statuses: object, now_ns: int) -> str:
        """Pack a row that holds something unusual: absent values, or a mistake of the driver."""
        problem = ""
        if not (_is_instant(t_ns) and _is_instant(read_ns)):
            problem = f"its instant is not in nanoseconds: t_ns={t_ns!r}, read_ns={read_ns!r}"
            t_ns, read_ns = now_ns, 0
        try:
            checked = bytearray(self._checked(statuses))
            packable, not_finite = self._packable(values, checked)
            packed = self._struct.pack(t_ns, read_ns, *packable, bytes(checked))
        except Exception as error:
            problem = problem or str(error) or type(error).__name__
        if problem:
            assert isinstance(t_ns, int) and isinstance(read_ns, int)
            self._append_absent(t_ns, read_ns, Status.INVALID)
            return f"a reading is not what the driver promised and counts as invalid: {problem}"
        self._append(packed)
        return f"not a finite number, counted as invalid: {', '.join(not_finite)}" if not_finite else ""

    def _packable(self, values: object, statuses: bytearray) -> tuple[list[float | int], list[str]]:
        if not isinstance(values, Sequence) or len(values) != len(self._channels):
            raise ValueError(f"it has not {len(self._channels)} values, one per channel")
        packable: list[float | int] = []
        not_finite: list[str] = []
        for i, (channel, value) in enumerate(zip(self._channels, values, strict=True)):
            if statuses[i] <= _BELIEVABLE:
                if channel.kind != "gauge":
                    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
                        raise ValueError(f"{channel.name} is {value!r}, not an integer of 64 bits")
                elif not math.isfinite(value):
                    statuses[i] = Status.INVALID
                    not_finite.append(channel.name)
            packable.append(value if statuses[i] <= _BELIEVABLE else _absent(channel))
        return packable, not_finite


def _absent(channel: Channel) -> float | int:
    return math.nan if channel.kind == "gauge" else 0


def _is_instant(value: object) -> bool:
    return isinstance(value, int) and -(2**63) <= value < 2**63
