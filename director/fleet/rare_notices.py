"""Tells a person what may come again and again: each thing once in a while, and in all no more than can be read."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

AGAIN_S = 3600.0
MOST_PER_MINUTE = 60
_MOST_KEPT = 1000


class RareNotices:
    """Any thread may call `tell`."""

    def __init__(
        self, tell: Callable[[str], None], again_s: float = AGAIN_S, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """`again_s`: for so long nothing more is told of the same thing."""
        self._tell = tell
        self._again_s = again_s
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._told_s: OrderedDict[Hashable, float] = OrderedDict()  # the oldest first
        self._minute_s = clock_s()
        self._in_minute = 0
        self._left_out = 0

    def tell(self, about: Hashable, text: str) -> None:
        """Tell it, unless that was done of late, or too much else was."""
        with self._lock:
            now_s = self._clock_s()
            while self._told_s and now_s - next(iter(self._told_s.values())) >= self._again_s:
                self._told_s.popitem(last=False)
            if about in self._told_s:
                return
            if now_s - self._minute_s >= 60.0:
                self._minute_s, self._in_minute = now_s, 0
            if self._in_minute >= MOST_PER_MINUTE:
                self._left_out += 1
                return
            self._in_minute += 1
            if len(self._told_s) >= _MOST_KEPT:
                self._told_s.popitem(last=False)
            self._told_s[about] = now_s
            if self._left_out:
                text += f" ({self._left_out} more such messages before this one were left out)"
                self._left_out = 0
        self._tell(text)
