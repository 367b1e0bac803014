"""The client's end of MLPerf's power protocol: commands and their replies, noted as the session folder tells them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

from drivers.line_socket import Closed, LineSocket, connect
from power_agent.mlperf_protocol import (
    CLIENT_GREETING,
    CLOCKS_APART_S,
    SEND_S,
    SERVER_GREETING,
    Record,
    receive_file,
)

CONNECT_S = 10.0
REPLY_S = 300.0  # PTDaemon takes half a minute to start, ranges ten seconds to settle
_TRIES = 5
_MAX_LINE_BYTES = 1 << 16


class LinkFailed(Exception):
    """The server is not there, or refuses: why, for the user."""


class Refused(LinkFailed):
    """The server answered with something else than OK."""


class Link:
    """One server. What is said goes to `record`, and as text to `log`."""

    def __init__(self, host: str, port: int, record: Record, log: Callable[[str], None]) -> None:
        self._host, self._port = host, port
        self._record = record
        self._log = log
        self._lines: LineSocket | None = None

    def connect(self) -> None:
        """Connect and greet.

        Raises:
            LinkFailed: nobody is there, or it is no server of this protocol.
        """
        where = f"{self._host}:{self._port}"
        try:
            lines = connect(self._host, self._port, CONNECT_S, _MAX_LINE_BYTES)
            lines.notice_silent_death()
        except OSError as error:
            raise LinkFailed(f"no MLPerf power server at {where}: {error.strerror or error}") from error
        self.close()
        self._lines = lines
        reply = self.command(CLIENT_GREETING)
        if reply != SERVER_GREETING:
            self.close()
            raise LinkFailed(f"what listens at {where} is no MLPerf power server of version 3: it says {reply[:60]!r}")

    def command(self, text: str, reply_s: float = REPLY_S) -> str:
        """Send a command; its reply.

        Raises:
            LinkFailed: there is none. The connection is closed then.
        """
        if self._lines is None:
            raise LinkFailed("the connection to the server was lost before")
        self._log(f"sending {text!r}")
        sent_s = time.time()
        try:
            self._lines.send_line(text, SEND_S)
            reply = self._lines.read_line(reply_s)
        except (Closed, TimeoutError) as error:
            self.close()
            raise LinkFailed(f"no reply to {text!r}: {error}") from error
        self._record.add_message(text, sent_s, reply)
        self._log(f"the server replied {reply[:200]!r}")
        return reply

    def expect_ok(self, text: str) -> None:
        """Send a command that is to be answered OK.

        Raises:
            Refused: it is not.
            LinkFailed: no reply.
        """
        reply = self.command(text)
        if reply != "OK":
            raise Refused(f"the server refuses {text!r}: {reply[:200]}")

    def clocks_apart_s(self) -> tuple[float, float]:
        """Between which two differences, server minus client, the clocks lie, by the best of a few looks.

        Raises:
            LinkFailed: no reply, or one that is no time.
        """
        best = (-1e9, 1e9)
        for _ in range(_TRIES):
            asked_s = time.time()
            reply = self.command("time")
            came_s = time.time()
            try:
                server_s = float(reply)
            except ValueError:
                server_s = math.nan
            if not math.isfinite(server_s):  # no difference to it is too large, nor is any small enough
                raise LinkFailed(f"the server's time is {reply[:60]!r}")
            if came_s - asked_s < best[1] - best[0]:
                best = (server_s - came_s, server_s - asked_s)
            if max(map(abs, best)) <= CLOCKS_APART_S:
                break
        self._log(f"the server's clock is {best[0] * 1e3:.3f} to {best[1] * 1e3:.3f} ms before this one")
        return best

    def download(self, session: str, file: str, target: Path) -> None:
        """Fetch a file of a finished session; the target appears whole or not at all.

        Raises:
            LinkFailed: it does not come.
            OSError: it cannot be written.
        """
        if self._lines is None:
            raise LinkFailed("the connection to the server was lost before")
        part = target.with_name(f"{target.name}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lines.send_line(f"download,{session},{file}", SEND_S)
            with part.open("wb") as out:
                for chunk in receive_file(self._lines, REPLY_S):
                    out.write(chunk)
            part.replace(target)
        except ValueError as error:
            part.unlink(missing_ok=True)
            raise LinkFailed(f"{file} does not come: the server says {str(error)!r}") from error
        except (Closed, TimeoutError) as error:
            part.unlink(missing_ok=True)
            self.close()
            raise LinkFailed(f"{file} does not come: {error}") from error

    def close(self) -> None:
        """Close; never raises."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None
