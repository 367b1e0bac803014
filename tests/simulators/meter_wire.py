"""Puts a simulated meter on a real pty or socket, with all that goes wrong on a line."""

from __future__ import annotations

import os
import random
import select
import socket
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from raw_pty import raw_pty

_BAUDS = {getattr(termios, f"B{rate}"): rate for rate in (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)}


class Meter(Protocol):
    """What answers lines."""

    def handle(self, line: str) -> str | None:
        """The answer to a line; None: it has none."""


@dataclass
class Faults:
    """What the line does to answers. Probabilities are of each answer."""

    seed: int = 0
    terminator: bytes = b"\n"
    echo: bool = False
    latency_s: float = 0.0
    fragments: bool = False  # a few bytes at a time
    garbage: float = 0.0  # bytes before the answer
    mutation: float = 0.0  # one byte of it is another
    loss: float = 0.0  # no answer
    truncation: float = 0.0  # its end is missing
    doubled: float = 0.0  # it comes twice
    mute: bool = False
    answers: int = 0
    spoiled: int = 0
    random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self.random.seed(self.seed)

    def spoil(self, answer: bytes) -> bytes:
        """What of an answer arrives."""
        self.answers += 1
        roll = self.random.random
        whole = answer + self.terminator
        before = whole
        if roll() < self.loss:
            whole = b""
        elif roll() < self.truncation:
            whole = whole[: self.random.randrange(len(whole))]
        if whole and roll() < self.mutation:
            place = self.random.randrange(len(whole))
            whole = whole[:place] + bytes([self.random.randrange(256)]) + whole[place + 1 :]
        if roll() < self.garbage:
            whole = self.random.randbytes(self.random.randrange(1, 9)) + whole
        if roll() < self.doubled:
            whole += before
        self.spoiled += whole != before
        return whole


class MeterLine:
    """Serves a meter until closed. `on_exchange` is told how many bytes each exchange took."""

    def __init__(
        self, meter: Meter, faults: Faults | None = None, on_exchange: Callable[[int], None] | None = None
    ) -> None:
        self.meter = meter
        self.faults = faults if faults is not None else Faults()
        self.heard: list[str] = []
        self._on_exchange = on_exchange
        self._closing = False

    def _serve(self, receive: Callable[[], bytes], send: Callable[[bytes], None]) -> None:
        pending = b""
        unasked = getattr(self.meter, "unasked", list)  # what it sends by itself
        while True:
            for answer in unasked():
                if not self.faults.mute:
                    send(self.faults.spoil(answer.encode("latin-1")))
            received = receive()
            if not received:
                if self._closing:  # what came before is still obeyed
                    return
                continue
            pending += received
            *lines, pending = pending.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            for line in filter(None, lines):
                self._answer(line, send)

    def _answer(self, line: bytes, send: Callable[[bytes], None]) -> None:
        text = line.decode("latin-1")
        self.heard.append(text)
        answer = self.meter.handle(text)
        if self._on_exchange is not None:
            self._on_exchange(len(line) + len(answer or "") + 2)
        if self.faults.mute:
            return
        if self.faults.echo:
            send(line + self.faults.terminator)
        if answer is None:
            return
        if self.faults.latency_s:
            time.sleep(self.faults.latency_s)
        arriving = self.faults.spoil(answer.encode("latin-1"))
        while arriving:
            size = self.faults.random.randrange(1, 6) if self.faults.fragments else len(arriving)
            send(arriving[:size])
            arriving = arriving[size:]
            if self.faults.fragments:
                time.sleep(0.0005)


class PtyMeter(MeterLine):
    """Behind a pty at `path`, as a link that stays while the line is unplugged and plugged in again."""

    def __init__(
        self,
        meter: Meter,
        path: Path,
        faults: Faults | None = None,
        on_exchange: Callable[[int], None] | None = None,
        baud: int = 9600,
    ) -> None:
        super().__init__(meter, faults, on_exchange)
        self.path = path
        self.baud = baud
        self.plug_in()

    def plug_in(self) -> None:
        """Open the pty and serve it."""
        self._closing = False
        self._master, self._slave = raw_pty(self.path)
        self._thread = threading.Thread(target=self._run, args=(self._master,), daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """The device file goes away, with whatever has it open."""
        self._closing = True
        self._thread.join()
        self.path.unlink(missing_ok=True)
        os.close(self._slave)
        os.close(self._master)

    def close(self) -> None:
        if not self._closing:
            self.unplug()

    def _run(self, master: int) -> None:
        def receive() -> bytes:
            ready, _, _ = select.select([master], [], [], 0.02)
            return os.read(master, 4096) if ready else b""

        def send(data: bytes) -> None:
            if _BAUDS.get(termios.tcgetattr(self._slave)[5]) != self.baud:
                data = bytes((byte * 7 + 129) & 0xFF | 0x80 for byte in data)  # what framing errors leave
            os.write(master, data)

        self._serve(receive, send)


class TcpMeter(MeterLine):
    """Behind a TCP port, one connection at a time."""

    def __init__(
        self, meter: Meter, faults: Faults | None = None, on_exchange: Callable[[int], None] | None = None
    ) -> None:
        super().__init__(meter, faults, on_exchange)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.02)
        self.port = self._listener.getsockname()[1]
        self._dropped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def place(self) -> str:
        return f"tcp:127.0.0.1:{self.port}"

    def drop(self) -> None:
        """Close the connection from this end."""
        self._dropped.set()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(0.02)
            with connection:
                self._dropped.clear()

                def receive(connection: socket.socket = connection) -> bytes:
                    if self._dropped.is_set():
                        raise ConnectionError
                    try:
                        received = connection.recv(4096)
                    except TimeoutError:
                        return b""
                    if not received:
                        raise ConnectionError
                    return received

                try:
                    self._serve(receive, connection.sendall)
                except OSError:
                    continue
