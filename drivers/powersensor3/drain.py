"""Takes the device's bytes off the line as they come, in a thread of its own, so that a late reading loses none.

The kernel keeps little of a terminal on USB: 4 KiB that were not read yet, and at full speed 2 KiB in transfers that
are under way, 17 ms of four rails' samples. Beyond that it takes no more, and the device throws samples away.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from drivers.links import Link, LinkLost

MOST_BYTES = 4 << 20  # that wait to be read, eleven seconds of samples; beyond that they stay in the line
_REST_S = 0.004  # between looks: often enough for those 17 ms, and seldom enough to be cheap
_WAIT_S = 0.1
_STOP_S = 2.0


class Drain:
    """Reads a link until stopped."""

    def __init__(self, link: Link, clock_ns: Callable[[], int]) -> None:
        self._link = link
        self._clock_ns = clock_ns
        self._chunks: deque[tuple[int, bytes]] = deque()  # when each had come
        self._taken = self._given = 0  # bytes so far, each counted by one thread
        self._lost: LinkLost | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="powersensor3", daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """How much was not taken yet."""
        return self._taken - self._given

    def take(self) -> tuple[bytes, int]:
        """What has come since this was asked, and when the last of it had.

        Raises:
            LinkLost: the line is gone, and all that had come before was given.
        """
        received: list[bytes] = []
        arrived_ns = 0
        while self._chunks:
            arrived_ns, data = self._chunks.popleft()
            received.append(data)
            self._given += len(data)
        if not received and self._lost is not None:
            raise self._lost
        return b"".join(received), arrived_ns

    def stop(self) -> None:
        """End the thread. The link stays open."""
        self._stopping.set()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                if self.waiting_bytes < MOST_BYTES and (data := self._link.receive(_WAIT_S)):
                    self._chunks.append((self._clock_ns(), data))
                    self._taken += len(data)
                time.sleep(_REST_S)
        except LinkLost as error:
            self._lost = error
