"""Power logs of MLPerf Training, `node_*.txt` and `sw_*.txt`, parsed at the speed of memory.

Nearly all lines of such a log are readings that differ in the digits of two numbers. Lines of one length are compared
with one of them, the template, byte for byte; where only those digits differ, the numbers are computed from columns of
digits for all lines at once. Every other line is parsed on its own. No byte of a line goes unchecked.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from director.energy.cells import Bools, Floats, Ints
from director.mlperf.training.log_text import Unread, blocks, number, parse
from director.phases.sources.mllog import TOKEN, Entry

READING = "power_reading"
START, STOP = "power_measurement_start", "power_measurement_stop"
EFFICIENCY, ESTIMATE = "conversion_eff", "interconnect_power_est"
_EVENTS = (START, STOP, EFFICIENCY, ESTIMATE)
_WITH_NUMBER = (READING, EFFICIENCY, ESTIMATE)
_LEAST_ALIKE = 6  # lines; fewer are parsed one by one
_MOST_TEMPLATES = 16  # per block
_COMPACT_FROM = 1 << 11  # readings; longer logs than most have more than one such piece
_DIGITS_TO_0 = bytes.maketrans(b"123456789", b"000000000")
_POWERS = 10.0 ** np.arange(15, -1, -1)
_TIME = re.compile(rb'"time_ms"\s*:\s*(\d{1,15})(?:\.0{1,6})?\s*[,}]')
_VALUE = re.compile(rb'"value"\s*:\s*-?(\d{1,9})(?:\.(\d{1,6}))?\s*[,}]')


Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Piece = tuple[float, npt.NDArray[Any], npt.NDArray[Any]]  # the origin of times, times, watts


class Event(NamedTuple):
    """A line of a power log that is no reading. `before`: readings that stand before it in the file."""

    key: str
    time_ms: float
    value: float | None  # None where it is no finite number, as of a start or stop
    before: int
    line: int


@dataclass
class PowerLog:
    """One power log. Readings are kept in pieces, in the order of the file."""

    path: Path
    readings: int = 0
    events: list[Event] = field(default_factory=list)
    unread: Unread = field(default_factory=Unread)
    is_sorted: bool = True  # no reading is earlier than the one before
    repeated: int = 0  # readings with the time of the one before
    not_positive: int = 0
    bytes: int = 0
    first_ms: float = np.inf  # the earliest reading
    last_ms: float = -np.inf  # the latest reading
    _pieces: list[Piece] = field(default_factory=list)
    _last_read_ms: float = -np.inf

    def in_file_order(self) -> Iterator[tuple[Floats, Floats]]:
        """Times in ms since the epoch, and watts, as they stand in the file."""
        for origin, t, watts in self._pieces:
            yield t + origin, watts.astype(np.float64, copy=False)

    def in_time_order(self) -> Iterator[tuple[Floats, Floats, Ints | None]]:
        """Times, watts, and each reading's place in the file, sorted by time; places are None where they ascend by 1.

        A log that is not sorted comes in one piece.
        """
        if self.is_sorted:
            for t, watts in self.in_file_order():
                yield t, watts, None
            return
        pieces = list(self.in_file_order())
        t = np.concatenate([piece[0] for piece in pieces])
        order = np.argsort(t, kind="stable")
        yield t[order], np.concatenate([piece[1] for piece in pieces])[order], order

    def _add(self, t: Floats, watts: Floats) -> None:
        if not len(t):
            return
        step = t[1:] - t[:-1]
        least = float(t[0]) - self._last_read_ms
        if len(step):
            least = min(least, float(step.min()))
        if least <= 0:
            self.repeated += len(step) - int(np.count_nonzero(step)) + (t[0] == self._last_read_ms)
        self.is_sorted &= least >= 0
        if watts.min() <= 0:
            self.not_positive += int(np.count_nonzero(watts <= 0))
        first, last = (t[0], t[-1]) if least >= 0 else (t.min(), t.max())
        self.first_ms, self.last_ms = min(self.first_ms, float(first)), max(self.last_ms, float(last))
        self._last_read_ms = float(t[-1])
        self.readings += len(t)
        self._pieces.append(_compact(t, watts) if len(t) >= _COMPACT_FROM else (0.0, t, watts))


def _compact(t: Floats, watts: Floats) -> Piece:
    """The same numbers in half the memory, where they fit."""
    origin = float(t.min())
    offset = (t - origin).astype(np.uint32) if float(t.max()) - origin < 2**32 else t
    short = watts.astype(np.float32)
    if not np.array_equal(offset + origin, t):
        origin, offset = 0.0, t
    return origin, offset, short if np.array_equal(short, watts) else watts


def read_power_log(path: Path) -> PowerLog:
    """Read a log; what cannot be read is counted and named in `unread`.

    Raises:
        NoLog: it is no log at all.
    """
    log = PowerLog(path)
    for first_line, block in blocks(path, log.unread):
        log.bytes += len(block)
        _read_block(log, first_line, block)
    return log


def _read_block(log: PowerLog, first_line: int, block: bytes) -> None:
    text = np.frombuffer(block, dtype=np.uint8)
    ends = (text == 10).nonzero()[0]
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    lengths = ends - starts
    t = np.empty(len(ends))
    watts = np.empty(len(ends))
    is_reading = np.zeros(len(ends), dtype=bool)
    templates = 0
    for length in (np.bincount(lengths) >= _LEAST_ALIKE).nonzero()[0].tolist():
        alike = (lengths == length).nonzero()[0]
        while len(alike) >= _LEAST_ALIKE and templates < _MOST_TEMPLATES:
            templates += 1
            begin = int(starts[alike[0]])
            template = _template(block[begin : begin + length])
            if template is None:
                alike = alike[1:]
                continue
            if starts[alike[-1]] + template.layout.width > len(block):
                alike = alike[:-1]
            fits = template.read(text, starts, alike, t, watts)
            if fits is None:
                is_reading[alike] = True
                break
            is_reading[alike[fits]] = True
            alike = alike[~fits]
    events: list[tuple[int, Entry, float | None]] = []
    others = []
    for place in (~is_reading).nonzero()[0].tolist():
        entry = parse(block[starts[place] : ends[place]])
        value = number(entry) if isinstance(entry, Entry) else None
        if isinstance(entry, Entry) and entry.key == READING and value is not None:
            t[place], watts[place], is_reading[place] = entry.time_ms, value, True
            continue
        others.append(place)
        if isinstance(entry, str):
            log.unread.add(first_line + place, entry)
        elif entry is not None and value is None and entry.key in _WITH_NUMBER:
            log.unread.add(first_line + place, f"{entry.key} has no number but {entry.value!r:.40}")
        elif entry is not None and entry.key in _EVENTS:
            events.append((place, entry, value))
    for place, entry, value in events:
        before = log.readings + place - bisect_left(others, place)
        log.events.append(Event(entry.key, entry.time_ms, value, before, first_line + place))
    log._add(t[is_reading], watts[is_reading])


@dataclass(frozen=True)
class _Layout:
    """Where the digits of a reading's time and value stand in its line."""

    width: int  # bytes that are looked at: the line in whole words of 8 bytes; those beyond its end are masked
    item: np.dtype[np.void]
    mask: Words
    digits: Ints  # columns: of the time, then of the value
    weights: Floats  # len(digits) × 2: what each digit adds to the time and to the value
    least: Floats  # time and value of more digits than one do not begin with 0
    scale: float  # the value is that divided by this
    time: slice
    value: slice


class _Template(NamedTuple):
    """A line of a reading: its layout, and its words with the digits masked out."""

    layout: _Layout
    words: Words

    def read(self, text: Bytes, starts: Ints, lines: Ints, t: Floats, watts: Floats) -> Bools | None:
        """Fill in times and watts of the lines that fit. Returns which do; None: all."""
        layout = self.layout
        items = np.ndarray((len(text) - layout.width + 1,), layout.item, text, strides=(1,))
        rows = items[starts[lines]]
        same = (rows.view(np.uint64).reshape(len(lines), -1) & layout.mask) == self.words
        digits = rows.view(np.uint8).reshape(len(lines), layout.width)[:, layout.digits] - 48  # others become large
        # Whole numbers below 2^53, then one division by a power of ten: rounded as the decimal number is.
        numbers = digits @ layout.weights
        large = numbers >= layout.least
        fits: Bools | None = None
        if not (same.all() and digits.max() <= 9 and large.all()):
            fits = same.all(axis=1) & (digits <= 9).all(axis=1) & large.all(axis=1)
            lines, numbers = lines[fits], numbers[fits]
        t[lines] = numbers[:, 0]
        watts[lines] = numbers[:, 1] / layout.scale
        return fits


def _template(line: bytes) -> _Template | None:
    """None where the line is no plain reading, or could mean something else with other digits."""
    layout = _layout(line.translate(_DIGITS_TO_0))
    entry = parse(line) if layout is not None else None
    if layout is None or not isinstance(entry, Entry) or entry.key != READING:
        return None
    if entry.time_ms != float(line[layout.time]) or entry.value != float(line[layout.value]):
        return None
    return _Template(layout, np.frombuffer(line.ljust(layout.width, b"\0"), dtype=np.uint64) & layout.mask)


@lru_cache(maxsize=256)
def _layout(shape: bytes) -> _Layout | None:
    """The layout of lines that are `shape` when their digits are made 0; None where it is not plain."""
    begin = shape.rfind(TOKEN)
    times, values = list(_TIME.finditer(shape, begin)), list(_VALUE.finditer(shape, begin))
    if begin < 0 or len(times) != 1 or len(values) != 1 or b"\\" in shape[begin:]:
        return None
    if shape.count(b'"value"') != 1 or shape.count(b'"time_ms"') != 1:
        return None
    time, whole, part = times[0].span(1), values[0].span(1), values[0].span(2)
    if part[0] < 0:
        part = (whole[1], whole[1])
    is_negative = shape[whole[0] - 1 : whole[0]] == b"-"
    width = -(-len(shape) // 8) * 8
    mask = np.zeros(width, dtype=np.uint8)
    mask[: len(shape)] = 255
    digits = np.array([*range(*time), *range(*whole), *range(*part)])
    mask[digits] = 0
    n, of_whole, of_part = time[1] - time[0], whole[1] - whole[0], part[1] - part[0]
    weights = np.zeros((len(digits), 2))
    weights[:n, 0], weights[n:, 1] = _POWERS[-n:], _POWERS[n - len(digits) :]
    return _Layout(
        width=width,
        item=np.dtype((np.void, width)),
        mask=mask.view(np.uint64),
        digits=digits,
        weights=weights,
        least=np.array([weights[0, 0] * (n > 1), weights[n, 1] * (of_whole > 1)]),
        scale=10.0**of_part * (-1.0 if is_negative else 1.0),
        time=slice(*time),
        value=slice(whole[0] - is_negative, max(whole[1], part[1])),
    )
