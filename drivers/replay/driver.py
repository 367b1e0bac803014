"""Driver `replay`: gives the rows of a recorded trace at the instants at which they were taken.

It follows the clock that it is opened with. Where that clock runs faster than real time, so does the replay, and a
reading gives all the rows whose time has come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from drivers.contract import Driver, DriverOptions, Finished, Group, ReadFailed, Row, Unavailable
from drivers.replay.formats import open_trace
from drivers.replay.trace import Trace, TraceStream
from drivers.settings import check_known

MAX_ROWS_PER_READ = 10_000  # a fast clock brings a whole trace due at once; it must not be in memory at once
_SETTINGS = ("path", "format", "speed", "start_ns", "host", "time_column", "power_column", "accuracy_percent")


class ReplayGroup(Group):
    """One stream of a trace."""

    max_hz = 1000.0

    def __init__(self, stream: TraceStream, shift_ns: int, clock_ns: Callable[[], int]) -> None:
        self.name = stream.name
        self.channels = stream.channels
        self.default_hz = min(max(stream.rate_hz, 0.1), self.max_hz)
        self._stream = stream
        self._shift_ns = shift_ns  # from trace time to the clock's
        self._clock_ns = clock_ns
        self._rows = stream.rows()
        self._next: Row | None = None
        self._ended = False

    def read(self) -> Sequence[Row]:
        """The rows whose time has come since the previous reading, at most MAX_ROWS_PER_READ; the rest come next.

        Raises:
            Finished: the last row was given before. It tells of the lines that could not be read.
            ReadFailed: the file is damaged or gone; what follows is Finished.
        """
        due_ns = self._clock_ns() - self._shift_ns
        rows: list[Row] = []
        while len(rows) < MAX_ROWS_PER_READ:
            if self._next is None and not self._advance():
                break
            row = self._next
            if row is None or row.t_ns > due_ns:
                break
            rows.append(row._replace(t_ns=row.t_ns + self._shift_ns))
            self._next = None
        if not rows and self._ended:
            raise Finished(self._ending())
        return rows

    def _advance(self) -> bool:
        try:
            self._next = next(self._rows, None)
        except (OSError, Unavailable) as error:
            raise ReadFailed(f"{self._stream.path} cannot be read on: {error}; its replay ends here") from error
        self._ended = self._next is None
        return not self._ended

    def _ending(self) -> str:
        bad = self._stream.bad_lines
        if not bad.count:
            return f"{self._stream.path} was replayed to its end"
        return f"{self._stream.path} was replayed to its end; {bad.count} lines could not be read, first {bad.first}"


class ReplayDriver(Driver):
    """A recorded trace: an MLPerf spl.txt, a CSV file, or an earlier session."""

    name: ClassVar[str] = "replay"

    def __init__(self, trace: Trace, start_ns: int, clock_ns: Callable[[], int]) -> None:
        shift_ns = start_ns - trace.start_ns
        self.groups = tuple(ReplayGroup(stream, shift_ns, clock_ns) for stream in trace.streams)

    @classmethod
    def open(cls, options: DriverOptions) -> ReplayDriver:
        """Open the trace that the setting `path` names.

        The first row stands at the setting `start_ns` of the clock; without it, at the instant of opening.
        """
        check_known(cls.name, options.settings, _SETTINGS)
        if "path" not in options.settings:
            raise Unavailable(
                "no trace is named", "set replay.path=FILE (spl.txt, CSV) or replay.path=SESSION_DIRECTORY"
            )
        trace = open_trace(Path(options.settings["path"]), options.settings)
        return cls(trace, _start_ns(options), options.clock_ns)

    def close(self) -> None:
        """Nothing is held open but what a group's rows hold, and that goes with them."""


def trace_start_wall_ns(path: Path, settings: Mapping[str, str] | None = None) -> int:
    """Wall-clock time of a trace's first row, ns since the epoch; stamps without a zone are read as UTC.

    A CSV file with relative times only is taken to end when the file was last written.

    Raises:
        Unavailable: the trace cannot be read.
    """
    return open_trace(path, settings or {}).start_wall_ns


def trace_duration_ns(path: Path, settings: Mapping[str, str] | None = None) -> int:
    """Time from a trace's first row to its last.

    Raises:
        Unavailable: the trace cannot be read.
    """
    trace = open_trace(path, settings or {})
    return trace.end_ns - trace.start_ns


def _start_ns(options: DriverOptions) -> int:
    text = options.settings.get("start_ns")
    if text is None:
        return options.clock_ns()
    try:
        return int(text)
    except ValueError as error:
        raise Unavailable(f"replay.start_ns is {text!r}, which is not a whole number", "give nanoseconds") from error
