"""What happened during sampling, told once with a count, however often it happens."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

MAX_PER_SOURCE = 50
MAX_TEXT = 500

Level = Literal["info", "warning", "error"]


class LoggedEvent(NamedTuple):
    """One kind of event: its first instant, and how often it was seen."""

    t_ns: int
    level: Level
    source: str
    text: str
    times: int


class EventLog:
    """Events by source and text. Any thread may add; what is beyond the bound is counted under one common text."""

    def __init__(self, clock_ns: Callable[[], int], earlier: Sequence[LoggedEvent] = ()) -> None:
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._events = {(event.source, event.text): event for event in earlier}
        self._per_source = dict(Counter(event.source for event in earlier))

    def add(self, level: Level, source: str, text: str) -> None:
        """Record that something happened now."""
        now_ns = self._clock_ns()
        text = text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
        with self._lock:
            key = (source, text)
            if key not in self._events and self._per_source.get(source, 0) >= MAX_PER_SOURCE:
                level, key = "warning", (source, "more happened than is recorded here; the count says how often")
            known = self._events.get(key)
            if known is None:
                self._per_source[source] = self._per_source.get(source, 0) + 1
                self._events[key] = LoggedEvent(now_ns, level, source, key[1], 1)
            else:
                self._events[key] = known._replace(times=known.times + 1)

    def snapshot(self) -> list[LoggedEvent]:
        """All events so far, in the order of their first instants."""
        with self._lock:
            return list(self._events.values())
