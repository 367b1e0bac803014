"""How commands on the director's machine speak to the director that serves: a Unix socket in the sessions' directory.

The messages are those of agents, SessionRequest and SessionAnswer. Who may open the socket is the owner alone.
"""

from __future__ import annotations

import math
import os
import secrets
import socket as unix
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import zmq

from director.running.notices import say
from power_agent.wire import frames
from power_agent.wire.frames import BadFrame, FrameDecoder, encode
from power_agent.wire.messages import SessionAnswer, SessionRequest
from power_agent.wire.sockets import CONTROL_MESSAGES, limit

SOCKET: Final = "director.socket"
QUIET_S: Final = 3.0  # that a command waits before it says for what
REPEAT_S: Final = 2.0  # a request that nobody answers is sent again: the director may have been started again
_from_command: Final[FrameDecoder[SessionRequest]] = FrameDecoder(SessionRequest)
_from_director: Final[FrameDecoder[SessionAnswer]] = FrameDecoder(SessionAnswer)


class NoDirector(Exception):
    """No director serves these sessions: what to do."""


class LocalListener:
    """The director's end. It belongs to one thread."""

    def __init__(self, context: zmq.Context[Any], sessions: Path) -> None:
        """Listen in this directory, in place of a director that is gone.

        Raises:
            OSError: it cannot be written.
        """
        self._folder = os.open(sessions, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = sessions / SOCKET
        self.socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        limit(self.socket, CONTROL_MESSAGES, frames.MAX_FRAME_BYTES)
        before = os.umask(0o177)
        try:
            self.socket.bind(_endpoint(self._folder))
        except zmq.ZMQError as error:
            self.socket.close()
            os.close(self._folder)
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        finally:
            os.umask(before)
        self.bad_frames = 0

    def receive(self) -> Iterator[tuple[bytes, SessionRequest]]:
        """What has come: the route to answer on, and the request."""
        for _ in range(CONTROL_MESSAGES):
            try:
                route, *parts = self.socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                yield route, _from_command.decode_parts(parts)
            except BadFrame:
                self.bad_frames += 1

    def answer(self, route: bytes, message: SessionAnswer) -> None:
        """Send, or drop where the command is gone or takes nothing: it asks again."""
        with suppress(zmq.ZMQError):
            self.socket.send_multipart([route, encode(message)], zmq.DONTWAIT)

    def close(self) -> None:
        """Listen no more."""
        self.socket.close(linger=0)
        with suppress(OSError):
            self._path.unlink()
        os.close(self._folder)


class DirectorClient:
    """A command's end. It outlives the director, and speaks to the next one."""

    def __init__(self, sessions: Path) -> None:
        """Connect to the director that serves these sessions.

        Raises:
            NoDirector: none does.
        """
        try:
            self._folder = os.open(sessions, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NoDirector(f"{sessions} cannot be read: {error.strerror}; {_start(sessions)}") from error
        try:
            with unix.socket(unix.AF_UNIX) as probe:
                probe.connect(_path(self._folder))
        except OSError as error:
            os.close(self._folder)
            if isinstance(error, PermissionError):
                raise NoDirector(f"another user's director serves {sessions}: ask as that user") from error
            raise NoDirector(f"no director serves {sessions}: {_start(sessions)}") from error
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        limit(self._socket, CONTROL_MESSAGES, frames.MAX_FRAME_BYTES)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        self._socket.connect(_endpoint(self._folder))
        self._asked_s = 0.0

    def ask(self, request: SessionRequest, wait_s: float) -> SessionAnswer | None:
        """Send the request, unless that was done just now, and wait for an answer to it; None: none has come yet."""
        now_s = time.monotonic()
        if now_s - self._asked_s >= REPEAT_S:
            with suppress(zmq.Again):
                self._socket.send(encode(request), zmq.DONTWAIT)
                self._asked_s = now_s
        deadline_s = now_s + wait_s
        while self._socket.poll(max(0, round((deadline_s - time.monotonic()) * 1000))):
            with suppress(BadFrame):
                answer = _from_director.decode_parts(self._socket.recv_multipart())
                if answer.request == request.request:
                    return answer
        return None

    def follow(
        self,
        request: SessionRequest,
        is_done: Callable[[SessionAnswer], bool],
        patience_s: float,
        give_up: Callable[[], bool] = lambda: False,
        waiting_for: str = "",
    ) -> SessionAnswer | None:
        """Ask until an answer is one to wait for, or refuses; None where nobody answers for `patience_s`.

        `give_up` is asked twenty times a second; when it says so, the last answer is returned. A wait that
        is long enough to wonder is explained by `waiting_for`, once, and by what the director warns of until then.
        """
        self._asked_s = 0.0
        last: SessionAnswer | None = None
        heard_s = time.monotonic()
        tell_s = heard_s + QUIET_S if waiting_for else math.inf
        while time.monotonic() - heard_s < patience_s and not give_up():
            if time.monotonic() > tell_s:
                say(f"waiting for {waiting_for}")
                for warning in last.warnings if last is not None else []:
                    say(f"warning: {warning}")
                tell_s = math.inf
            answer = self.ask(request, 0.05)
            if answer is not None:
                heard_s, last = time.monotonic(), answer
                if answer.state == "refused" or is_done(answer):
                    return answer
        return last if time.monotonic() - heard_s < patience_s else None

    def close(self) -> None:
        """Let go."""
        self._socket.close(linger=0)
        self._context.term()
        os.close(self._folder)


def hosts_to_sample(hosts: list[str]) -> str:
    """What the start of a session waits for; no hosts: all."""
    whom = ", ".join(hosts[:6]) + (f" and {len(hosts) - 6} more" if len(hosts) > 6 else "") if hosts else "all hosts"
    return f"{whom} to sample; after 30 s the others are measured without those that do not"


def new_request() -> str:
    """A name for a request that no other one has."""
    return secrets.token_hex(16)


def _path(folder: int) -> str:
    return (
        f"/proc/self/fd/{folder}/{SOCKET}"  # the path of a Unix socket has 107 bytes at most; those of folders do not
    )


def _endpoint(folder: int) -> str:
    return f"ipc://{_path(folder)}"


def _start(sessions: Path) -> str:
    where = "" if str(sessions) == "power-sessions" else f" --sessions {sessions}"
    return f"start one with `power-director serve{where}`"
