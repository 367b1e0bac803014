"""A TCP relay that holds back what it passes on, each way by a delay of its own; the order is kept, as TCP does."""

from __future__ import annotations

import queue
import random
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """Seconds of delay of one direction: the least, and the mean of an exponential one on top."""

    least_s: float
    jitter_s: float = 0.0


class SlowRelay:
    """Listens on a port of loopback and passes on to another one, until closed."""

    def __init__(self, port: int, target: int, there: Way, back: Way) -> None:
        self._target = target
        self._there, self._back = there, back
        self._sockets: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all connections."""
        for open_socket in (self._server, *self._sockets):
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [client, server]
                self._pass_on(client, server, self._there)
                self._pass_on(server, client, self._back)

    @staticmethod
    def _pass_on(source: socket.socket, sink: socket.socket, way: Way) -> None:
        waiting: queue.Queue[tuple[float, bytes]] = queue.Queue()

        def take() -> None:
            with suppress(OSError):
                while content := source.recv(1 << 16):
                    extra_s = random.expovariate(1 / way.jitter_s) if way.jitter_s else 0.0
                    waiting.put((time.monotonic() + way.least_s + extra_s, content))

        def give() -> None:
            with suppress(OSError):
                while True:
                    due_s, content = waiting.get()
                    time.sleep(max(0.0, due_s - time.monotonic()))
                    sink.sendall(content)

        for work in (take, give):
            threading.Thread(target=work, daemon=True).start()
