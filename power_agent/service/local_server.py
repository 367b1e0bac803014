"""The Unix socket through which users of this host ask its agent for sessions."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from power_agent.service.local_messages import AgentHere, FromRunner, LocalGone, LocalLink, from_runner
from power_agent.wire.messages import SessionAnswer

MOST_CONNECTIONS: Final = 64
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of the kernel's SO_PEERCRED


@dataclass(frozen=True, eq=False)
class Runner:
    """A connected process, as the kernel describes it."""

    link: LocalLink[FromRunner]
    pid: int
    uid: int

    def answer(self, message: SessionAnswer) -> None:
        """Tell it; where it is gone, nothing is lost that it could use."""
        try:
            self.link.send(message)
        except LocalGone:
            self.link.hang_up()  # what was sent in part would be misread


class LocalServer:
    """Serves from its making to `close`, a thread for each connection."""

    def __init__(
        self,
        path: Path,
        here: AgentHere,
        *,
        on_message: Callable[[Runner, FromRunner], None],
        on_gone: Callable[[Runner], None],
    ) -> None:
        """Listen. `on_message` and `on_gone` are called in the connections' threads.

        Raises:
            OSError: the path cannot be used.
        """
        self._here = here
        self._on_message = on_message
        self._on_gone = on_gone
        self._lock = threading.Lock()
        self._runners: set[Runner] = set()
        self._closed = False
        path.unlink(missing_ok=True)  # of an agent that was killed: the folder is held by one agent alone
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.bind(str(path))
            path.chmod(0o666)
            self._socket.listen(16)
        except OSError:
            self._socket.close()
            raise
        threading.Thread(target=self._accept, name="local", daemon=True).start()

    def close(self) -> None:
        """Hang up on all."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            for runner in self._runners:
                runner.link.hang_up()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                time.sleep(0.1)  # no descriptors are left: they come back
                continue
            with self._lock:
                full = len(self._runners) >= MOST_CONNECTIONS
            if full:
                connection.close()
                continue
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(credentials)
            runner = Runner(LocalLink(connection, from_runner), pid, uid)
            with self._lock:
                self._runners.add(runner)
            threading.Thread(target=self._serve, args=(runner,), name="runner", daemon=True).start()

    def _serve(self, runner: Runner) -> None:
        try:
            runner.link.send(self._here)
            while (message := runner.link.receive(None)) is not None:
                self._on_message(runner, message)
        except LocalGone:
            pass
        finally:
            with self._lock:
                self._runners.discard(runner)
            self._on_gone(runner)
            runner.link.close()


def may_speak_for(runner: Runner, uid: int) -> bool:
    """Whether a process may ask about what a user began."""
    return runner.uid in (0, uid, os.geteuid())
