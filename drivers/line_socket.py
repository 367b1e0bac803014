"""Text lines over TCP with a bound on everything: the length of a line, the time to wait, the bytes that are kept."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

MAX_LINE_BYTES = 4096
_AT_ONCE = 1 << 16
_KEEPALIVE_IDLE_S = 2
_KEEPALIVE_PROBES = 10


class Closed(ConnectionError):
    """The other side is gone, or it sent what cannot be a line."""


class LineSocket:
    """One connection. Lines end in CRLF or LF; bytes that are no UTF-8 are replaced. For one thread at a time."""

    def __init__(self, connection: socket.socket, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._socket = connection
        self._max_line_bytes = max_line_bytes
        self._buffer = bytearray()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def notice_silent_death(self) -> None:
        """Let the kernel find out, in about 20 s, that the other machine is gone while nothing is said."""
        for level, option, value in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_IDLE_S),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES),
        ):
            self._socket.setsockopt(level, option, value)

    def send_line(self, text: str, timeout_s: float) -> None:
        """Send a line.

        Raises:
            Closed: the other side is gone.
            TimeoutError: it takes nothing.
        """
        self.send_bytes(text.encode("utf-8", "replace") + b"\r\n", timeout_s)

    def send_bytes(self, content: bytes, timeout_s: float) -> None:
        """Send bytes; raises as `send_line`."""
        self._socket.settimeout(timeout_s)
        try:
            self._socket.sendall(content)
        except TimeoutError:
            raise TimeoutError(f"nothing was taken for {timeout_s:g} s") from None
        except OSError as error:
            raise Closed(_why(error)) from error

    def read_line(self, timeout_s: float | None) -> str:
        """The next line, without its end. None waits for ever. Bytes of an unfinished line stay for the next call.

        Raises:
            Closed: the other side is gone, or its line is too long.
            TimeoutError: no whole line came in time.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end > self._max_line_bytes or (end < 0 and len(self._buffer) > self._max_line_bytes):
                raise Closed(f"a line is longer than {self._max_line_bytes} bytes")
            if end >= 0:
                line = bytes(self._buffer[:end]).removesuffix(b"\r")
                del self._buffer[: end + 1]
                return line.decode("utf-8", "replace")
            searched = len(self._buffer)
            self._receive(deadline)

    def read_bytes(self, count: int, timeout_s: float) -> bytes:
        """Exactly `count` bytes; raises as `read_line`."""
        deadline = time.monotonic() + timeout_s
        while len(self._buffer) < count:
            self._receive(deadline)
        content = bytes(self._buffer[:count])
        del self._buffer[:count]
        return content

    def shut(self) -> None:
        """End what another thread reads or sends here; that thread closes. Never raises."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close; never raises."""
        with suppress(OSError):
            self._socket.close()

    def _receive(self, deadline: float | None) -> None:
        left_s = None if deadline is None else deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise TimeoutError("no answer in time")
        self._socket.settimeout(left_s)
        try:
            content = self._socket.recv(_AT_ONCE)
        except TimeoutError:
            raise TimeoutError("no answer in time") from None
        except OSError as error:
            raise Closed(_why(error)) from error
        if not content:
            raise Closed("the other side closed the connection")
        self._buffer += content


def connect(host: str, port: int, timeout_s: float, max_line_bytes: int = MAX_LINE_BYTES) -> LineSocket:
    """Connect.

    Raises:
        OSError: nobody listens, or the host is not reached or not known.
    """
    return LineSocket(socket.create_connection((host, port), timeout_s), max_line_bytes)


def _why(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
