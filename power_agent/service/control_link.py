"""The thread that owns an agent's control socket: says Hello until a director welcomes it, then beats and carries."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from power_agent.service.own_thread import OwnThread
from power_agent.wire.messages import FromAgent, FromDirector, Heartbeat, Hello, Refused, Welcome
from power_agent.wire.sockets import AgentSocket

HELLO_S: Final = 1.0  # between two, while nobody answers
REFUSED_S: Final = 5.0  # after a refusal
SILENT_AFTER_BEATS: Final = 5
NO_ANSWER_S: Final = 10.0  # before a person is told
TELL_AGAIN_S: Final = 10.0  # between two equal texts
_TURN_MS = 50
_MOST_WAITING = 1000
_MOST_AT_ONCE = 200
_MOST_TOLD = 100


class ControlLink:
    """Runs from `start` to `close`. What is sent while no director is linked is dropped: `retell` tells it anew."""

    def __init__(
        self,
        socket: AgentSocket[FromDirector],
        *,
        hello: Callable[[], Hello],
        heartbeat: Callable[[], Heartbeat],
        on_message: Callable[[FromDirector], None],
        retell: Callable[[], Iterable[FromAgent]],
        tell: Callable[[str], None],
        unanswered: str,
    ) -> None:
        """The callbacks are called in the link's thread and must not wait.

        Args:
            socket: used by no one else.
            hello, heartbeat: make the message that is due.
            on_message: takes what the director sends, but for its answers to these two.
            retell: all that a director should know, when one is linked anew.
            tell: hears what a person should know.
            unanswered: what a person should look at where no director answers.
        """
        self._socket = socket
        self._renewals = socket.renewals
        self._hello = hello
        self._heartbeat = heartbeat
        self._on_message = on_message
        self._retell = retell
        self._tell = tell
        self._unanswered = unanswered
        self._outbox: deque[FromAgent] = deque(maxlen=_MOST_WAITING)
        self._thread = OwnThread("control", self._turn, tell)
        self._beat_s = 1.0
        self._hello_at_s = self._beat_at_s = 0.0
        self._heard_s = time.monotonic()
        self._told_unanswered = False
        self._told_s: dict[str, float] = {}
        self.linked = False

    def start(self) -> None:
        """Begin to look for the director."""
        self._thread.start()

    def close(self) -> None:
        """Fall silent."""
        self._thread.close()

    def send(self, message: FromAgent) -> None:
        """Send soon, if a director is linked. Any thread may call this."""
        if self.linked:
            self._outbox.append(message)

    def _turn(self) -> None:
        self._socket.wait(_TURN_MS)
        self._socket.keep()
        self._receive()
        self._speak(time.monotonic())

    def _receive(self) -> None:
        for message in self._socket.received(_MOST_AT_ONCE):
            self._heard_s = time.monotonic()
            self._told_unanswered = False
            if isinstance(message, Welcome):
                self._welcome(message)
            elif isinstance(message, Refused):
                self._refused(message)
            elif not isinstance(message, Heartbeat) and self.linked:
                self._on_message(message)
        if self._socket.renewals != self._renewals:  # who answers there now does not know us
            self._renewals = self._socket.renewals
            self.linked, self._hello_at_s = False, time.monotonic() + HELLO_S

    def _welcome(self, message: Welcome) -> None:
        self._beat_s = message.heartbeat_s
        self._beat_at_s = 0.0
        if not self.linked:
            self._tell_at_times("the director has welcomed this agent")
        self._outbox.clear()
        self.linked = True
        self._outbox.extend(self._retell())

    def _refused(self, message: Refused) -> None:
        if self.linked:  # another director than the one that knew us: introduce ourselves
            self.linked, self._hello_at_s = False, 0.0
            return
        self._hello_at_s = time.monotonic() + REFUSED_S
        self._tell_at_times(f"the director refuses this agent: {message.reason}")

    def _speak(self, now_s: float) -> None:
        silent_s = now_s - self._heard_s
        if self.linked and silent_s > SILENT_AFTER_BEATS * self._beat_s:
            self.linked = False
            self._tell_at_times("the director is not heard any more; what is recorded is handed over when it is back")
        if not self.linked:
            if silent_s > NO_ANSWER_S and not self._told_unanswered:
                self._told_unanswered = True
                self._tell(self._unanswered)
            if now_s >= self._hello_at_s:
                self._hello_at_s = now_s + HELLO_S
                self._put(self._hello())
            return
        if now_s >= self._beat_at_s:
            self._beat_at_s = now_s + self._beat_s
            self._put(self._heartbeat())
        while self._outbox and self._put(self._outbox[0]):
            self._outbox.popleft()

    def _put(self, message: FromAgent) -> bool:
        """Whether it is gone; False where the socket takes none now."""
        try:
            return self._socket.send(message)
        except ValueError as error:
            self._tell(f"not sent: {error}")
            return True

    def _tell_at_times(self, text: str) -> None:
        """Tell, but not again what was told just now, however often a director changes its mind."""
        now_s = time.monotonic()
        if now_s - self._told_s.get(text, -TELL_AGAIN_S) < TELL_AGAIN_S:
            return
        if len(self._told_s) >= _MOST_TOLD:
            self._told_s.clear()
        self._told_s[text] = now_s
        self._tell(text)
