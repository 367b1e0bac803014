"""The agent's three sockets, and what both ends demand of an address: CURVE everywhere but on loopback."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from power_agent.wire.frames import MAX_CLOCK_FRAME_BYTES, MAX_FRAME_BYTES
from power_agent.wire.keys import KeyPair

if TYPE_CHECKING:
    import zmq

DEFAULT_PORT = 5570
CONTROL_MESSAGES = 1000  # each way, before a sender is told to wait
BULK_MESSAGES = 16
CLOCK_MESSAGES = 4
REFUSED_S = 3.0  # until a connection that was refused is tried again


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


class AgentSockets:
    """Three sockets that connect, and connect again, by themselves. Each belongs to the one thread that uses it."""

    def __init__(self, renew_s: float, make: Callable[[int], zmq.Socket[bytes]]) -> None:
        """`make` makes the socket for the port at an offset."""
        self._renew_s = renew_s
        self._make = make
        self._connected_s: dict[int, float] = {}  # by offset
        self._refused: set[int] = set()  # offsets
        self.control, self.bulk, self.clock = (make(offset) for offset in range(3))

    def kept(self, socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
        """The socket, or one in its place where it has had no connection for long, or was refused.

        Call it a few times per second.

        ZeroMQ gives up for good whoever refused our key, sent a longer message than is allowed, or broke its protocol.
        """
        import zmq

        now_s = time.monotonic()
        offset = self._offset(socket)
        if _was_refused(socket):
            self._refused.add(offset)
            self._connected_s[offset] = now_s  # a pause, and then again: the key may have been added
        pause_s = REFUSED_S if offset in self._refused else self._renew_s
        if socket.poll(0, zmq.POLLOUT):
            self._connected_s[offset] = now_s
            self._refused.discard(offset)
        elif now_s - self._connected_s.setdefault(offset, now_s) > pause_s:
            return self.replaced(socket)
        return socket

    def replaced(self, socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
        """A socket in place of this one, which is closed."""
        offset = self._offset(socket)
        socket.disable_monitor()
        socket.close(linger=0)
        self._refused.discard(offset)
        made = self._make(offset)
        if offset == 0:
            self.control = made
        elif offset == 1:
            self.bulk = made
        else:
            self.clock = made
        self._connected_s[offset] = time.monotonic()
        return made

    def close(self) -> None:
        """Close all; what was not sent is dropped."""
        for socket in (self.control, self.bulk, self.clock):
            socket.disable_monitor()
            socket.close(linger=0)

    def _offset(self, socket: zmq.Socket[bytes]) -> int:
        return (self.control, self.bulk, self.clock).index(socket)


def receive(socket: zmq.Socket[bytes]) -> bytes | None:
    """The frame of the next message; None where it has several parts, after which the socket must be `replaced`.

    Were it read on, and the connection ended before its last part, libzmq 4.3 would abort the whole process.

    Raises:
        zmq.Again: there is none.
    """
    import zmq

    frame = socket.recv(zmq.DONTWAIT)
    return None if socket.getsockopt(zmq.RCVMORE) else frame


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
    messages = (CONTROL_MESSAGES, BULK_MESSAGES, CLOCK_MESSAGES)

    def make(offset: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        limit(socket, messages[offset], MAX_CLOCK_FRAME_BYTES if offset == 2 else MAX_FRAME_BYTES)
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

    return AgentSockets(renew_s, make)


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
