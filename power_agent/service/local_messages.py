"""What `power-agent run` and the agent of its host tell each other: frames of MessagePack through a Unix socket.

Each frame follows its length, four bytes, big-endian. The agent speaks first.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from contextlib import suppress
from typing import Final, Generic, TypeAlias, TypeVar

import msgspec

from power_agent.wire.frames import MAX_FRAME_BYTES, BadFrame, FrameDecoder, encode
from power_agent.wire.messages import HostName, SessionAnswer, SessionRequest, Text, WorkloadEvent

_LENGTH = struct.Struct(">I")
_TIMEVAL = struct.Struct("@ll")  # struct timeval of the kernel
_SEND_US = 200_000
M = TypeVar("M")


class AgentHere(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Agent → runner, first: who serves here."""

    host: HostName
    director: Text  # its address
    run_dir: Text  # marks of a session belong into the folder of its name there


FromRunner: TypeAlias = SessionRequest | WorkloadEvent
ToRunner: TypeAlias = AgentHere | SessionAnswer

from_runner: Final[FrameDecoder[FromRunner]] = FrameDecoder(FromRunner)
to_runner: Final[FrameDecoder[ToRunner]] = FrameDecoder(ToRunner)


class LocalGone(Exception):
    """The other end is gone, or speaks another language."""


class LocalLink(Generic[M]):
    """One connection. It never holds more than one frame of its peer's."""

    def __init__(self, connection: socket.socket, decoder: FrameDecoder[M]) -> None:
        connection.setblocking(True)
        # One thread may wait for what comes while another sends, which must not wait for a peer that does not read.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(0, _SEND_US))
        self._connection = connection
        self._decoder = decoder
        self._received = b""

    def send(self, message: msgspec.Struct) -> None:
        """Send a message whole.

        Raises:
            LocalGone: nobody takes it.
        """
        frame = encode(message)
        try:
            self._connection.sendall(_LENGTH.pack(len(frame)) + frame)
        except OSError as error:
            raise LocalGone(str(error)) from error

    def receive(self, timeout_s: float | None) -> M | None:
        """The next message; None after `timeout_s` (None: never).

        Raises:
            LocalGone: there will be none.
        """
        poll = select.poll()
        end_s = time.monotonic() + (timeout_s or 0.0)
        while (message := self._take()) is None:
            try:
                poll.register(self._connection, select.POLLIN)
                if not poll.poll(None if timeout_s is None else max(0.0, end_s - time.monotonic()) * 1000):
                    return None
                chunk = self._connection.recv(1 << 16)
            except (OSError, ValueError) as error:  # also: closed meanwhile
                raise LocalGone(str(error)) from error
            if not chunk:
                raise LocalGone("it has closed the connection")
            self._received += chunk
        return message

    def hang_up(self) -> None:
        """End the conversation: whoever waits in `receive` is told."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up, and release the descriptor."""
        self.hang_up()
        self._connection.close()

    def _take(self) -> M | None:
        if len(self._received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        if length > MAX_FRAME_BYTES:
            raise LocalGone(f"a frame of {length} bytes")
        if len(self._received) < _LENGTH.size + length:
            return None
        frame = self._received[_LENGTH.size : _LENGTH.size + length]
        self._received = self._received[_LENGTH.size + length :]
        try:
            return self._decoder.decode(frame)
        except BadFrame as error:
            raise LocalGone(str(error)) from error
