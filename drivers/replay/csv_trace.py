"""Reads traces from CSV files whose columns carry their units in their names: time_s, gpu0_watts, gpu0_celsius."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from drivers.contract import Accuracy, Channel, Kind, Quantity, Row, Scope, Status, Unavailable
from drivers.replay.trace import Trace, numbered_lines, open_text
from drivers.settings import read_number

_TIME_COLUMN = re.compile(r"(t|time|timestamp|datetime|elapsed|epoch|monotonic|wall)(?:_(s|ms|us|ns))?", re.IGNORECASE)
_NS_PER: Mapping[str | None, int] = {None: 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_OLDEST_EPOCH_NS = 10**18  # September 2001: a number below it counts from the start of the trace


class _Unit(NamedTuple):
    quantity: Quantity
    unit: str
    kind: Kind = "gauge"
    scale: float = 1.0


_UNITS: Mapping[str, _Unit] = {
    "watts": _Unit("power", "W"),
    "w": _Unit("power", "W"),
    "joules": _Unit("energy", "J", "counter", 1e-6),  # raw values are whole µJ
    "j": _Unit("energy", "J", "counter", 1e-6),
    "celsius": _Unit("temperature", "°C"),
    "mhz": _Unit("frequency", "MHz"),
    "percent": _Unit("utilization", "%"),
    "volts": _Unit("voltage", "V"),
    "amps": _Unit("current", "A"),
}
_DEVICE = re.compile(r"(wall|node|psys|module|package|cpu|dram|gpu|battery)[-_]?(\d*)(?![a-z0-9])", re.IGNORECASE)
_SCOPES: Mapping[str, Scope] = {
    "wall": "wall",
    "node": "node",
    "psys": "psys",
    "module": "module",
    "package": "package",
    "cpu": "package",
    "dram": "dram",
    "gpu": "gpu",
    "battery": "battery",
}


def open_csv(path: Path, settings: Mapping[str, str]) -> Trace:
    """Open a CSV file with a header line.

    Raises:
        Unavailable: it has no column of time or none of values, or its rows cannot be read.
        OSError: it cannot be read.
    """
    _, first = next(numbered_lines(path), (0, b""))
    header = first.decode("utf-8-sig", errors="replace").strip()
    delimiter = max(",;\t", key=header.count)
    try:
        columns = [name.strip() for name in _fields(header, delimiter)]
    except ValueError as error:
        raise Unavailable(f"{path}, line 1: no header of a CSV file: {error}", "check replay.path") from error
    time_place = _time_column(path, columns, settings.get("time_column"))
    accuracy = None
    percent = read_number("replay", settings, "accuracy_percent", "percent")
    if percent is not None:
        accuracy = Accuracy(reading_fraction=percent / 100, source="set by the user")
    power_column = settings.get("power_column")
    if power_column is not None and power_column not in columns:
        raise _no_column(path, columns, power_column)
    channels: list[Channel] = []
    places: list[int] = []
    for place, name in enumerate(columns):
        channel = _channel(name, accuracy, name == power_column)
        if channel is not None and place != time_place:
            channels.append(channel)
            places.append(place)
    if not channels:
        raise Unavailable(
            f"{path}, line 1: no column of values among: {_listed(columns)}",
            f"end their names in one of: {', '.join('_' + unit for unit in _UNITS)}; or set replay.power_column=NAME",
        )
    if len({channel.name for channel in channels}) < len(channels):
        raise Unavailable(f"{path}, line 1: two columns have one name: {_listed(columns)}", "rename one of them")
    unit = _TIME_COLUMN.fullmatch(columns[time_place])
    to_ns = _time_reader(_NS_PER[unit[2].lower() if unit and unit[2] else None])
    readers = [_read_counter if channel.kind == "counter" else _read_gauge for channel in channels]

    def parse(line: bytes) -> Row:
        fields = _fields(line.decode().strip("\r\n"), delimiter)
        if len(fields) != len(columns):
            raise ValueError(f"{len(fields)} fields where line 1 has {len(columns)}")
        t_ns = to_ns(fields[time_place].strip())
        values = [read(fields[place]) for read, place in zip(readers, places, strict=True)]
        statuses = bytes(Status.MISSING if value is None else Status.NEW for value in values)
        return Row(t_ns, 0, [0 if value is None else value for value in values], statuses)

    stream = open_text("trace", path, 1, tuple(channels), parse)
    if stream.start_ns >= _OLDEST_EPOCH_NS:
        return Trace((stream,), stream.start_ns)
    # Only relative times: the file was last written when its trace ended.
    return Trace((stream,), path.stat().st_mtime_ns - (stream.end_ns - stream.start_ns))


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _time_column(path: Path, columns: list[str], asked: str | None) -> int:
    if asked is not None:
        if asked not in columns:
            raise _no_column(path, columns, asked)
        return columns.index(asked)
    for place, name in enumerate(columns):
        if _TIME_COLUMN.fullmatch(name):
            return place
    fix = "name it time_s, time_ms, time_ns or timestamp; or set replay.time_column=NAME"
    raise Unavailable(f"{path}, line 1: no column of time among: {_listed(columns)}", fix)


def _no_column(path: Path, columns: list[str], asked: str) -> Unavailable:
    return Unavailable(f"{path}, line 1: there is no column {asked!r}", f"use one of: {_listed(columns)}")


def _listed(columns: list[str]) -> str:
    return ", ".join(repr(name[:40]) for name in columns[:20])


def _channel(column: str, accuracy: Accuracy | None, is_wall_power: bool) -> Channel | None:
    """The channel of a column; None where its name does not end in a unit."""
    stem, _, suffix = column.lower().rpartition("_")
    unit = _UNITS["watts"] if is_wall_power else _UNITS.get(suffix)
    if unit is None:
        return None
    known = _DEVICE.match(stem)
    device = stem or suffix
    scope: Scope = "rail"  # its place in the power tree is unknown
    if is_wall_power:
        device, scope = "wall", "wall"
    elif known:
        kind, number = known[1].lower(), known[2]
        scope = _SCOPES[kind]
        device = f"package-{number or 0}" if scope == "package" else kind + number
    has_scope = unit.quantity in ("power", "energy")
    return Channel(
        name=f"replay/{device}/{column.lower()}",
        device=device,
        quantity=unit.quantity,
        unit=unit.unit,
        kind=unit.kind,
        scale=unit.scale,
        scope=scope if has_scope else "none",
        accuracy=accuracy if has_scope else None,
        description=f"column {column}",
    )


def _time_reader(ns_per_unit: int) -> Callable[[str], int]:
    def to_ns(text: str) -> int:
        try:
            return int(text) * ns_per_unit  # whole nanoseconds since the epoch do not fit a float
        except ValueError:
            try:
                seconds = float(text)
            except ValueError:
                return _iso_ns(text)
            if not math.isfinite(seconds):
                raise ValueError(f"time {text[:40]!r} is not finite") from None
            return round(seconds * ns_per_unit)

    return to_ns


def _iso_ns(text: str) -> int:
    """ISO 8601 date and time; without a zone it is taken as UTC."""
    whole = text.replace("/", "-").replace("Z", "+00:00")
    whole = re.sub(r"\.(\d+)", lambda match: "." + match[1][:6].ljust(6, "0"), whole)
    try:
        stamp = datetime.fromisoformat(whole)
    except ValueError:
        raise ValueError(f"time {text[:40]!r} is neither a number nor a date and time") from None
    if stamp.tzinfo is None:
        stamp = stamp.replace(tzinfo=timezone.utc)
    since = stamp - _EPOCH
    return ((since.days * 86400 + since.seconds) * 10**6 + since.microseconds) * 1000


def _read_gauge(text: str) -> float | None:
    """A finite number; None for an empty cell, a word, NaN and infinity."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _read_counter(text: str) -> int | None:
    joules = _read_gauge(text)
    return None if joules is None or not abs(joules) < 1e12 else round(joules * 1e6)
