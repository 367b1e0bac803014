"""Recorded traces as streams of rows: what all formats share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path

from drivers.contract import Channel, Row, Status, Unavailable

_MAX_LINE_BYTES = 1 << 16
_TAIL_BYTES = 1 << 16
_ROWS_FOR_RATE = 1000
_INT64_LIMIT = 1 << 63

Parse = Callable[[bytes], Row]  # one line of text; raises ValueError where it is not what the format asks for


@dataclass
class BadLines:
    """Lines inside a trace that could not be read; each is a row of missing values at the instant of the row before."""

    count: int = 0
    first: str = ""

    def note(self, line: int, why: str) -> None:
        self.count += 1
        self.first = self.first or f"line {line}: {why}"


@dataclass(frozen=True)
class TraceStream:
    """Rows that were recorded together. Their `t_ns` is trace time; `Trace.start_wall_ns` ties it to the wall clock."""

    name: str
    path: Path
    channels: tuple[Channel, ...]
    rate_hz: float
    start_ns: int
    end_ns: int
    rows: Callable[[], Iterator[Row]]
    bad_lines: BadLines = field(default_factory=BadLines)


@dataclass(frozen=True)
class Trace:
    """A recording: at least one stream, and the wall-clock instant (ns since the epoch) of its first row."""

    streams: tuple[TraceStream, ...]
    start_wall_ns: int

    @property
    def start_ns(self) -> int:
        return min(stream.start_ns for stream in self.streams)

    @property
    def end_ns(self) -> int:
        return max(stream.end_ns for stream in self.streams)


def open_text(name: str, path: Path, header_lines: int, channels: tuple[Channel, ...], parse: Parse) -> TraceStream:
    """A stream of the lines of a text file, read as they are needed.

    Raises:
        Unavailable: it holds no rows, or its first or last rows are not what the format asks for.
    """
    bad_lines = BadLines()
    missing = Row(0, 0, (0,) * len(channels), bytes([Status.MISSING]) * len(channels))

    def read(line: bytes) -> Row:
        row = parse(line)
        if not -_INT64_LIMIT <= row.t_ns < _INT64_LIMIT:
            raise ValueError("its time is out of range")
        return row

    def rows(bad_lines: BadLines = bad_lines) -> Iterator[Row]:
        last_ns: int | None = None
        for number, line in numbered_lines(path):
            if number <= header_lines or not line.strip():
                continue
            try:
                row = read(line)
                if last_ns is not None and row.t_ns < last_ns:
                    raise ValueError("its time is earlier than that of the row before")
            except ValueError as error:
                if last_ns is None:
                    raise Unavailable(
                        f"{path}, line {number}: {error}", "check replay.path and replay.format"
                    ) from error
                bad_lines.note(number, str(error))
                yield missing._replace(t_ns=last_ns)
            else:
                last_ns = row.t_ns
                yield row

    stamps = [row.t_ns for row in islice(rows(BadLines()), _ROWS_FOR_RATE)]
    if not stamps:
        raise Unavailable(f"{path} holds no rows", "check replay.path and replay.format")
    steps = sorted(after - before for before, after in pairwise(stamps) if after > before)
    rate_hz = 1e9 / steps[len(steps) // 2] if steps else 1.0
    end_ns = max(_last_stamp(path, read), stamps[-1])
    return TraceStream(name, path, channels, rate_hz, stamps[0], end_ns, rows, bad_lines)


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1. A longer line than any trace has comes in pieces: no file fills the memory."""
    with path.open("rb") as file:
        yield from enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES), b""), start=1)


def _last_stamp(path: Path, parse: Parse) -> int:
    """Time of the last readable row, without reading the whole file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        for line in reversed(file.read(_TAIL_BYTES).splitlines()):
            try:
                return parse(line).t_ns
            except ValueError:
                continue
    raise Unavailable(f"{path}: no row can be read near its end", "cut off what is not part of the trace")
