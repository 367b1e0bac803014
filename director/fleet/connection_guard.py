"""Ends connections that fill the director's memory.

ZeroMQ bounds a queue in messages, and each part of a message in bytes, but keeps the parts of a message until the last
one has come: a message without an end would take all memory. So what the kernel has received on each connection is
compared with what was delivered from it. Connections take memory, too, so there are no more than so many at a time.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from director.fleet.rare_notices import RareNotices

HELD_BYTES = 48 << 20  # of a connection: 16 frames of 2 MiB in the queue, and what the kernel holds
ALL_HELD_BYTES = 512 << 20  # twice what agents have credit for
MOST_CONNECTIONS = 12_000  # three of each agent
_PART_BYTES = 100  # at most, of framing and encryption
_KEEPALIVE_BYTES_PER_S = 100.0  # ZeroMQ's own traffic on an idle connection
_LOOK_S = 0.25
_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received in struct tcp_info of <linux/tcp.h>, since Linux 4.1


@dataclass(slots=True)
class _Connection:
    forgiven: float  # bytes that were received and need not be delivered
    delivered: int = 0


class ConnectionGuard:
    """A thread that looks at the connections of some sockets."""

    def __init__(
        self,
        tell: Callable[[str], None],
        most_connections: int = MOST_CONNECTIONS,
        all_held_bytes: int = ALL_HELD_BYTES,
    ) -> None:
        """`tell` hears of connections that were ended."""
        self._most_connections = most_connections
        self._all_held_bytes = all_held_bytes
        self._notices = RareNotices(tell)
        self._monitors: list[Any] = []
        self._connections: dict[int, _Connection] = {}  # by descriptor
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connection guard", daemon=True)
        self.ended = 0

    def watch(self, watched: zmq.Socket[bytes]) -> None:
        """Look at this socket's connections, too; before it is bound and before `start`."""
        self._monitors.append(
            watched.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED)
        )

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for monitor in self._monitors:
            monitor.close(linger=0)

    def delivered(self, descriptor: int, parts: int, size: int) -> None:
        """A message of so many parts and bytes came from this connection."""
        with self._lock:
            connection = self._connections.get(descriptor)
            if connection is not None:
                connection.delivered += size + parts * _PART_BYTES

    def _run(self) -> None:
        poller = zmq.Poller()
        for monitor in self._monitors:  # which hold so many events, and then stop the sockets
            poller.register(monitor, zmq.POLLIN)
        look_s = before_s = time.monotonic()
        while not self._stop.is_set():
            look_s += _LOOK_S
            while (left_s := look_s - time.monotonic()) > 0 and not self._stop.is_set():
                poller.poll(round(left_s * 1000) + 1)
                self._follow()
            now_s = time.monotonic()
            look_s = max(look_s, now_s - _LOOK_S)
            self._look(now_s - before_s)
            before_s = now_s

    def _follow(self) -> None:
        """Learn which connections there are."""
        for monitor in self._monitors:
            while True:
                try:
                    event = recv_monitor_message(monitor, zmq.DONTWAIT)
                except zmq.Again:
                    break
                descriptor = int(event["value"])
                if event["event"] == zmq.EVENT_ACCEPTED:
                    # What came before we knew of it was delivered uncounted, perhaps.
                    connection = _Connection(forgiven=_received(descriptor) or 0)
                    with self._lock:
                        self._connections[descriptor] = connection
                    if len(self._connections) > self._most_connections:
                        self._end(descriptor, f"there are {self._most_connections} already")
                else:
                    with self._lock:
                        self._connections.pop(descriptor, None)

    def _look(self, passed_s: float) -> None:
        with self._lock:
            connections = list(self._connections.items())
        held: list[tuple[float, int]] = []
        for descriptor, connection in connections:
            received = _received(descriptor)
            if received is None:
                continue
            connection.forgiven += passed_s * _KEEPALIVE_BYTES_PER_S
            held.append((received - connection.delivered - connection.forgiven, descriptor))
        held.sort()
        all_held = sum(size for size, _ in held if size > 0)
        while held and (held[-1][0] > HELD_BYTES or all_held > self._all_held_bytes):
            size, descriptor = held.pop()
            all_held -= size
            self._end(descriptor, f"it sent {int(size) >> 20} MiB that are no messages, or that nobody could take yet")

    def _end(self, descriptor: int, why: str) -> None:
        with suppress(OSError), _connection(descriptor) as link:
            peer = link.getpeername()[0]
            link.shutdown(socket.SHUT_RDWR)
            self.ended += 1
            self._notices.tell(peer, f"the connection of {peer} was ended: {why}")


def _connection(descriptor: int) -> socket.socket:
    """A copy. The connection may have ended since, and its number may be that of a file by now.

    Raises:
        OSError: it is no connection.
    """
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _received(descriptor: int) -> int | None:
    """Bytes that the kernel has received on a connection; None: it does not say."""
    with suppress(OSError), _connection(descriptor) as link:
        info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512)
        if len(info) >= _RECEIVED.size:
            return int(_RECEIVED.unpack_from(info)[0])
    return None
