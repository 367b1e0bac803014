"""The agent's three sockets, and what both ends demand of an address: CURVE everywhere but on loopback."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from power_agent.wire.frames import (
    MAX_CLOCK_FRAME_BYTES,
    MAX_FRAME_BYTES,
    BadFrame,
    FrameDecoder,
    bulk_from_director,
    clock_from_director,
    encode,
    from_director,
)
from power_agent.wire.keys import KeyPair
from power_agent.wire.messages import BulkFromDirector, ClockAnswer, FromDirector

if TYPE_CHECKING:
    import zmq

DEFAULT_PORT = 5570
CONTROL_MESSAGES = 1000  # each way, before a sender is told to wait
BULK_MESSAGES = 16
CLOCK_MESSAGES = 4
REFUSED_S = 3.0  # until a connection that was refused is tried again

M = TypeVar("M")


class AddressProblem(Exception):
    """An address cannot be used: why, and what to do."""


@dataclass(frozen=True)
class Address:
    """Where a director listens: control at `port`, bulk at the next one, clock at the one after."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read HOST, HOST:PORT or tcp://HOST:PORT; an IPv6 address stands in brackets.

        Raises:
            AddressProblem: it is none of these.
        """
        found = re.fullmatch(r"(?:tcp://)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?", text)
        port = int(found[2] or DEFAULT_PORT) if found else 0
        if not found or not 1 <= port <= 65533:
            raise AddressProblem(f"{text!r} is no address of a director: HOST:PORT, such as 10.0.0.5:{DEFAULT_PORT}")
        return cls(found[1].strip("[]"), port)

    def endpoint(self, offset: int) -> str:
        """What ZeroMQ calls the port at `offset` from the first."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port + offset}"

    @property
    def is_loopback(self) -> bool:
        """Whether nothing from another machine can come there, whatever a name server says."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return self.endpoint(0)


class AgentSocket(Generic[M]):
    """One of an agent's sockets, for one thread alone. It connects, and connects again, by itself.

    ZeroMQ gives up for good whoever refused our key, sent a longer message than is allowed, or broke its protocol: then
    `keep` makes another socket.
    """

    def __init__(self, make: Callable[[], zmq.Socket[bytes]], decoder: FrameDecoder[M], renew_s: float) -> None:
        """`make` makes a socket; it is renewed when it had no connection for `renew_s`."""
        self._make = make
        self._decoder = decoder
        self._renew_s = renew_s
        self._refused = False
        self._connected_s = time.monotonic()
        self.raw = make()
        self.renewals = 0
        self.bad_frames = 0

    @property
    def is_connected(self) -> bool:
        """Whether it takes a message now."""
        import zmq

        return bool(self.raw.poll(0, zmq.POLLOUT))

    def wait(self, timeout_ms: int) -> bool:
        """Wait until something comes; whether it has."""
        return bool(self.raw.poll(timeout_ms))

    def keep(self) -> None:
        """Renew the socket where it had no connection for long, or was refused. Call it a few times per second."""
        now_s = time.monotonic()
        if _was_refused(self.raw):
            self._refused = True
            self._connected_s = now_s  # a pause, and then again: the key may have been added
        if self.is_connected:
            self._connected_s = now_s
            self._refused = False
        elif now_s - self._connected_s > (REFUSED_S if self._refused else self._renew_s):
            self._renew()

    def send(self, message: msgspec.Struct) -> bool:
        """Send now; False where it takes none now.

        Raises:
            ValueError: the message is too long for anybody to take.
        """
        import zmq

        try:
            self.raw.send(encode(message), zmq.DONTWAIT)
            return True
        except zmq.Again:
            return False

    def received(self, most: int) -> Iterator[M]:
        """The messages that are here, `most` at most; what is none is dropped and counted."""
        import zmq

        for _ in range(most):
            try:
                frame = self.raw.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            if self.raw.getsockopt(zmq.RCVMORE):
                # None of ours. Were it read on, and the connection ended before its last part, libzmq 4.3 would abort
                # the whole process.
                self.bad_frames += 1
                self._renew()
                return
            try:
                yield self._decoder.decode(frame)
            except BadFrame:
                self.bad_frames += 1

    def close(self) -> None:
        """Close it; what was not sent is dropped."""
        self.raw.disable_monitor()
        self.raw.close(linger=0)

    def _renew(self) -> None:
        self.close()
        self.raw = self._make()
        self._refused = False
        self._connected_s = time.monotonic()
        self.renewals += 1


@dataclass(frozen=True)
class AgentSockets:
    """The three of an agent."""

    control: AgentSocket[FromDirector]
    bulk: AgentSocket[BulkFromDirector]
    clock: AgentSocket[ClockAnswer]

    def close(self) -> None:
        """Close all."""
        for socket in (self.control, self.bulk, self.clock):
            socket.close()


def _was_refused(socket: zmq.Socket[bytes]) -> bool:
    """Whether a handshake has failed since the last call."""
    import zmq

    monitor, found = socket.get_monitor_socket(), False
    try:
        while True:
            monitor.recv_multipart(zmq.DONTWAIT)
            found = True
    except zmq.Again:
        return found


def connect(
    context: zmq.Context[Any],
    address: Address,
    own: KeyPair | None,
    director_public: bytes | None,
    *,
    renew_s: float = 15.0,  # longer than a handshake with a director that is busy
) -> AgentSockets:
    """The agent's sockets; none waits for the director.

    Raises:
        AddressProblem: the director is not on this machine, and a key is missing.
    """
    import zmq

    if not address.is_loopback and (own is None or director_public is None):
        raise AddressProblem(
            f"{address} is not on this machine, and without keys anybody on the way could read and change what is "
            "sent: power-agent enroll --director HOST:PORT --key KEY"
        )

    def make(offset: int, messages: int, frame_bytes: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        limit(socket, messages, frame_bytes)
        socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a connection that is not there
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
        if own is not None and director_public is not None:
            from zmq.utils import z85

            socket.curve_publickey = z85.encode(own.public)
            socket.curve_secretkey = z85.encode(own.secret)
            socket.curve_serverkey = z85.encode(director_public)
        socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        socket.connect(address.endpoint(offset))
        return socket

    return AgentSockets(
        control=AgentSocket(partial(make, 0, CONTROL_MESSAGES, MAX_FRAME_BYTES), from_director, renew_s),
        bulk=AgentSocket(partial(make, 1, BULK_MESSAGES, MAX_FRAME_BYTES), bulk_from_director, renew_s),
        clock=AgentSocket(partial(make, 2, CLOCK_MESSAGES, MAX_CLOCK_FRAME_BYTES), clock_from_director, renew_s),
    )


def limit(socket: zmq.Socket[bytes], messages: int, frame_bytes: int) -> None:
    """Bound what a socket holds and takes, and let it notice a peer that is gone: the kernel does so after 15 s.

    Not ZeroMQ's own heartbeats: where a peer goes while its messages wait here, the next one aborts the process.
    """
    import zmq

    for option, value in (
        (zmq.SNDHWM, messages),
        (zmq.RCVHWM, messages),
        (zmq.MAXMSGSIZE, frame_bytes),
        (zmq.LINGER, 0),
        (zmq.IPV6, 1),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.TCP_KEEPALIVE_IDLE, 5),
        (zmq.TCP_KEEPALIVE_INTVL, 5),
        (zmq.TCP_KEEPALIVE_CNT, 2),
        (zmq.TCP_MAXRT, 15000),
        (zmq.HANDSHAKE_IVL, 10000),
    ):
        socket.setsockopt(option, value)
