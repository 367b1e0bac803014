"""What a sampler that died left in its spool, so that the next one can go on where it left off."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from power_agent.event_log import LoggedEvent
from power_agent.messages import Stream, TickCount
from power_agent.spool import SpoolReader
from power_agent.stream_plan import PlannedDriver


@dataclass(frozen=True)
class EarlierRecording:
    """Streams and ticks by the stream's id; `first_tick_ns` is None where nothing was recorded."""

    streams: dict[int, Stream]
    ticks: dict[int, TickCount]
    events: list[LoggedEvent]
    first_tick_ns: int | None

    def start_ns(self, stream: Stream, now_ns: int) -> int:
        """When the first tick of a stream was due: now, unless it was there before."""
        return self.first_tick_ns if self.first_tick_ns is not None and stream.id in self.streams else now_ns

    def lost_drivers(self, opened: Set[str]) -> list[PlannedDriver]:
        """The drivers that recorded something and are not among those that opened, each with its streams."""
        names = {stream.driver for stream in self.streams.values()} - opened
        return [
            PlannedDriver(name, None, [(stream, None) for stream in self.streams.values() if stream.driver == name])
            for name in sorted(names)
        ]


NOTHING_EARLIER = EarlierRecording({}, {}, [], None)


def read_earlier(path: Path) -> EarlierRecording:
    """Read what matters of the spool at `path`.

    Raises:
        SpoolDamaged: there is none, or it cannot be read.
    """
    reader = SpoolReader(path)
    try:
        first_tick = reader.meta().get("first_tick_ns", "")
        return EarlierRecording(
            streams={stream.id: stream for stream in reader.streams()},
            ticks={tick.stream: tick for tick in reader.ticks()},
            events=reader.logged_events(),
            first_tick_ns=int(first_tick) if first_tick.isdecimal() else None,
        )
    finally:
        reader.close()
