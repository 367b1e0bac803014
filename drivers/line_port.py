"""Lines of text to and from a device, each with a limit in bytes and time. `drivers.links` tells what a place is."""

from __future__ import annotations

import time

from drivers.links import MOST_MESSAGE_BYTES, Link, SerialLink, SerialSettings, open_link

_ENDS = b"\r\n"
_BITS_PER_BYTE = 10  # with start and stop bit


class NoReply(Exception):
    """No whole line came in time, or one without an end: `partial` is what came of it."""

    def __init__(self, text: str, partial: bytes = b"") -> None:
        super().__init__(text)
        self.partial = partial


class LinePort:
    """Lines over a link. A line ends in LF, CR or both, whatever the device was set to."""

    def __init__(self, link: Link, place: str, terminator: str = "\n", baud: int | None = None) -> None:
        """`place` and `baud`, of a serial line, are told in messages; `terminator` ends what is written."""
        self.place = place
        self.baud = baud
        self._link = link
        self._terminator = terminator.encode("ascii")
        self._received = b""

    @property
    def by_message(self) -> bool:
        """Whether the device says something only when it is asked."""
        return self._link.by_message

    def write(self, text: str) -> None:
        """Send a line.

        Raises:
            LinkLost: see there.
        """
        self._link.send(text.encode("ascii") + self._terminator)

    def read_line(self, timeout_s: float) -> bytes:
        """The next line that is not empty, without its end.

        Raises:
            LinkLost, NoReply: see there.
        """
        deadline_s = time.monotonic() + timeout_s
        has_looked = False
        while True:
            self._received = self._received.lstrip(_ENDS)
            ends = [place for place in (self._received.find(b"\n"), self._received.find(b"\r")) if place >= 0]
            if ends:
                line, self._received = self._received[: min(ends)], self._received[min(ends) + 1 :]
                return line
            if len(self._received) > MOST_MESSAGE_BYTES:
                self._received = b""
                raise NoReply(f"more than {MOST_MESSAGE_BYTES} bytes came without the end of a line")
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 and has_looked:
                told = f"only {self._received[:40]!r} came" if self._received else "nothing came"
                raise NoReply(f"{told} within {timeout_s:g} s", self._received)
            more = self._link.receive(max(left_s, 0.0))
            has_looked = True
            self._received += more
            if more and self._link.by_message and not more.endswith(b"\n"):
                self._received += b"\n"

    def drain(self, quiet_s: float, at_most_s: float) -> int:
        """Throw away what comes until nothing has come for `quiet_s`. Return how many bytes that was.

        Raises:
            LinkLost: see there.
        """
        dropped = len(self._received)
        self._received = b""
        if self._link.by_message:
            if quiet_s > 0:
                self._link.clear()
            return dropped
        deadline_s = time.monotonic() + at_most_s
        while True:
            more = self._link.receive(quiet_s)
            dropped += len(more)
            if not more or time.monotonic() > deadline_s:
                return dropped

    def seconds(self, size: int) -> float:
        """The least time that so many bytes need on the line."""
        return size * _BITS_PER_BYTE / self.baud if self.baud is not None else 0.0

    def close(self) -> None:
        """Release the line."""
        self._link.close()


def open_port(place: str, serial: SerialSettings, *, terminator: str = "\n", tcp_port: int | None = None) -> LinePort:
    """Open the line to a device that speaks in lines.

    Args:
        place: see `drivers.links`.
        serial: of a serial line.
        terminator: ends what is written.
        tcp_port: where `place` names none.

    Raises:
        Unavailable: it cannot be opened: why, and what to do.
    """
    link = open_link(place, serial, tcp_port=tcp_port)
    return LinePort(link, place, terminator, serial.baud if isinstance(link, SerialLink) else None)
