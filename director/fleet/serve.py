"""`power-director serve`: the sockets, the store and the sessions of a fleet, from the start to SIGTERM."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import zmq

from director.fleet.clock_sync import ClockSync
from director.fleet.finishing import Work, find_ranges, finish
from director.fleet.fleet_session import Bounds, Presence
from director.fleet.inbox import Inbox
from director.fleet.kept_session import Surroundings
from director.fleet.listener import AgentLink, Listener
from director.fleet.local_socket import LocalListener
from director.fleet.rare_notices import RareNotices
from director.fleet.session_folder import LOCAL
from director.fleet.session_keeper import SessionKeeper
from director.fleet.store import FleetStore
from director.session.files import hold
from power_agent.clock import Wake
from power_agent.host_facts import boot_id
from power_agent.wire.keys import KeyPair, Keyring
from power_agent.wire.messages import FromAgent, FromDirector, Heartbeat
from power_agent.wire.sockets import Address

_TURN_MS: Final = 100
_TRIM_S: Final = 10.0


@dataclass(frozen=True)
class ServeOptions:
    """What the user asks of `power-director serve`."""

    address: Address
    sessions: Path
    own: KeyPair | None
    keyring: Keyring | None
    bounds: Bounds
    finish: Callable[[Path], Work] = finish  # starts what computes a session's results


class Server:
    """Serves from `run` until `stop`, or a signal that asks to end."""

    def __init__(self, options: ServeOptions, tell: Callable[[str], None]) -> None:
        """Bind all sockets, and take up the sessions that an earlier director left.

        Raises:
            AddressProblem: the address cannot be listened on.
            OSError: the sessions' directory cannot be written.
        """
        self._tell = tell
        self._bounds = options.bounds
        self._inbox = Inbox()
        self._whole: deque[tuple[str, str]] = deque()
        self._notices = RareNotices(tell)
        self._wake = Wake()
        self._stopping = False
        self._trimmed_s = time.monotonic()
        self._context: zmq.Context[Any] = zmq.Context()
        self._local = LocalListener(self._context, options.sessions)
        self._store = FleetStore(tell, self._hear_whole)
        self._clocks = ClockSync(boot_id(), tell)
        self._listener: Listener | None = None
        try:
            around = Surroundings(
                store=self._store,
                send=self._send,
                tell=tell,
                bounds=options.bounds,
                clocks=self._clocks,
                finish=options.finish,
                find_ranges=find_ranges,
                connected=self._connected,
                enrolled=lambda: options.keyring.names().values() if options.keyring is not None else None,
            )
            self._listener = Listener(
                options.address,
                self._store,
                own=options.own,
                keyring=options.keyring,
                on_control=self._hear,
                on_exchange=self._clocks.on_exchange,
                tell=tell,
            )
            self._keeper = SessionKeeper(options.sessions, around)
        except BaseException:
            self._local.close()
            if self._listener is not None:
                self._listener.close()
            self._context.destroy(linger=0)
            raise

    def run(self) -> None:
        """Serve."""
        assert self._listener is not None
        self._clocks.start()
        self._listener.start()
        poller = zmq.Poller()
        poller.register(self._local.socket, zmq.POLLIN)
        poller.register(self._wake.fd, zmq.POLLIN)
        try:
            while not self._stopping:
                poller.poll(_TURN_MS)
                self._wake.clear()
                self._turn()
        finally:
            self._listener.close()
            self._clocks.close()
            self._keeper.close()
            self._store.close()
            self._local.close()
            self._context.destroy(linger=0)

    def stop(self) -> None:
        """End soon; any thread and signal handler may call this."""
        self._stopping = True
        self._wake.set()

    def _turn(self) -> None:
        assert self._listener is not None
        while self._whole:
            session, host = self._whole.popleft()
            with self._told_mistakes(f"the end of {host} in {session}"):
                self._keeper.handed_over(session, host)
        while (came := self._inbox.take()) is not None:
            host, heard = came
            with self._told_mistakes(f"a {type(heard).__name__} of {host}"):
                self._keeper.hear(host, heard)
        for route, request in self._local.receive():
            with self._told_mistakes(f"a request to {request.want} a session"):
                self._keeper.ask(LOCAL, route, request, partial(self._local.answer, route))
        now_s = time.monotonic()
        present = {}
        for host, link in self._listener.agents().items():
            silent = self._is_silent(link, now_s)
            present[host] = Presence(link.hello.agent, link.hello.boot_id, silent, link.hello.system)
            for problem in link.heartbeat.problems if link.heartbeat is not None else ():
                self._notices.tell((host, problem), f"{host}: {problem}")
        with self._told_mistakes("what is due"):
            self._keeper.turn(present)
        if now_s - self._trimmed_s >= _TRIM_S:
            self._trimmed_s = now_s
            _give_back_memory()

    @contextmanager
    def _told_mistakes(self, what: str) -> Iterator[None]:
        """One message must not end the service for all."""
        try:
            yield
        except Exception as error:
            text = f"{what} could not be handled: {type(error).__name__}: {error}"
            self._notices.tell(text, text)

    def _send(self, host: str, message: FromDirector) -> None:
        if self._listener is not None:
            self._listener.send(host, message)

    def _connected(self) -> list[str]:
        agents = self._listener.agents() if self._listener is not None else {}
        now_s = time.monotonic()
        return [host for host, link in agents.items() if not self._is_silent(link, now_s)]

    def _is_silent(self, link: AgentLink, now_s: float) -> bool:
        return now_s - link.heard_s > self._bounds.away_s

    def _hear(self, host: str, message: FromAgent) -> list[FromDirector]:
        """In the control thread: leave it to the keeper, which may have to wait for the disk."""
        if isinstance(message, Heartbeat):
            self._clocks.on_heartbeat(host, message)
        elif self._inbox.put(host, message):
            self._wake.set()
        else:
            self._notices.tell(
                host, f"{host} says more than can be taken: some of it is dropped until it says it again"
            )
        return []

    def _hear_whole(self, session: str, host: str) -> None:
        self._whole.append((session, host))
        self._wake.set()


def _give_back_memory() -> None:
    """What many messages at once have taken, and is free now: by itself the C library keeps most of it for ever."""
    with suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)


def serve(options: ServeOptions, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        AddressProblem: the address cannot be listened on.
        SessionError: another director serves these sessions.
        OSError: the sessions' directory cannot be written.
    """
    options.sessions.mkdir(parents=True, exist_ok=True)
    if not os.access(options.sessions, os.W_OK):
        raise PermissionError(13, "Permission denied", str(options.sessions))
    with hold(options.sessions):
        server = Server(options, tell)

        def end(_number: int, _frame: FrameType | None) -> None:
            server.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        keys = "with keys" if options.own is not None else "without keys: from this machine alone"
        tell(f"listening on {options.address} and the two ports after it, {keys}; sessions in {options.sessions}")
        server.run()
        tell("ended; sessions that were running go on at the next start")
