"""Reads `spl.txt`, PTDaemon's sample log, many lines at a time; `drivers.replay.spl_trace` describes the format.

Usual lines are read as whole columns. A line that is not exactly as PTDaemon writes it is read alone, by the words of
the official checker: field 2 is the time, field 4 the watts, field 10 the power factor, each of the fields between
commas.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

from director.mlperf.text_blocks import Block, text_blocks
from director.phases.sources import Problems

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

STAMP_FORMAT = "%m-%d-%Y %H:%M:%S.%f"
EPOCH = datetime(1970, 1, 1)
_USUAL_STAMP = re.compile(r"(\d\d)-(\d\d)-(\d{4}) (\d\d):(\d\d):(\d\d)\.(\d{3})", re.ASCII)
_HEAD = b"Time,19-39-9999 29:59:59.999,Watts,"  # of a usual line, with the highest digits that its places may have
_TAIL = b",V"  # of ",Volts,": watts that end otherwise may have lost digits
_DATE = slice(5, 15)
_PLAIN_NUMBER = re.compile(r"-?\d+(\.\d*)?", re.ASCII)
_DECIMALS = 6  # of watts
_MOST_DIGITS = (
    9  # before their dot; 15 digits are exact in a double, and so is their quotient by 10⁶, as float() has it
)
_ROW = len(_HEAD) + _MOST_DIGITS + 1 + _DECIMALS + len(_TAIL)


@dataclass(frozen=True)
class Samples:
    """Some consecutive samples, in file order. Values are as logged: −1 is a rejected reading, −2 a missed sample."""

    line: Ints  # number of the line, from 1
    t_us: Ints  # microseconds since 1970 of the stamp, whose zone the log does not tell
    watts: Floats  # NaN: cannot be read, or not a number
    time_lines: Bools  # lines that begin with "Time": newer checkers look at no others


@dataclass
class Window:
    """Microseconds since 1970, both ends outside."""

    begin_us: int
    end_us: int

    def holds(self, t_us: Ints) -> Bools:
        return (t_us > self.begin_us) & (t_us < self.end_us)


@dataclass
class Stops:
    """The first line at which an official checker ends with an exception, or gives no number, in words; "": none."""

    any_line: str = ""  # one that reads every line: that of round 1.0
    time_lines: str = ""  # one that skips lines that do not begin with "Time"

    def note(self, text: str, is_time_line: bool) -> None:
        self.any_line = self.any_line or text
        if is_time_line:
            self.time_lines = self.time_lines or text


class SampleLog:
    """One sample log: read it once with `samples`, then look at what was found on the way."""

    def __init__(self, path: Path, window: Window, needs_power_factor: bool = False) -> None:
        """`needs_power_factor`: for a checker that reads the power factor, too, and stops where it cannot."""
        self.path = path
        self.problems = Problems()
        self.stops = Stops()
        self.lines = 0  # that hold anything
        self.unreadable_lines = 0
        self.first_us: int | None = None
        self.last_us: int | None = None
        self.analyzers = 1  # whose lines the log was merged from
        self.window = window
        self._needs_power_factor = needs_power_factor

    @property
    def covered(self) -> str:
        """From when to when the samples read so far go."""
        if self.first_us is None or self.last_us is None:
            return "nothing"
        return f"{stamp_text(self.first_us)} … {stamp_text(self.last_us)}"

    def samples(self) -> Iterator[Samples]:
        """Yield the samples of all lines that hold a time, those whose watts cannot be read with NaN.

        Raises:
            NoLog: see `text_blocks`.
        """
        for block in text_blocks(self.path):
            if block.first_line == 1:
                self.analyzers = max(1, block.text.count(b",Analyzer", 0, max(block.text.find(b"\n"), 0)))
            samples = self._read(block)
            if len(samples.t_us):
                self.first_us = int(samples.t_us[0]) if self.first_us is None else self.first_us
                self.last_us = int(samples.t_us[-1])
                yield samples

    def _read(self, block: Block) -> Samples:
        text = block.text if block.text.endswith(b"\n") else block.text + b"\n"
        text = text.ljust(_ROW)
        data = np.frombuffer(text, dtype=np.uint8)
        ends = np.flatnonzero(data == ord("\n"))
        starts = np.concatenate(([0], ends[:-1] + 1))
        # the first bytes of each line, a line a column; those of a short one go on into the next, which fits no form
        last = len(data) - _ROW
        rows = np.ndarray((last + 1,), f"V{_ROW}", data, 0, (1,))[np.minimum(starts, last)]
        columns = rows.view(np.uint8).reshape(-1, _ROW).T.copy()
        t_us, usual = _stamps(columns)
        watts, usual = _watts(columns[len(_HEAD) :], usual & (starts <= last))
        if self._needs_power_factor:
            usual &= _has_power_factor(data, starts, ends)
        if not text.isascii():  # a reader of text may end at such a line, whatever it holds
            usual[np.searchsorted(ends, np.flatnonzero(data >= 0x80))] = False
        number = block.first_line + np.arange(len(starts), dtype=np.int64)
        self.lines += len(starts)
        if usual.all():
            return Samples(number, t_us, watts, usual)
        kept, time_line = usual.copy(), usual.copy()
        for at in np.flatnonzero(~usual).tolist():
            line = text[starts[at] : ends[at]].rstrip(b"\r")
            if not line:
                self.lines -= 1
                self.stops.any_line = self.stops.any_line or f"line {number[at]} is blank"
                continue
            time_line[at] = line.startswith(b"Time")
            sample = self._read_alone(line, int(number[at]), cut=block.cut_line == number[at])
            if sample is not None:
                kept[at] = True
                t_us[at], watts[at] = sample
        return Samples(number[kept], t_us[kept], watts[kept], time_line[kept])

    def _read_alone(self, line: bytes, number: int, cut: bool) -> tuple[int, float] | None:
        """Time and watts of one line as the official checkers read it; None: not even its time can be read."""
        is_time_line = line.startswith(b"Time")
        try:
            fields = line.decode("utf-8").split(",")
            t_us = stamp_us(fields[1])
        except (ValueError, IndexError):
            # undecodable bytes stop Python's own reading of the file, whatever the line is
            self._cannot(number, _why_no_stamp(line), is_time_line or not _is_utf8(line))
            return None
        in_window = bool(self.window.holds(np.array([t_us]))[0])
        try:
            watts = float(fields[3])
            if self._needs_power_factor:
                float(fields[9])
            whole = len(fields) >= 12 and not cut and fields[2] == "Watts"
            if not math.isfinite(watts):
                self._not_finite(number, fields[3], watts, is_time_line and in_window)
                return t_us, math.nan
            if not whole or not _PLAIN_NUMBER.fullmatch(fields[3]):
                what = f"holds {fields[3][:40]!r} watts" if whole else f"is no whole line of PTDaemon: {line[:60]!r}"
                self._name(number, f"{what}; the official figure counts it as {watts:g} W")
        except (ValueError, IndexError):
            why = "its watts or power factor cannot be read" if self._needs_power_factor else "its watts cannot be read"
            if in_window:
                self._cannot(number, why, is_time_line)
            else:  # the official checkers do not look at watts beyond the window
                self._name(number, why)
            return t_us, math.nan
        return t_us, watts

    def _not_finite(self, number: int, text: str, watts: float, counts: bool) -> None:
        why = f"holds {text[:40]!r} watts"
        if counts:
            stop = f"line {number} {why}, of which no mean can be taken"
            self.stops.any_line = self.stops.any_line or stop
            if watts > 0:  # newer checkers take what is above 0, which NaN is not
                self.stops.time_lines = self.stops.time_lines or stop
        self._name(number, why)

    def _cannot(self, number: int, why: str, is_time_line: bool) -> None:
        self.stops.note(f"line {number}: {why}", is_time_line)
        self._name(number, why)

    def _name(self, number: int, why: str) -> None:
        self.unreadable_lines += 1
        self.problems.add(f"{self.path}:{number}", why)


def stamp_us(text: str) -> int:
    """Microseconds since 1970 of a stamp as 07-17-2024 08:04:57.774.

    Raises:
        ValueError: it is none.
    """
    return (stamp_time(text) - EPOCH) // timedelta(microseconds=1)


def stamp_time(text: str) -> datetime:
    """A stamp as a time without a zone.

    Raises:
        ValueError: it is none.
    """
    match = _USUAL_STAMP.fullmatch(text)
    if match is None:
        return datetime.strptime(text, STAMP_FORMAT)  # takes single digits, too, and is slow
    month, day, year, hour, minute, second, ms = map(int, match.groups())
    return datetime(year, month, day, hour, minute, second, ms * 1000)


def stamp_text(t_us: int) -> str:
    """The stamp of an instant, to the millisecond."""
    return (EPOCH + timedelta(microseconds=t_us)).strftime(STAMP_FORMAT)[:-3]


class _Form:
    """Text of a fixed form, as a template: where it has a digit, digits up to that one are allowed."""

    def __init__(self, template: bytes, weights: dict[int, float]) -> None:
        """`weights`: of the digits at some places."""
        self._least = np.array([ord("0") if chr(c).isdigit() else c for c in template], np.uint8)[:, None]
        self._most = np.frombuffer(template, np.uint8)[:, None] - self._least
        self._places = list(weights)
        self._weights = np.array(list(weights.values()))

    def read(self, columns: Bytes) -> tuple[Floats, Bools]:
        """The weighted sums of digits, and which texts have the form. `columns`: of the shape (bytes, texts)."""
        above = columns[: len(self._least)] - self._least  # of what is less it is a large number
        # not @: BLAS would wake its threads for so little
        sums: Floats = np.einsum("i,ij->j", self._weights, above[self._places])
        fits: Bools = np.asarray((above <= self._most).all(axis=0))
        return sums, fits


# Its digits are weighed to milliseconds since midnight.
_STAMP = _Form(_HEAD, {16: 36e6, 17: 36e5, 19: 6e5, 20: 6e4, 22: 1e4, 23: 1e3, 25: 1e2, 26: 1e1, 27: 1e0})
_NUMBERS = [  # with one digit before the dot, with two, …; in millionths
    _Form(
        b"9" * digits + b"." + b"9" * _DECIMALS + _TAIL,
        {place + (place >= digits): 10.0 ** (digits + _DECIMALS - 1 - place) for place in range(digits + _DECIMALS)},
    )
    for digits in range(1, _MOST_DIGITS + 1)
]
_POWER_FACTOR = _Form(b"9.999999,", {0: 1.0})


def _stamps(columns: Bytes) -> tuple[Ints, Bools]:
    """Microseconds since 1970 of lines, and which have a time and watts where they usually stand."""
    ms, usual = _STAMP.read(columns)
    usual &= ms < 86_400_000
    dates = columns[_DATE]
    first = int(usual.argmax())
    if (dates == dates[:, first : first + 1]).all(axis=0)[usual].all():
        days, known = _days(dates[:, first].tobytes())
        return ((days * 86_400_000 + ms) * 1000).astype(np.int64), usual & known
    keys, which = np.unique(dates.T.copy().view(f"S{len(dates)}").ravel(), return_inverse=True)
    each = [_days(key) for key in keys.tolist()]
    days_of, is_known = np.array([days for days, _ in each]), np.array([known for _, known in each])
    return ((days_of[which] * 86_400_000 + ms) * 1000).astype(np.int64), usual & is_known[which]


def _days(date: bytes) -> tuple[int, bool]:
    """Days since 1970 of MM-DD-YYYY, and whether there is such a day."""
    try:
        return (datetime(int(date[6:]), int(date[:2]), int(date[3:5])) - EPOCH).days, True
    except ValueError:
        return 0, False


def _watts(columns: Bytes, wanted: Bools) -> tuple[Floats, Bools]:
    """Numbers as 1234.567890, and which of the wanted texts are such a one with ",V" behind."""
    watts = np.zeros(columns.shape[1])
    left = wanted.copy()
    for digits, form in enumerate(_NUMBERS, start=1):
        if not (left & (columns[digits] == ord("."))).any():
            continue
        millionths, here = form.read(columns)
        here &= left
        watts = np.where(here, millionths, watts)
        left &= ~here
        if not left.any():
            break
    return watts / 10.0**_DECIMALS, wanted & ~left


def _has_power_factor(data: Bytes, starts: Ints, ends: Ints) -> Bools:
    """Which lines have a number of the usual form, such as 0.964059 or −1.000000, as their tenth field."""
    commas = np.flatnonzero(data == ord(","))
    ninth = np.searchsorted(commas, starts) + 8
    at = commas[np.minimum(ninth, len(commas) - 1)] + 1 if len(commas) else ends
    inside = (ninth < len(commas)) & (at + 10 < ends)
    columns = data[np.minimum(at + np.arange(10)[:, None], len(data) - 1)]
    first = np.where(columns[0] == ord("-"), columns[1:], columns[:-1])
    found: Bools = inside & _POWER_FACTOR.read(first)[1]
    return found


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _why_no_stamp(line: bytes) -> str:
    if not _is_utf8(line):
        return f"is not UTF-8: {line[:60]!r}"
    return f"holds no time as 07-17-2024 08:04:57.774: {line[:60]!r}"
