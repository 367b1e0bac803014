"""One message is one frame: MessagePack, limited in size, decoded only into the types that may come on that socket.

A message that came as several parts is none of ours and is refused before it is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from power_agent.wire import messages

MAX_CHUNK_BYTES: Final = 1 << 18  # of the content of a FileChunk
MAX_FRAME_BYTES: Final = 2 << 20  # of any message; set as ZMQ_MAXMSGSIZE, so that a longer one ends its connection
MAX_CLOCK_FRAME_BYTES: Final = 1024

M = TypeVar("M")

_encoder = msgspec.msgpack.Encoder()


class BadFrame(Exception):
    """What came is no message that may come here; the text says why, and is safe to log."""


class FrameDecoder(Generic[M]):
    """Decodes what comes on one kind of socket."""

    def __init__(self, union: object, limit_bytes: int = MAX_FRAME_BYTES) -> None:
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(union)
        self._limit_bytes = limit_bytes

    def decode(self, frame: bytes | memoryview) -> M:
        """The message in a frame.

        Raises:
            BadFrame: too long, no MessagePack, another message than may come here, or a value out of its bounds.
        """
        if len(frame) > self._limit_bytes:
            raise BadFrame(f"a frame of {len(frame)} bytes; the limit is {self._limit_bytes}")
        try:
            return self._decoder.decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, OverflowError, RecursionError) as error:
            raise BadFrame(f"{type(error).__name__}: {str(error)[:200]!a}") from None

    def decode_parts(self, parts: Sequence[bytes | memoryview]) -> M:
        """The message in what `recv_multipart` gave, without a routing id.

        Raises:
            BadFrame: as above, or it has several parts.
        """
        if len(parts) != 1:
            raise BadFrame(f"a message of {len(parts)} parts; one is allowed")
        return self.decode(parts[0])


from_agent: Final[FrameDecoder[messages.FromAgent]] = FrameDecoder(messages.FromAgent)
from_director: Final[FrameDecoder[messages.FromDirector]] = FrameDecoder(messages.FromDirector)
bulk_from_agent: Final[FrameDecoder[messages.BulkFromAgent]] = FrameDecoder(messages.BulkFromAgent)
bulk_from_director: Final[FrameDecoder[messages.BulkFromDirector]] = FrameDecoder(messages.BulkFromDirector)
clock_from_agent: Final[FrameDecoder[messages.ClockAsk]] = FrameDecoder(messages.ClockAsk, MAX_CLOCK_FRAME_BYTES)
clock_from_director: Final[FrameDecoder[messages.ClockAnswer]] = FrameDecoder(
    messages.ClockAnswer, MAX_CLOCK_FRAME_BYTES
)


def encode(message: msgspec.Struct) -> bytes:
    """The frame of a message.

    Raises:
        ValueError: it is longer than MAX_FRAME_BYTES; nobody would take it.
    """
    frame = _encoder.encode(message)
    if len(frame) > MAX_FRAME_BYTES:
        raise ValueError(f"a {type(message).__name__} of {len(frame)} bytes; the limit is {MAX_FRAME_BYTES}")
    return frame
