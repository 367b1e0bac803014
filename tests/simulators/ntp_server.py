"""An NTP server that is never wrong: it tells this machine's own time, on UDP port 123 of the loopback."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

_SINCE_1900_S = 2_208_988_800


class NtpServer:
    """Answers until `close`. Needs the right to bind port 123.

    Raises:
        OSError: that port cannot be had.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((host, 123))
        except OSError:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> NtpServer:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                request, peer = self._socket.recvfrom(512)
            except OSError:
                return
            if len(request) < 48:
                if not request:
                    return
                continue
            now = _stamp(time.time())
            head = struct.pack("!BBbb3I", 0x24, 1, 0, -20, 0, 0, 0x4C4F434C)
            self._socket.sendto(head + now + request[40:48] + now + _stamp(time.time()), peer)


def _stamp(at_s: float) -> bytes:
    whole = int(at_s)
    return struct.pack("!II", whole + _SINCE_1900_S, int((at_s - whole) * 2**32))
