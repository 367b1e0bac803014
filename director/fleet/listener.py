"""The director's three sockets, a thread for each, so that none can block another: control, bulk and clock.

Whoever sends what is no message, too much, or in another's name is counted and dropped; the others are served.
"""

from __future__ import annotations

import resource
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zmq

from director.fleet.connection_guard import ConnectionGuard
from director.fleet.key_gate import KeyGate
from director.fleet.peer_limits import PeerLimits
from director.fleet.rare_notices import RareNotices
from director.fleet.store import FleetStore
from power_agent.wire import frames
from power_agent.wire.frames import BadFrame, FrameDecoder, encode
from power_agent.wire.keys import KeyPair, Keyring
from power_agent.wire.messages import (
    PROTOCOL_VERSION,
    ClockAnswer,
    ClockAsk,
    ClockExchange,
    Credit,
    FromAgent,
    FromDirector,
    Heartbeat,
    Hello,
    Refused,
    StreamsDeclared,
    Welcome,
)
from power_agent.wire.sockets import BULK_MESSAGES, CLOCK_MESSAGES, Address, AddressProblem, limit

SILENT_AFTER_BEATS = 5
HEARTBEAT_S = 1.0
GROUP_BYTES = 8 << 20  # collected at most before they are made durable
GROUP_MESSAGES = 4000
CREDIT_BYTES = 256 << 20  # of all agents together
MIN_CREDIT_BYTES, MAX_CREDIT_BYTES = 64 << 10, 4 << 20
_TURN_MS = 100
_CREDIT_HELD_S = 60.0
_MOST_HOSTS = 20_000
_CONTROL_MESSAGES = 64  # each way and connection: each may pin a buffer of 18 kB, and an answer may have 300 kB


class _Incoming(NamedTuple):
    route: bytes  # the connection
    size: int  # bytes
    message: Any  # None: it was dropped


@dataclass
class AgentLink:
    """An agent as its control connection shows it."""

    hello: Hello
    route: bytes
    heard_s: float  # time.monotonic() of its last message
    heartbeat: Heartbeat | None = None

    def is_silent(self, now_s: float) -> bool:
        """Whether it should have been heard by now."""
        return now_s - self.heard_s > SILENT_AFTER_BEATS * HEARTBEAT_S


class Listener:
    """Serves from `start` to `close`. `on_control` and `on_exchange` are called in its threads and must not wait."""

    def __init__(
        self,
        address: Address,
        store: FleetStore,
        *,
        own: KeyPair | None,
        keyring: Keyring | None,
        on_control: Callable[[str, FromAgent], Sequence[FromDirector]],
        on_exchange: Callable[[str, ClockExchange], None],
        tell: Callable[[str], None],
    ) -> None:
        """Bind the ports.

        Args:
            address: the first of three ports.
            store: takes what comes on the bulk socket.
            own: this director's keys; None on loopback alone.
            keyring: the agents that are let in, with `own`.
            on_control: (host, message) → answers to it; Hello has been welcomed, heartbeats have been answered.
            on_exchange: (host, exchange) of the clocks.
            tell: hears what a person should know.

        Raises:
            AddressProblem: a port is taken, or without keys the address is not on this machine.
        """
        if not address.is_loopback and (own is None or keyring is None):
            raise AddressProblem(
                f"{address} can be reached from other machines, and without keys anybody could send readings or read "
                "them: power-director keys init; or listen on 127.0.0.1"
            )
        self._store = store
        self._keyring = keyring if own is not None else None
        self._on_control = on_control
        self._on_exchange = on_exchange
        self._tell = tell
        self._director = secrets.token_hex(8)
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        self._lock = threading.Lock()
        self._links: dict[str, AgentLink] = {}
        self._outbox: deque[tuple[str, FromDirector]] = deque(maxlen=100_000)
        self._credits: dict[bytes, tuple[int, float]] = {}  # by connection: as told last, and when it last sent
        self._notices = RareNotices(tell)
        self.bad_frames = 0
        self._stop = threading.Event()
        self._context: zmq.Context[Any] = zmq.Context()
        _allow_many_files()
        self._guard = ConnectionGuard(tell)
        self._gate = KeyGate(self._context, self._keyring, tell) if self._keyring is not None else None
        try:
            self._control = self._bind(address, 0, own, _CONTROL_MESSAGES, frames.MAX_FRAME_BYTES)
            self._bulk = self._bind(address, 1, own, BULK_MESSAGES, frames.MAX_FRAME_BYTES)
            self._clock = self._bind(address, 2, own, CLOCK_MESSAGES, frames.MAX_CLOCK_FRAME_BYTES)
        except BaseException:
            self._guard.close()
            if self._gate is not None:
                self._gate.close()
            self._context.destroy(linger=0)
            raise
        works = (("control", self._serve_control), ("bulk", self._serve_bulk), ("clock", self._serve_clock))
        self._threads = [
            threading.Thread(target=self._go_on, args=(work,), name=name, daemon=True) for name, work in works
        ]

    def start(self) -> None:
        """Begin to serve."""
        self._guard.start()
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop serving; what was collected and not acknowledged comes again from the agents."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self._guard.close()
        if self._gate is not None:
            self._gate.close()
        self._context.destroy(linger=0)

    @property
    def ended_connections(self) -> int:
        """How many connections were ended because they filled the memory."""
        return self._guard.ended

    def send(self, host: str, message: FromDirector) -> bool:
        """Send on the host's control connection, soon; False where it has none. Any thread may call this."""
        with self._lock:
            if host not in self._links:
                return False
        self._outbox.append((host, message))
        return True

    def agents(self) -> dict[str, AgentLink]:
        """All agents that said Hello since the director's start, by host."""
        with self._lock:
            return dict(self._links)

    def _bind(
        self, address: Address, offset: int, own: KeyPair | None, messages: int, frame_bytes: int
    ) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        limit(socket, messages, frame_bytes)
        self._guard.watch(socket)
        socket.setsockopt(zmq.BACKLOG, 1024)
        if own is not None:
            from zmq.utils import z85

            socket.curve_secretkey = z85.encode(own.secret)
            socket.curve_publickey = z85.encode(own.public)
            socket.curve_server = True
            socket.zap_domain = b"director"
        try:
            socket.bind(address.endpoint(offset))
        except zmq.ZMQError as error:
            text = f"cannot listen on {address.endpoint(offset)}: {error.strerror}; three ports in a row are needed"
            raise AddressProblem(text) from error
        return socket

    def _receive(self, socket: zmq.Socket[bytes], decoder: FrameDecoder[Any], limits: PeerLimits) -> _Incoming:
        """The next message.

        Raises:
            zmq.Again: there is none.
        """
        route, *parts = socket.recv_multipart(zmq.DONTWAIT, copy=False)
        size = sum(len(part) for part in parts)
        if parts:
            with suppress(zmq.ZMQError):  # a peer that was gone before it was looked at has no descriptor
                self._guard.delivered(int(parts[-1].get(zmq.SRCFD)), len(parts), size)
        user = self._user(parts)
        peer = user.encode() if user else route.bytes
        now_s = time.monotonic()
        message = None
        if limits.allows(peer, now_s):
            try:
                message = self._decoded(decoder, parts, user)
            except BadFrame as error:
                self.bad_frames += 1
                if limits.note_bad(peer, now_s):
                    text = f"{user or 'a peer'} sends what is no message of ours, and is muted: {error}"
                    self._notices.tell(("muted", peer), text)
        return _Incoming(route.bytes, size, message)

    def _decoded(self, decoder: FrameDecoder[Any], parts: Sequence[zmq.Frame], user: str) -> Any:
        message = decoder.decode_parts([part.buffer for part in parts])
        host = getattr(message, "host", user)
        if self._keyring is not None and (user not in self._keyring.names().values() or host != user):
            raise BadFrame(f"the key of {user or 'nobody'} does not speak for {host}")
        return message

    def _user(self, parts: Sequence[zmq.Frame]) -> str:
        if self._keyring is None or not parts:
            return ""
        try:
            return str(parts[-1].get("User-Id"))
        except zmq.ZMQError:
            return ""

    def _go_on(self, work: Callable[[], None]) -> None:
        """No mistake may end the service for all."""
        while not self._stop.is_set():
            try:
                work()
            except Exception as error:
                text = f"a mistake of this program: {type(error).__name__}: {error}"
                self._notices.tell(text, text)
                self._stop.wait(0.1)

    def _serve_control(self) -> None:
        limits = PeerLimits(per_s=200, burst=1000)
        hosts: dict[bytes, str] = {}  # by connection, the last one of each
        while not self._stop.is_set():
            self._control.poll(20)
            for _ in range(GROUP_MESSAGES):
                try:
                    incoming = self._receive(self._control, frames.from_agent, limits)
                except zmq.Again:
                    break
                if incoming.message is not None:
                    for answer in self._answer(incoming.route, incoming.message, hosts):
                        self._post(self._control, incoming.route, answer)
            while self._outbox:
                host, outgoing = self._outbox.popleft()
                link = self._links.get(host)
                if link is not None:
                    self._post(self._control, link.route, outgoing)

    def _answer(self, route: bytes, message: FromAgent, hosts: dict[bytes, str]) -> list[FromDirector]:
        now_s = time.monotonic()
        if isinstance(message, Hello):
            if message.host not in self._links and len(self._links) >= _MOST_HOSTS:
                self._forget_silent(hosts, now_s)
            reason = self._why_refused(message, now_s)
            if reason:
                self._notices.tell((message.host, reason), f"{message.host} was refused: {reason}")
                return [Refused(reason=reason)]
            known = msgspec.structs.replace(message, recording=[], unsent=[])  # which may be long, and are used once
            with self._lock:
                before = self._links.get(message.host)
                self._links[message.host] = AgentLink(known, route, now_s)
            if before is not None:
                hosts.pop(before.route, None)
            hosts[route] = message.host
            welcome = Welcome(director=self._director, boot_id=self._boot_id, heartbeat_s=HEARTBEAT_S)
            return [welcome, *self._handle(message.host, message)]
        host = hosts.get(route)
        link = self._links.get(host) if host is not None else None
        if host is None or link is None or link.route != route:
            return [Refused(reason="this director does not know this connection: say Hello first")]
        link.heard_s = now_s
        answers: list[FromDirector] = []
        if isinstance(message, Heartbeat):
            link.heartbeat = message
            answers.append(Heartbeat(t_ns=time.monotonic_ns()))
        return [*answers, *self._handle(host, message)]

    def _forget_silent(self, hosts: dict[bytes, str], now_s: float) -> None:
        with self._lock:
            for host in [host for host, link in self._links.items() if link.is_silent(now_s)]:
                hosts.pop(self._links.pop(host).route, None)

    def _handle(self, host: str, message: FromAgent) -> Sequence[FromDirector]:
        try:
            return self._on_control(host, message)
        except Exception as error:  # one agent's message must not end the service for all
            self._tell(f"a {type(message).__name__} of {host} could not be handled: {type(error).__name__}: {error}")
            return []

    def _why_refused(self, hello: Hello, now_s: float) -> str:
        if hello.protocol != PROTOCOL_VERSION:
            return (
                f"the agent speaks version {hello.protocol} of the protocol, this director version {PROTOCOL_VERSION}: "
                "install the same ml-power-agent on both"
            )
        link = self._links.get(hello.host)
        if link is None and len(self._links) >= _MOST_HOSTS:
            return f"there are {_MOST_HOSTS} agents already"
        if link is not None and link.hello.boot_id != hello.boot_id and not link.is_silent(now_s):
            return f"another machine is here under the name {hello.host}: start one of them with --host NAME"
        return ""

    def _serve_bulk(self) -> None:
        limits = PeerLimits(per_s=2000, burst=4000)
        while not self._stop.is_set():
            self._bulk.poll(_TURN_MS)
            collected = 0
            for _ in range(GROUP_MESSAGES):
                try:
                    route, size, message = self._receive(self._bulk, frames.bulk_from_agent, limits)
                except zmq.Again:
                    break
                if message is None:
                    continue
                refusal = self._store.take(route, message)
                if refusal is not None:
                    self._post(self._bulk, route, refusal)
                elif isinstance(message, StreamsDeclared):
                    self._grant(route, anew=True)
                collected += size
                if collected >= GROUP_BYTES:
                    break
            for route, reply in self._store.commit():
                self._post(self._bulk, route, reply)
                self._grant(route, anew=False)

    def _grant(self, route: bytes, *, anew: bool) -> None:
        """Tell a connection its share of what may be on its way, where it has changed."""
        now_s = time.monotonic()
        if anew:  # connections that are gone need no share
            self._credits = {key: held for key, held in self._credits.items() if now_s - held[1] < _CREDIT_HELD_S}
        told, _ = self._credits.get(route, (0, now_s))
        share = CREDIT_BYTES // max(1, len(self._credits))
        credit = min(MAX_CREDIT_BYTES, max(MIN_CREDIT_BYTES, 1 << (share.bit_length() - 1)))
        self._credits[route] = credit, now_s
        if anew or credit != told:
            self._post(self._bulk, route, Credit(bytes=credit))

    def _serve_clock(self) -> None:
        limits = PeerLimits(per_s=200, burst=400)
        while not self._stop.is_set():
            if not self._clock.poll(_TURN_MS):
                continue
            t2_ns = time.monotonic_ns()  # of the message that poll saw: a ROUTER has fetched it, and gives no other one
            try:
                route, _, message = self._receive(self._clock, frames.clock_from_agent, limits)
            except zmq.Again:
                continue
            if isinstance(message, ClockAsk):
                answer = ClockAnswer(number=message.number, t1_ns=message.t1_ns, t2_ns=t2_ns, t3_ns=time.monotonic_ns())
                self._post(self._clock, route, answer)
                if message.last is not None:
                    self._on_exchange(message.host, message.last)

    def _post(self, socket: zmq.Socket[bytes], route: bytes, message: msgspec.Struct) -> None:
        """Send, or drop where the peer takes nothing: what matters is asked for again."""
        try:
            socket.send_multipart([route, encode(message)], zmq.DONTWAIT)
        except (zmq.Again, ValueError):
            self.bad_frames += 1
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise


def _allow_many_files() -> None:
    """Each agent takes up to seven descriptors; by default a process may have about a thousand."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
