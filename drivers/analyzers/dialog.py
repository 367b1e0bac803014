"""Questions to a meter and its answers, each with a deadline; after a bad one the two find into step again."""

from __future__ import annotations

import re
import time
from contextlib import suppress

from drivers.analyzers.replies import BadReply
from drivers.line_port import LinePort, NoReply

_SETTLE_TIMES = 2  # as long as an answer may take is the longest that finding into step takes
_QUIET_S = 0.05
_HEADER = re.compile(r":[\w:]+ ")


class Dialog:
    """One meter on one line. Belongs to one thread."""

    def __init__(self, port: LinePort, identify: str, reply_s: float) -> None:
        """`identify` is the question whose answer is always the same."""
        self.port = port
        self.identity = ""  # the answer, once it is known
        self._identify = identify
        self._reply_s = reply_s
        self.failures = 0  # questions in a row that had no answer, or none that makes sense
        self._in_step = True
        self._sent: list[str] = []  # since the last answer

    def tell(self, command: str) -> None:
        """Send a command that has no answer.

        Raises:
            LinkLost, NoReply: see there.
        """
        self._find_step()
        self._sent.append(command)
        self.port.write(command)

    def ask(self, question: str) -> str:
        """Send a question and return its answer, without the header that some meters put before it.

        Raises:
            LinkLost, NoReply: see there.
            BadReply: it is not text.
        """
        self.failures += 1
        self._find_step()
        reply = self._ask(question)
        self.failures = 0
        return reply

    def greet(self, known: re.Pattern[str]) -> str:
        """Ask who is there; a meter that sends by itself is listened to until an answer is known. Else: the last one.

        Raises:
            LinkLost, NoReply, BadReply: see there.
        """
        deadline_s = time.monotonic() + self._reply_s
        reply = self.ask(self._identify)
        while not known.match(reply):
            try:
                reply = _text(self.port.read_line(max(deadline_s - time.monotonic(), 0.0)))
            except (NoReply, BadReply):
                break
            if time.monotonic() > deadline_s:
                break
        return reply

    def next_line(self, timeout_s: float) -> str:
        """What the meter sends by itself.

        Raises:
            LinkLost, NoReply, BadReply: see there.
        """
        return _text(self.port.read_line(timeout_s))

    def lose_step(self) -> None:
        """The last answer may belong to another question: find into step before the next one."""
        self._in_step = False

    def _ask(self, question: str) -> str:
        self._in_step = False
        self.port.drain(0.0, 0.0)
        self.port.write(question)
        self._sent.append(question)
        reply = _text(self.port.read_line(self._reply_s))
        while reply in self._sent:  # some converters send back what they are sent
            self._sent.remove(reply)
            reply = _text(self.port.read_line(self._reply_s))
        self._sent.clear()
        self._in_step = True
        return _HEADER.sub("", reply, count=1) if reply.startswith(":") else reply

    def _find_step(self) -> None:
        """Ask who is there until the known answer comes, whatever answers to earlier questions come first."""
        if self._in_step:
            return
        settle_s = _SETTLE_TIMES * self._reply_s
        deadline_s = time.monotonic() + settle_s
        self._sent.clear()
        self.port.drain(_QUIET_S, settle_s)
        while self.identity:
            self.port.write(self._identify)
            with suppress(NoReply):
                while not (found := self._next_is_known()) and time.monotonic() < deadline_s:
                    pass
                if found:
                    break
            if time.monotonic() >= deadline_s:
                raise NoReply("what comes are answers to other questions, or nothing")
        self._in_step = True

    def _next_is_known(self) -> bool:
        try:
            return _text(self.port.read_line(self._reply_s)) == self.identity
        except BadReply:
            return False


def _text(line: bytes) -> str:
    try:
        text = line.decode("ascii")
    except UnicodeDecodeError as error:
        raise BadReply(f"what came is no text: {line[:20]!r}") from error
    if not text.isprintable():
        raise BadReply(f"what came is no text: {line[:20]!r}")
    return text.strip(" ")
