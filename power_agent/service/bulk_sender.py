"""The thread that owns an agent's bulk socket and hands over all its sessions, within one credit."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import zmq

from power_agent.service.uplink import Uplink
from power_agent.wire.frames import BadFrame, bulk_from_director, encode
from power_agent.wire.messages import Credit
from power_agent.wire.sockets import receive

if TYPE_CHECKING:
    from power_agent.wire.sockets import AgentSockets

_TURN_MS = 50


class BulkSender:
    """Runs from `start` to `close`. Any thread may add and finish sessions."""

    def __init__(self, sockets: AgentSockets, host: str) -> None:
        self._sockets = sockets
        self._socket = sockets.bulk
        self._host = host
        self._lock = threading.Lock()
        self._uplinks: dict[str, Uplink] = {}
        self._credit_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bulk", daemon=True)
        self.bad_frames = 0

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def add(self, session: str, spool: Path, folders: Mapping[str, Path]) -> None:
        """Hand this session over from now on; see Uplink. Repeated harmlessly."""
        with self._lock:
            if session not in self._uplinks:
                self._uplinks[session] = Uplink(session, self._host, spool, folders, self._send)

    def finish(self, session: str) -> None:
        """Sampling for this session has ended: what is on the disk is all."""
        with self._lock:
            if session in self._uplinks:
                self._uplinks[session].finish()

    def is_whole(self, session: str) -> bool:
        """Whether all of a finished session is durable at the director: its files here may go."""
        with self._lock:
            uplink = self._uplinks.get(session)
            return uplink is not None and uplink.whole

    def is_refused(self, session: str) -> bool:
        """Whether the director does not take a session now."""
        with self._lock:
            uplink = self._uplinks.get(session)
            return uplink is not None and uplink.is_refused

    def hurry(self) -> None:
        """The director may take by now what it refused before."""
        with self._lock:
            for uplink in self._uplinks.values():
                uplink.hurry()

    def forget(self, session: str) -> None:
        """Let go of a session's files."""
        with self._lock:
            uplink = self._uplinks.pop(session, None)
            if uplink is not None:
                uplink.close()

    def unsent_bytes(self) -> int:
        """What this host alone has, about."""
        with self._lock:
            return sum(uplink.unsent_bytes() for uplink in self._uplinks.values())

    def problems(self) -> list[str]:
        """What a person should know, in plain words."""
        with self._lock:
            return [problem for uplink in self._uplinks.values() for problem in uplink.problems]

    def close(self) -> None:
        """Stop sending; what is not acknowledged stays on the disk."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for uplink in self._uplinks.values():
                uplink.close()

    def _send(self, message: msgspec.Struct) -> bool:
        try:
            self._socket.send(encode(message), zmq.DONTWAIT)
            return True
        except zmq.Again:
            return False

    def _run(self) -> None:
        while not self._stop.is_set():
            self._socket.poll(_TURN_MS)
            self._socket = self._sockets.kept(self._socket)
            with self._lock:
                self._receive()
                while self._work():
                    self._receive()

    def _receive(self) -> None:
        for _ in range(1000):
            try:
                frame = receive(self._socket)
                if frame is None:
                    self.bad_frames += 1
                    self._socket = self._sockets.replaced(self._socket)
                    return
                message = bulk_from_director.decode(frame)
            except zmq.Again:
                return
            except BadFrame:
                self.bad_frames += 1
                continue
            if isinstance(message, Credit):
                self._credit_bytes = message.bytes
            elif message.session in self._uplinks:
                try:
                    self._uplinks[message.session].receive(message)
                except Exception as error:
                    self._uplinks[message.session].fail(error)

    def _work(self) -> int:
        """One turn of all sessions; how many bytes were sent."""
        sent = 0
        for uplink in self._uplinks.values():
            left = self._credit_bytes - sum(other.bytes_on_way for other in self._uplinks.values())
            try:
                sent += uplink.work(max(0, left))
            except Exception as error:  # one session's trouble must not end the hand-over of all
                uplink.fail(error)
        return sent
