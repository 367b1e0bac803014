"""The server of MLPerf's power protocol: many may connect, one session measures at a time, and none holds up another.

The protocol has no authentication: whoever reaches the port may measure, and read the sessions of this server.
"""

from __future__ import annotations

import select
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from director.mlperf.protocol.conversation import Conversation
from director.mlperf.protocol.desk import Desk
from director.mlperf.protocol.meter import MeterSource
from drivers.line_socket import Closed, LineSocket

MAX_CONNECTIONS = 16
_LOOK_S = 0.25
_ENDING_S = 30.0


class MlperfServer:
    """Listens from its making on; `serve` answers until it is asked to stop."""

    def __init__(
        self, host: str, port: int, output: Path, source: MeterSource, *, rejoin_s: float | None = None
    ) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be had.
        """
        self._desk = Desk(output, source) if rejoin_s is None else Desk(output, source, rejoin_s=rejoin_s)
        self._listener = socket.create_server((host, port), family=_family(host), backlog=MAX_CONNECTIONS)
        self._threads: list[threading.Thread] = []
        self._open: set[LineSocket] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        address = self._listener.getsockname()
        self.host, self.port = str(address[0]), int(address[1])

    def serve(self) -> None:
        """Answer until `stop`, or until a client that asked to stop the server has left."""
        try:
            while not self._stopping.is_set() and not self._desk.is_closed:
                ready, _, _ = select.select([self._listener], [], [], _LOOK_S)
                self._desk.look_after_orphan()
                if ready:
                    self._accept()
        finally:
            self._end()

    def stop(self) -> None:
        """Make `serve` end what runs, and return. May be called from a signal handler."""
        self._stopping.set()

    def _accept(self) -> None:
        try:
            connection, address = self._listener.accept()
        except OSError as error:  # gone again, or no descriptor is left
            print(f"power-director: a connection was not taken: {error}", file=sys.stderr)
            time.sleep(_LOOK_S)
            return
        lines = LineSocket(connection)
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= MAX_CONNECTIONS:
            with suppress(OSError):
                lines.send_line("Error: too many connections", 1.0)
            lines.close()
            return
        with self._lock:
            self._open.add(lines)
        thread = threading.Thread(target=self._talk, args=(lines, f"{address[0]}:{address[1]}"), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _talk(self, lines: LineSocket, peer: str) -> None:
        try:
            lines.notice_silent_death()
            Conversation(lines, peer, self._desk).run()
        except (Closed, TimeoutError, OSError):
            pass  # said by the conversation, where it matters
        finally:
            with self._lock:
                self._open.discard(lines)
            lines.close()

    def _end(self) -> None:
        self._listener.close()
        self._desk.close()
        with self._lock:
            for lines in self._open:
                lines.shut()
        deadline = time.monotonic() + _ENDING_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
