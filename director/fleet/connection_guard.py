"""Ends connections that fill the director's memory.

ZeroMQ bounds a queue in messages, and each part of a message in bytes, but keeps the parts of a message until the last
one has come: a message without an end would take all memory. So what the kernel has received on each connection is
compared with what was delivered from it.
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

HELD_BYTES = 48 << 20  # 16 frames of 2 MiB in the queue, and what the kernel holds
_PART_BYTES = 100  # at most, of framing and encryption
_KEEPALIVE_BYTES_PER_S = 100.0  # ZeroMQ's own traffic on an idle connection
_LOOK_S = 0.25
_RECEIVED = struct.Struct("=128xQ")  # tcpi_bytes_received in struct tcp_info of <linux/tcp.h>, since Linux 4.1


@dataclass
class _Connection:
    delivered: int = 0
    forgiven: float = 0.0


class ConnectionGuard:
    """A thread that looks at the connections of some sockets."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
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
        before_s = time.monotonic()
        while not self._stop.wait(_LOOK_S):
            self._follow()
            now_s = time.monotonic()
            with self._lock:
                connections = list(self._connections.items())
            for descriptor, connection in connections:
                connection.forgiven += (now_s - before_s) * _KEEPALIVE_BYTES_PER_S
                self._look(descriptor, connection)
            before_s = now_s

    def _follow(self) -> None:
        """Learn which connections there are."""
        for monitor in self._monitors:
            while True:
                try:
                    event = recv_monitor_message(monitor, zmq.DONTWAIT)
                except zmq.Again:
                    break
                with self._lock:
                    if event["event"] == zmq.EVENT_ACCEPTED:
                        self._connections[int(event["value"])] = _Connection()
                    else:
                        self._connections.pop(int(event["value"]), None)

    def _look(self, descriptor: int, connection: _Connection) -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as link:
            info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512)
            if len(info) < _RECEIVED.size:
                return
            (received,) = _RECEIVED.unpack_from(info)
            if received - connection.delivered - connection.forgiven > HELD_BYTES:
                peer = link.getpeername()
                link.shutdown(socket.SHUT_RDWR)
                self.ended += 1
                self._tell(f"the connection of {peer[0]} was ended: it sent {received >> 20} MiB that are no messages")
