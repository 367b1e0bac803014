"""Lets in those alone whose key is pinned: answers ZeroMQ's question at each CURVE handshake (ZAP, RFC 27)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import zmq

from director.fleet.rare_notices import RareNotices
from power_agent.wire.keys import Keyring

_ENDPOINT = "inproc://zeromq.zap.01"
_TELL_AGAIN_S = 60.0  # of the same key from the same place


class KeyGate:
    """A thread that answers for all sockets of one context. It gives a connection the agent's name as its user id."""

    def __init__(self, context: zmq.Context[Any], keyring: Keyring, tell: Callable[[str], None]) -> None:
        self._keyring = keyring
        self._notices = RareNotices(tell, _TELL_AGAIN_S)
        self.refused = 0
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(_ENDPOINT)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="key gate", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._stop.set()
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._socket.poll(200):
                self._socket.send_multipart(self._answer(self._socket.recv_multipart()))

    def _answer(self, parts: list[bytes]) -> list[bytes]:
        version, request, _domain, address, _identity, mechanism, *credentials = parts
        name = None
        if version == b"1.0" and mechanism == b"CURVE" and len(credentials) == 1:
            name = self._keyring.names().get(credentials[0])
        if name is not None:
            return [b"1.0", request, b"200", b"OK", name.encode(), b""]
        self.refused += 1
        key = credentials[0].hex() if credentials and len(credentials[0]) == 32 else "none"
        place = address.decode("ascii", "replace").removeprefix("::ffff:")
        self._notices.tell(
            (place, key),
            f"refused {place}: its key {key} is not known here. If it is one of your agents: "
            f"power-director keys add NAME {key}",
        )
        return [b"1.0", request, b"400", b"unknown key", b"", b""]
