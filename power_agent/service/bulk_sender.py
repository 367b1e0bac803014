"""The thread that owns an agent's bulk socket and hands over all its sessions, within one credit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from power_agent.mark_file import say
from power_agent.service.own_thread import OwnThread
from power_agent.service.uplink import Uplink
from power_agent.wire.messages import BulkFromDirector, Credit
from power_agent.wire.sockets import AgentSocket

MOST_OPEN: Final = 16  # sessions that have ended, handed over at a time: each holds files open
_TURN_MS = 50
_MOST_AT_ONCE = 1000


class BulkSender:
    """Runs from `start` to `close`. Any thread may call; none waits for the disk or the network."""

    def __init__(self, socket: AgentSocket[BulkFromDirector], host: str, tell: Callable[[str], None] = say) -> None:
        self._socket = socket
        self._host = host
        self._lock = threading.Lock()  # of the table alone: what is in an uplink belongs to the thread
        self._uplinks: dict[str, Uplink] = {}
        self._forgotten: deque[Uplink] = deque()
        self._turns = 0
        self._credit_bytes = 0
        self._thread = OwnThread("bulk", self._turn, tell)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def add(self, session: str, spool: Path, folders: Mapping[str, Path]) -> None:
        """Hand this session over from now on; see Uplink. Repeated harmlessly."""
        with self._lock:
            if session not in self._uplinks:
                self._uplinks[session] = Uplink(session, self._host, spool, folders, self._socket.send)

    def finish(self, session: str) -> None:
        """Sampling for this session has ended: what is on the disk is all."""
        uplink = self._find(session)
        if uplink is not None:
            uplink.finish()

    def is_whole(self, session: str) -> bool:
        """Whether all of a finished session is durable at the director: its files here may go."""
        uplink = self._find(session)
        return uplink is not None and uplink.whole

    def is_refused(self, session: str) -> bool:
        """Whether the director does not take a session now."""
        uplink = self._find(session)
        return uplink is not None and uplink.is_refused

    def hurry(self) -> None:
        """The director may take by now what it refused before."""
        for uplink in self._all():
            uplink.hurry()

    def forget(self, session: str) -> None:
        """Let go of a session's files, soon."""
        with self._lock:
            uplink = self._uplinks.pop(session, None)
        if uplink is not None:
            self._forgotten.append(uplink)

    def unsent_bytes(self) -> int:
        """What this host alone has, about."""
        return sum(uplink.unsent_bytes() for uplink in self._all())

    def problems(self) -> list[str]:
        """What a person should know, in plain words."""
        return [problem for uplink in self._all() for problem in uplink.problems]

    def close(self) -> None:
        """Stop sending; what is not acknowledged stays on the disk."""
        self._thread.close()
        for uplink in [*self._all(), *self._forgotten]:
            uplink.close()

    def _all(self) -> list[Uplink]:
        with self._lock:
            return list(self._uplinks.values())

    def _find(self, session: str) -> Uplink | None:
        with self._lock:
            return self._uplinks.get(session)

    def _turn(self) -> None:
        self._socket.wait(_TURN_MS)
        self._socket.keep()
        while self._forgotten:
            self._forgotten.popleft().close()
        self._receive()
        while self._work() and not self._thread.is_ending:
            self._receive()

    def _receive(self) -> None:
        for message in self._socket.received(_MOST_AT_ONCE):
            if isinstance(message, Credit):
                self._credit_bytes = message.bytes
                continue
            uplink = self._find(message.session)
            if uplink is not None:
                try:
                    uplink.receive(message)
                except Exception as error:
                    uplink.fail(error)

    def _work(self) -> int:
        """One turn of all sessions, each time another one first; how many bytes were sent."""
        uplinks = self._all()
        self._turns += 1
        first = self._turns % max(1, len(uplinks))
        left = self._credit_bytes - sum(uplink.bytes_on_way for uplink in uplinks)
        places = MOST_OPEN - sum(uplink.is_finishing and uplink.is_open for uplink in uplinks)
        sent = 0
        for uplink in uplinks[first:] + uplinks[:first]:
            opens = uplink.is_finishing and not uplink.is_open
            if opens and places <= 0:
                continue
            try:
                sent += uplink.work(max(0, left - sent))
            except Exception as error:  # one session's trouble must not end the hand-over of all
                uplink.fail(error)
            places -= opens and uplink.is_open
        return sent
