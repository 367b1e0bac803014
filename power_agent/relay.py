"""Pass a workload's output on unchanged, and note when each part came: `python -m power_agent.relay LOG ARRIVALS`.

Reads stdin, writes the same bytes to stdout at once, and copies them to LOG. For every read it appends to ARRIVALS a
pair of little-endian int64: the offset in LOG of the first byte read, and the monotonic instant in nanoseconds at which
it was read. So a line came at the instant of the last pair whose offset is not beyond the line's first byte. An offset
of -1 ends the list: from that instant on nothing more was copied to LOG.

The relay outlives the signals of the terminal and ends when its input does. Whatever happens to LOG or ARRIVALS, it
goes on relaying.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import struct
from pathlib import Path
from time import monotonic_ns

_CHUNK_BYTES = 65_536
COPY_ENDED = -1
_PAIR = struct.Struct("<qq")
DEFAULT_MAX_BYTES = 1 << 30


class _Copy:
    """LOG and ARRIVALS. After any trouble it is quietly at an end."""

    def __init__(self, log: Path, arrivals: Path, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._length = 0  # of LOG
        self._used = 0  # by LOG and ARRIVALS together
        self._log = self._arrivals = -1
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        try:
            self._log = os.open(log, flags, 0o666)
            self._arrivals = os.open(arrivals, flags, 0o666)
        except OSError as error:
            self._end(f"the workload's output is not being copied: {error}")

    def add(self, chunk: bytes, t_ns: int) -> None:
        if self._arrivals < 0:
            return
        if self._used + len(chunk) + _PAIR.size > self._max_bytes:
            self._end(f"the copy of the workload's output ends after {self._length} bytes, at the limit", t_ns)
            return
        try:
            _write_all(self._log, chunk)
            _write_all(self._arrivals, _PAIR.pack(self._length, t_ns))
        except OSError as error:
            self._end(f"the copy of the workload's output ends after {self._length} bytes: {error}", t_ns)
            return
        self._length += len(chunk)
        self._used += len(chunk) + _PAIR.size

    def _end(self, why: str, t_ns: int | None = None) -> None:
        if self._arrivals >= 0 and t_ns is not None:
            with contextlib.suppress(OSError):
                os.write(self._arrivals, _PAIR.pack(COPY_ENDED, t_ns))
        for descriptor in (self._log, self._arrivals):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._log = self._arrivals = -1
        with contextlib.suppress(OSError):
            os.write(2, f"power-agent: {why}; the workload itself is not affected\n".encode("utf-8", "replace"))


def _write_all(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, data[written:])


def _read_chunk() -> bytes:
    """What came on stdin; nothing at its end, which Linux tells as EIO where stdin is a pseudo-terminal."""
    try:
        return os.read(0, _CHUNK_BYTES)
    except OSError as error:
        if error.errno == errno.EIO:
            return b""
        raise


def relay(log: Path, arrivals: Path, max_bytes: int) -> None:
    """Relay stdin to stdout until its end.

    Raises:
        BrokenPipeError: stdout is closed.
    """
    copy = _Copy(log, arrivals, max_bytes)
    while chunk := _read_chunk():
        t_ns = monotonic_ns()
        _write_all(1, chunk)
        copy.add(chunk, t_ns)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m power_agent.relay", description="Relay stdin to stdout, and copy.")
    parser.add_argument("log", type=Path, help="file for the copy")
    parser.add_argument("arrivals", type=Path, help="file for the instants at which it came")
    parser.add_argument(
        "--max-bytes", type=int, default=DEFAULT_MAX_BYTES, help="of log and arrivals, where copying ends"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A reader that went away ends us, and the workload's next write then meets a pipe without a reader: the SIGPIPE
    # that it would have had without us.
    with contextlib.suppress(BrokenPipeError):
        relay(options.log, options.arrivals, options.max_bytes)


if __name__ == "__main__":
    main()
