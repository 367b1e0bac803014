"""PTDaemon's own log: what of it belongs to one session."""

from __future__ import annotations

import time
from pathlib import Path
from typing import BinaryIO

_HEADER_BYTES = 1 << 16  # of the start, in which the meter is found and the uncertainty check activated
_HEADER_END = b"Waiting for a connection"
_COMPLETED = b": Completed test"
WRITTEN_WITHIN_S = 3.0
_AT_ONCE = 1 << 20


class PtdLogFile:
    """The file that PTDaemon's standard output goes to, from where it stood when the session began."""

    def __init__(self, path: Path, wait_s: float = WRITTEN_WITHIN_S) -> None:
        """Note where the log ends. `wait_s`: how long `copy` waits for the end of a measurement.

        Raises:
            OSError: it cannot be read.
        """
        self.path = path
        self._wait_s = wait_s
        with path.open("rb") as file:
            self._offset = file.seek(0, 2)

    def copy(self, target: Path) -> bool:
        """Copy what PTDaemon said when it started, and in this session.

        Returns whether the end of the last measurement is in it; it is waited for a little.

        Raises:
            OSError: a file cannot be read or written.
        """
        deadline = time.monotonic() + self._wait_s
        while not (complete := self._has_end()) and time.monotonic() < deadline:
            time.sleep(0.1)
        with self.path.open("rb") as source, target.open("wb") as file:
            if source.seek(0, 2) < self._offset:  # PTDaemon was started again with a new log
                self._offset = 0
            source.seek(0)
            file.write(self._header(source))
            source.seek(self._offset)
            while chunk := source.read(_AT_ONCE):
                file.write(chunk)
        return complete

    def _header(self, source: BinaryIO) -> bytes:
        start = source.read(min(_HEADER_BYTES, self._offset))
        end = start.find(_HEADER_END)
        if end < 0:
            return start[: start.rfind(b"\n") + 1]
        line_end = start.find(b"\n", end)
        return start[: line_end + 1 if line_end >= 0 else len(start)]

    def _has_end(self) -> bool:
        with self.path.open("rb") as source:
            end = source.seek(0, 2)
            source.seek(max(self._offset if end >= self._offset else 0, end - _AT_ONCE))
            tail = source.read()
        return tail.rfind(_COMPLETED) > tail.rfind(b": Go with mark")
