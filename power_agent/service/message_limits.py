"""How much of what a spool holds goes into one message of the hand-over, and what is said of the rest."""

from __future__ import annotations

from typing import Literal

import msgspec

from power_agent.messages import Event, Stream
from power_agent.wire.frames import MAX_FRAME_BYTES
from power_agent.wire.messages import MAX_EVENTS, EventCount

_LEVELS = ("error", "warning", "info")


def fitting(streams: list[Stream]) -> list[Stream]:
    """The first of them, as many as go into one message; one at least, if there is any."""
    size = 0
    for number, stream in enumerate(streams):
        size += len(msgspec.msgpack.encode(stream))
        if size > MAX_FRAME_BYTES // 2 and number:
            return streams[:number]
    return streams


def bounded(counts: list[EventCount]) -> list[EventCount]:
    """As many as one message takes, the worst ones first; how many others there are is told in their place."""
    size = 0
    kept: list[EventCount] = []
    for each in sorted(counts, key=lambda each: _LEVELS.index(each.event.level)):
        size += len(each.event.text.encode("utf-8", "replace")) + len(each.event.source.encode("utf-8", "replace"))
        if len(kept) >= MAX_EVENTS - 2 or size > MAX_FRAME_BYTES // 2:
            break
        kept.append(each)
    if len(kept) == len(counts):
        return counts
    event = uplink_event("warning", "more happened than is handed over; the count says how many kinds of it")
    return [*kept, EventCount(event=event, count=len(counts) - len(kept))]


def uplink_event(level: Literal["warning", "error"], text: str) -> Event:
    """An event of the hand-over itself; it has no instant."""
    return Event(t_ns=0, level=level, source="uplink", text=text)
