"""What agents say waits here for the thread that keeps the sessions, which may have to wait for the disk.

It is bounded in bytes, and each host has a part of its own, so that one that says too much takes nothing from others.
"""

from __future__ import annotations

import threading
from collections import deque

import msgspec

from power_agent.wire.messages import FromAgent

MOST_BYTES = 64 << 20
MOST_BYTES_OF_A_HOST = 4 << 20  # two of the longest messages


class Inbox:
    """Any thread may call this."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[str, FromAgent, int]] = deque()
        self._bytes: dict[str, int] = {}  # by host
        self._all_bytes = 0
        self.dropped = 0

    def put(self, host: str, message: FromAgent) -> bool:
        """Add a message; False where it finds no place."""
        size = len(msgspec.msgpack.encode(message))
        with self._lock:
            of_host = self._bytes.get(host, 0) + size
            if of_host > MOST_BYTES_OF_A_HOST or self._all_bytes + size > MOST_BYTES:
                self.dropped += 1
                return False
            self._bytes[host] = of_host
            self._all_bytes += size
            self._waiting.append((host, message, size))
            return True

    def take(self) -> tuple[str, FromAgent] | None:
        """The message that has waited longest, and whose it is."""
        with self._lock:
            if not self._waiting:
                return None
            host, message, size = self._waiting.popleft()
            self._all_bytes -= size
            self._bytes[host] -= size
            if not self._bytes[host]:
                del self._bytes[host]
            return host, message
