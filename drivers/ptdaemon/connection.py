"""A connection to PTDaemon: one reply per command, and samples by `RL`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drivers.line_socket import Closed, LineSocket, connect
from drivers.ptdaemon.replies import (
    GREETING,
    NOTHING_TO_STOP,
    STARTED,
    STOPPED,
    Identity,
    Sample,
    SetRanges,
    Statistics,
    parse_count,
    parse_identity,
    parse_ranges,
    parse_sample,
    parse_statistics,
)

DEFAULT_PORT = 8888
CONNECT_S = 3.0
REPLY_S = 10.0
_READ_COMMANDS = ("RL,*,*", "RL", "DC-RL")  # of several channels, of one, of direct current
_OTHER_COMMAND = ("Invalid number of parameters", "Unknown command")


class PtdLost(Exception):
    """PTDaemon does not answer, or not as PTDaemon does: why."""


class NotReached(PtdLost):
    """Nobody listens there, or the host is not known."""


class Silent(PtdLost):
    """It takes the connection and says nothing: PTDaemon serves one program at a time."""


class NotPtd(PtdLost):
    """Another program answers."""


class Refused(Exception):
    """PTDaemon answered a command with an error: the command and the answer."""


@dataclass(frozen=True)
class Fetched:
    """Samples that came, and how many lines were none."""

    samples: list[Sample]
    damaged: int


class PtdConnection:
    """For one thread at a time. `record` is told each command and its reply, samples excepted."""

    def __init__(self, lines: LineSocket, reply_s: float, record: Callable[[str, str], None]) -> None:
        self._lines = lines
        self._reply_s = reply_s
        self._record = record
        self._read_command = 0

    @classmethod
    def open(
        cls,
        host: str,
        port: int,
        *,
        reply_s: float = REPLY_S,
        record: Callable[[str, str], None] = lambda command, reply: None,
    ) -> PtdConnection:
        """Connect and greet.

        Raises:
            PtdLost: see NotReached, Silent and NotPtd.
        """
        try:
            lines = connect(host, port, CONNECT_S)
        except OSError as error:
            raise NotReached(error.strerror or str(error)) from error
        connection = cls(lines, reply_s, record)
        try:
            reply = connection.command("Hello")
        except BaseException:
            connection.close()
            raise
        if reply != GREETING:
            connection.close()
            raise NotPtd(f"it answers {reply[:40]!r} to 'Hello'")
        return connection

    def command(self, text: str) -> str:
        """Send a command; its reply.

        Raises:
            PtdLost: there was none.
        """
        try:
            self._lines.send_line(text, self._reply_s)
            reply = self._lines.read_line(self._reply_s)
        except TimeoutError:
            raise Silent(f"no answer to {text!r} within {self._reply_s:g} s") from None
        except Closed as error:
            raise PtdLost(f"after {text!r}: {error}") from error
        self._record(text, reply)
        return reply

    def identify(self) -> Identity:
        """The meter.

        Raises:
            PtdLost, ValueError: no answer, or none that can be read.
        """
        return parse_identity(self.command("Identify"))

    def ranges(self) -> SetRanges:
        """The ranges in use; raises as `identify`."""
        return parse_ranges(self.command("RR"))

    def set_range(self, command: str) -> None:
        """`SR,V,…` or `SR,A,…`.

        Raises:
            PtdLost: no answer.
            Refused: the meter has no such range.
        """
        self._expect(command, f"Range {command[3:4]} changed")

    def go(self, mark: str) -> None:
        """Begin to measure, a sample per second; raises as `set_range`."""
        self._expect(f"Go,1000,0,{mark}", STARTED)

    def stop(self) -> None:
        """End the measurement, if one runs; raises as `set_range`."""
        self._expect("Stop", STOPPED, NOTHING_TO_STOP)

    def statistics(self, name: str) -> Statistics:
        """`Watts`, `Volts`, `Amps`, `PF` or `Uncertainty` so far; raises as `identify`."""
        return parse_statistics(self.command(name), name)

    def fetch(self) -> Fetched:
        """The samples that were not fetched before, oldest first.

        Raises:
            PtdLost: no answer, or not as many lines as were announced.
            ValueError: an answer that cannot be read.
        """
        reply = self.command(_READ_COMMANDS[self._read_command])
        while reply.startswith(_OTHER_COMMAND) and self._read_command + 1 < len(_READ_COMMANDS):
            self._read_command += 1
            reply = self.command(_READ_COMMANDS[self._read_command])
        samples: list[Sample] = []
        damaged = 0
        for _ in range(parse_count(reply)):
            try:
                samples.append(parse_sample(self._lines.read_line(self._reply_s)))
            except ValueError:
                damaged += 1
            except TimeoutError:
                raise Silent(f"samples did not come within {self._reply_s:g} s") from None
            except Closed as error:
                raise PtdLost(f"in the middle of samples: {error}") from error
        return Fetched(samples, damaged)

    def close(self) -> None:
        """Close; never raises."""
        self._lines.close()

    def _expect(self, command: str, *beginnings: str) -> None:
        reply = self.command(command)
        if not reply.startswith(beginnings):
            raise Refused(f"{command!r} was answered {reply[:80]!r}")
