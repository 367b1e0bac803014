"""What PTDaemon answers, taken apart. Every function raises ValueError for what is no such answer, and nothing else."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timezone

GREETING = "Hello, PTDaemon here!"
STARTED = "Starting untimed measurement"
STOPPED = "Stopping untimed measurement"
NOTHING_TO_STOP = "Error: no measurement to stop"
MAX_SAMPLES = 500_000  # of one measurement, as PTDaemon says when it starts one
MAX_CHANNELS = 16
_FIELDS = ("Watts", "Volts", "Amps", "PF")
_STAMP = re.compile(r"(\d\d)-(\d\d)-(\d{4}) (\d\d):(\d\d):(\d\d)\.(\d{3})", re.ASCII)
_COUNT = re.compile(r"Last (\d{1,6}) samples?(?: .*)?", re.ASCII)
_CHANNELS = re.compile(r",mode=power,\d+,\d+,(\d{1,2}),", re.ASCII)
_VERSION = re.compile(r"version=([\w.]+)", re.ASCII)


@dataclass(frozen=True)
class Identity:
    """The meter behind PTDaemon, and PTDaemon itself."""

    meter: str  # PTDaemon's name: YokogawaWT310E
    version: str  # of PTDaemon: 1.11.1
    model: str  # what the meter calls itself: YOKOGAWA;WT333E;C2XL24034V;F1.04
    channels: int  # that it measures with


@dataclass(frozen=True)
class SetRanges:
    """The ranges in use. None: automatic, or not known."""

    amperes: float | None
    volts: float | None
    text: str

    def command(self, unit: str) -> str:
        """`SR` that sets the range of "A" or "V" again."""
        fields = self.text.split(",")
        place, number = (2, self.amperes) if unit == "A" else (4, self.volts)
        return f"SR,{unit},{fields[place] if number is not None else 'Auto'}"


@dataclass(frozen=True)
class Statistics:
    """Of a quantity, over all samples since a measurement began. None: PTDaemon does not know it."""

    mean: float | None
    least: float | None
    most: float | None
    samples: int
    errors: int
    valid: int
    unknown: int = 0


@dataclass(frozen=True)
class Values:
    """One sample of one channel. −1 stands for what PTDaemon rejected, −2 for what it missed."""

    watts: float
    volts: float
    amperes: float
    power_factor: float


@dataclass(frozen=True)
class Sample:
    """One line of `RL`: the sum, and with several channels each of them."""

    stamp: str
    t_us: int  # microseconds since 1970 of the stamp, taken as UTC
    total: Values
    channels: tuple[Values, ...]


def parse_identity(reply: str) -> Identity:
    """The answer to `Identify`."""
    fields = reply.split(",")
    version = _VERSION.search(reply)
    if len(fields) < 3 or not re.fullmatch(r"[\w.-]+", fields[0]) or version is None:
        raise ValueError(f"{reply[:80]!r} does not name a meter and a version")
    channels = _CHANNELS.search(reply)
    count = int(channels[1]) if channels else 1
    return Identity(fields[0], version[1], fields[-1], count if 1 <= count <= MAX_CHANNELS else 1)


def parse_ranges(reply: str) -> SetRanges:
    """The answer to `RR`."""
    fields = reply.split(",")
    if len(fields) != 5 or fields[0] != "Ranges":
        raise ValueError(f"{reply[:80]!r} is not Ranges with four numbers")
    amperes, volts = (_fixed(fields[place], fields[place + 1]) for place in (1, 3))
    return SetRanges(amperes, volts, reply)


def _fixed(automatic: str, number: str) -> float | None:
    value = _finite(number)
    return value if automatic == "0" and value > 0 else None


def parse_statistics(reply: str, name: str) -> Statistics:
    """The answer to `Watts`, `Volts`, `Amps`, `PF` or `Uncertainty`, which is in shares of the reading."""
    fields = reply.split(",")
    counts = 4 if name == "Uncertainty" else 3
    if fields[0] != name or len(fields) != 4 + counts:
        raise ValueError(f"{reply[:80]!r} is not {name} with {3 + counts} numbers")
    mean, least, most = (_finite(text) for text in fields[1:4])
    numbers = [_whole(text) for text in fields[4:]]
    known = numbers[2] > 0 and (name != "Uncertainty" or mean >= 0)
    return Statistics(*((mean, least, most) if known else (None, None, None)), *numbers)


def parse_count(reply: str) -> int:
    """How many lines follow the answer to `RL`."""
    match = _COUNT.fullmatch(reply)
    if match is None or int(match[1]) > MAX_SAMPLES:
        raise ValueError(f"{reply[:80]!r} does not say how many samples follow")
    return int(match[1])


def parse_sample(line: str) -> Sample:
    """A line of samples, as `RL` gives it: stamp, the four values of the sum, and those of each channel."""
    fields = line.split(",")
    if fields[0] != "Time" or len(fields) < 10 or (len(fields) - 2) % 8 or len(fields) > 2 + 8 * (1 + MAX_CHANNELS):
        raise ValueError(f"{line[:80]!r} is not a line of samples")
    found = []
    for place in range(2, len(fields), 8):
        if tuple(fields[place : place + 8 : 2]) != _FIELDS:
            raise ValueError(f"{line[:80]!r} has other fields than {', '.join(_FIELDS)}")
        found.append(Values(*(_number(text) for text in fields[place + 1 : place + 8 : 2])))
    return Sample(fields[1], stamp_us(fields[1]), found[0], tuple(found[1:]))


def stamp_us(text: str) -> int:
    """Microseconds since 1970 of a stamp like 07-17-2024 08:04:57.774, taken as UTC."""
    match = _STAMP.fullmatch(text)
    if match is None:
        raise ValueError(f"time {text[:40]!r} is not MM-DD-YYYY hh:mm:ss.mmm")
    month, day, year, hour, minute, second, milli = map(int, match.groups())
    at = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
    return (int(at.timestamp()) * 1000 + milli) * 1000


def _number(text: str) -> float:
    """A number that may be nan or inf, as PTDaemon writes what a meter could not say."""
    if len(text) > 40 or "_" in text:
        raise ValueError(f"{text[:40]!r} is not a number")
    return float(text)


def _finite(text: str) -> float:
    value = _number(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]!r} is not a finite number")
    return value


def _whole(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError(f"{text[:40]!r} is not a count")
    return int(text)
