"""A TCP relay whose cable can be cut: silently, so that nothing arrives any more, or by resets."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST


class CutRelay:
    """Listens on a port of loopback and passes on to another one, until closed."""

    def __init__(self, port: int, target: int) -> None:
        self._target = target
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._passes = threading.Event()
        self._passes.set()
        self._resets = False
        self._server = socket.create_server(("127.0.0.1", port), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, reset: bool) -> None:
        """From now on nothing passes. With `reset` both ends are told so; without, what is sent waits for `mend`."""
        self._resets = reset
        self._passes.clear()
        if reset:
            self._drop_all()

    def mend(self) -> None:
        """All passes again."""
        self._resets = False
        self._passes.set()

    def close(self) -> None:
        """End all connections."""
        self._server.close()
        self.cut(reset=True)
        self._passes.set()

    def _drop_all(self) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                if self._resets:
                    client.close()
                else:
                    threading.Thread(target=self._open, args=(client,), daemon=True).start()

    def _open(self, client: socket.socket) -> None:
        self._passes.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:  # nobody listens there now
            client.close()
            return
        pair = (client, server)
        with self._lock:
            self._pairs.add(pair)
        for end in pair:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, sink in (pair, pair[::-1]):
            threading.Thread(target=self._pass_on, args=(source, sink, pair), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with suppress(OSError):
            while content := source.recv(1 << 16):
                self._passes.wait()
                sink.sendall(content)
        with self._lock:
            self._pairs.discard(pair)
        for end in pair:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
