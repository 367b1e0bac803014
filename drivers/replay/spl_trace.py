"""Reads `spl.txt`, the sample log that MLPerf's PTDaemon writes: one line a second from a wall power analyzer.

A line holds key,value pairs: Time, Watts, Volts, Amps, PF, Mark, and with several channels the first five again after
the name of each. Watts before the mark is their sum. Stamps are local time without a zone; they are taken as UTC.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from drivers.contract import Accuracy, Channel, Row, Status, Unavailable
from drivers.replay.trace import Trace, numbered_lines, open_text
from drivers.settings import read_number

_STAMP = re.compile(r"(\d\d)-(\d\d)-(\d{4}) (\d\d):(\d\d):(\d\d)\.(\d{1,9})", re.ASCII)
_EPOCH = datetime(1970, 1, 1)
_FIELDS = 12
_FIELDS_PER_CHANNEL = 9
_REJECTED = (-1.0, -2.0)  # PTDaemon's marks: a reading that it rejected, a sample that it missed
_TYPICAL_UNCERTAINTY = 0.005


def open_spl(path: Path, settings: Mapping[str, str]) -> Trace:
    """Open a sample log.

    Raises:
        Unavailable: it is not one.
        OSError: it cannot be read.
    """
    _, first = next(numbered_lines(path), (0, b""))
    names = first.decode(errors="replace").strip().split(",")
    extra = len(names) - _FIELDS
    if names[0] != "Time" or extra < 0 or extra % _FIELDS_PER_CHANNEL:
        raise Unavailable(
            f"{path}, line 1: expected 'Time,…,Watts,…,Volts,…,Amps,…,PF,…,Mark,…', found {first[:60]!r}",
            "check replay.path and replay.format",
        )
    percent = read_number("replay", settings, "accuracy_percent", "percent")
    if percent is None:
        source = "typical uncertainty that PTDaemon reports: 0.23–0.7 %"
        accuracy = Accuracy(reading_fraction=_TYPICAL_UNCERTAINTY, source=source)
    else:
        accuracy = Accuracy(reading_fraction=percent / 100, source="set by the user")
    channels = [_channel("wall", accuracy, None)]
    places = [3]
    for place in range(_FIELDS, len(names), _FIELDS_PER_CHANNEL):
        channels.append(_channel(f"wall-{names[place].lower()}", accuracy, "wall"))
        places.append(place + 2)

    def parse(line: bytes) -> Row:
        fields = line.decode("ascii").strip().split(",")
        if len(fields) != len(names):
            raise ValueError(f"{len(fields)} fields where line 1 has {len(names)}")
        if fields[0] != "Time" or fields[2] != "Watts":
            raise ValueError(f"expected 'Time,…,Watts,…', found {line[:40]!r}")
        t_ns = _stamp_ns(fields[1])
        watts = [float(fields[place]) for place in places]
        return Row(t_ns, 0, watts, bytes(_status(value) for value in watts))

    stream = open_text("meter", path, 0, tuple(channels), parse)
    return Trace((stream,), stream.start_ns)


def _channel(device: str, accuracy: Accuracy, parent: str | None) -> Channel:
    return Channel(
        name=f"replay/{device}/power",
        device=device,
        quantity="power",
        unit="W",
        kind="gauge",
        scope="rail" if parent else "wall",
        parent=parent,
        update_period_s=1.0,
        stamped=True,
        window_s=1.0,
        accuracy=accuracy,
        description="one input of the power analyzer" if parent else "power analyzer, sum of its inputs",
    )


def _status(watts: float) -> Status:
    if watts in _REJECTED or not math.isfinite(watts):
        return Status.MISSING
    return Status.NEW if watts >= 0 else Status.INVALID


def _stamp_ns(text: str) -> int:
    match = _STAMP.fullmatch(text)
    if match is None:
        raise ValueError(f"time {text[:40]!r} is not MM-DD-YYYY hh:mm:ss.mmm")
    month, day, year, hour, minute, second = map(int, match.groups()[:6])
    since = datetime(year, month, day, hour, minute, second) - _EPOCH
    return (since.days * 86400 + since.seconds) * 1_000_000_000 + int(match[7].ljust(9, "0"))
