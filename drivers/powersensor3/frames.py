"""From the bytes of a PowerSensor3's stream to whole frames, and where some are missing.

A frame is nine packets of two bytes, `1sssLLLL 0mLLLLLL` (s sensor, L level, m marker): a time stamp, which has s = 7
and m = 1, then sensors 0 to 7. The stamp is in microseconds, modulo 1024. The stream has no check sum, USB has its own:
what is found out here is bytes that were lost or put in, not bits that were turned.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

FRAME_BYTES = 18
SENSORS = 8
STAMP_US = 1024
HIGHEST_LEVEL = 1023
JITTER = 0.2  # of the interval, that two stamps may differ by
LEARN_STEPS = 32  # whose median the interval is

_STAMP_FIRST = bytes(range(0xF0, 0x100))
_STAMP_SECOND = bytes(range(0x40, 0x80))
_FIRST = [bytes(range(0x80 | sensor << 4, (0x80 | sensor << 4) + 16)) for sensor in range(SENSORS)]
_SECOND = [bytes(range(0x80 if sensor == 0 else 0x40)) for sensor in range(SENSORS)]  # only sensor 0 bears markers
_ALLOWED = [_STAMP_FIRST, _STAMP_SECOND, *(part for pair in zip(_FIRST, _SECOND, strict=True) for part in pair)]
# a packet as the machine's 16-bit integer → its level
_LEVELS = [
    ((first & 0x0F) << 6) | (second & 0x3F)
    for first, second in (word.to_bytes(2, sys.byteorder) for word in range(0x10000))
]
level_of = _LEVELS.__getitem__


class Run(NamedTuple):
    """Consecutive frames with nothing lost between them, nor before the frame that follows them."""

    words: array.array[int]  # nine a frame
    steps_us: Sequence[int]  # from each frame to the next
    markers: int


class FrameReader:
    """Takes bytes as they come. The last frame waits for its successor, which shows that nothing is lost between."""

    def __init__(self) -> None:
        self.interval_us = 0.0  # between two frames; 0: not known yet
        self.skipped_bytes = 0
        self._pending = b""
        self._in_step = False

    @property
    def pending_frames(self) -> int:
        """Frames that wait for their successor."""
        return len(self._pending) // FRAME_BYTES

    def feed(self, data: bytes) -> list[Run | None]:
        """The runs in what came, in order; None stands for a place where frames were lost."""
        data = self._pending + data
        out: list[Run | None] = []
        while True:
            count = len(data) // FRAME_BYTES
            good = _well_formed(data, count)
            if good and good == count <= LEARN_STEPS and not self.interval_us:
                break  # too few to know the interval: more are to come
            if good:
                if not self._in_step and good < 2:
                    if good == count:
                        break  # one frame alone may be chance
                else:
                    self._in_step = True
                    self._take(data[: good * FRAME_BYTES], out)
                    data = data[(good - 1) * FRAME_BYTES :]
                    if good == count:
                        break
            elif count == 0:
                break
            # Out of step: whatever stands around here is not believed, the last frame before it included.
            self._in_step = False
            out.append(None)
            place = _next_start(data, 1)
            self.skipped_bytes += place
            data = data[place:]
        self._pending = data
        return [item for place, item in enumerate(out) if item is not None or place == 0 or out[place - 1] is not None]

    def _take(self, data: bytes, out: list[Run | None]) -> None:
        """Cut well-formed frames where their stamps show a loss. The last frame is not part of what is given."""
        words = array.array("H")
        words.frombytes(data)
        stamps = list(map(level_of, words[0::9]))
        steps = [(after - before) % STAMP_US for before, after in pairwise(stamps)]
        if not steps:
            return
        if not self.interval_us:
            if len(steps) < LEARN_STEPS:
                return  # they are followed by what is no frame
            self.interval_us = float(sorted(steps)[len(steps) // 2])
        low, high = self.interval_us * (1 - JITTER), self.interval_us * (1 + JITTER)
        if min(steps) >= low and max(steps) <= high:
            out.append(_run(words, data, 0, steps))
            return
        begin = 0
        for place, step in enumerate(steps):
            if not low <= step <= high:
                if place > begin:
                    out.append(_run(words, data, begin, steps[begin:place]))
                out.append(None)
                begin = place + 1
        if begin < len(steps):
            out.append(_run(words, data, begin, steps[begin:]))


def _run(words: array.array[int], data: bytes, begin: int, steps: Sequence[int]) -> Run:
    end = begin + len(steps)
    marked = data[begin * FRAME_BYTES + 3 : end * FRAME_BYTES : FRAME_BYTES]
    markers = sum(second >= 0x40 for second in marked) if max(marked) >= 0x40 else 0
    return Run(words[9 * begin : 9 * end], steps, markers)


def _well_formed(data: bytes, count: int) -> int:
    """How many whole frames from the beginning on are well formed."""
    end = count * FRAME_BYTES
    good = count
    for column, allowed in enumerate(_ALLOWED):
        wrong = data[column:end:FRAME_BYTES].translate(None, allowed)
        if wrong:
            found = data[column:end:FRAME_BYTES]
            good = min(good, next(place for place, byte in enumerate(found) if byte in wrong))
    return good


def _next_start(data: bytes, begin: int) -> int:
    """Where the next frame may begin, at `begin` or later; the end where there is none."""
    for place in range(begin, len(data)):
        if data[place] >= 0xF0 and (place + 1 == len(data) or 0x40 <= data[place + 1] < 0x80):
            return place
    return len(data)
