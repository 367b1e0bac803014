"""Which streams are sampled and how fast: from the drivers that opened and the rates that were asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from drivers.contract import Driver, Group
from drivers.discovery import Opened, Refused
from power_agent.characteristics import NOTHING_KNOWN, Characteristics
from power_agent.event_log import EventLog
from power_agent.messages import DriverState, Stream
from power_agent.row_format import row_struct

MIN_TAIL_S = 0.2
BUFFER_BYTES = 16 << 20  # all streams together, while the spool cannot be written
MIN_STREAM_BUFFER_BYTES = 256 << 10


@dataclass(frozen=True)
class PlannedDriver:
    """A driver with the stream of each of its groups; without the driver and the groups where the device is lost."""

    name: str
    driver: Driver | None
    streams: list[tuple[Stream, Group | None]]


def plan_streams(
    results: Sequence[Opened | Refused],
    rates_hz: Mapping[str, float],
    log: EventLog,
    earlier: Sequence[Stream] = (),
    characteristics: Characteristics = NOTHING_KNOWN,
) -> tuple[list[DriverState], list[PlannedDriver]]:
    """Give each group of each open driver a stream; rates are looked up by "driver.group", then by "driver".

    What drivers do not know of their channels is filled in from `characteristics`.
    A driver whose groups make no sense is closed and told as not usable. A group that has a stream among `earlier`
    keeps it, as it was: its channels may be others by now.
    """
    states: list[DriverState] = []
    planned: list[PlannedDriver] = []
    unused = set(rates_hz)
    known = {(stream.driver, stream.group): stream for stream in earlier}
    next_id = max((stream.id + 1 for stream in earlier), default=0)
    for result in results:
        unused -= {name for name in rates_hz if name.partition(".")[0] == result.name}
        if isinstance(result, Refused):
            states.append(DriverState(driver=result.name, usable=False, reason=result.reason, fix=result.fix))
            continue
        try:
            found = _streams(result, rates_hz, next_id, log, characteristics)
            streams: list[tuple[Stream, Group | None]] = [
                (known.get((stream.driver, stream.group), stream), group) for stream, group in found
            ]
            notes = [(note.reason, note.fix) for note in result.driver.notes]
        except Exception as error:  # third-party code may describe itself in any way
            reason = f"what it says about its groups is not valid: {type(error).__name__}: {error}"
            fix = "report this to the driver's authors; the other drivers go on without it"
            states.append(DriverState(driver=result.name, usable=False, reason=reason, fix=fix))
            result.driver.close()
            continue
        next_id += len(streams)
        states.append(DriverState(driver=result.name, usable=True, notes=notes))
        planned.append(PlannedDriver(result.name, result.driver, streams))
        groups = {f"{result.name}.{stream.group}" for stream, _ in streams}
        unused |= {name for name in rates_hz if name.startswith(f"{result.name}.") and name not in groups}
    for name in sorted(unused):
        log.add("warning", "rates", f"a rate is given for {name!r}, but no driver or group here has that name")
    return states, planned


def check_rates(rates_hz: Mapping[str, float]) -> None:
    """Look at the rates that a user asks for.

    Raises:
        ValueError: one of them is no rate.
    """
    for name, rate_hz in rates_hz.items():
        if not (math.isfinite(rate_hz) and rate_hz > 0):
            raise ValueError(f"the rate of {name!r} is {rate_hz} Hz; give a number above 0, or leave the driver out")


def tail_s(streams: Sequence[Stream]) -> float:
    """How long to sample on after the work, in seconds.

    Half an averaging window centres the last value on the end of the work; two updates and the device's delay make sure
    that it has come.
    """
    tails = [MIN_TAIL_S]
    for stream in streams:
        for channel in stream.channels:
            if channel.quantity in ("power", "energy"):
                period_s = max(channel.update_period_s or 0.0, 1 / stream.rate_hz)
                tails.append((channel.window_s or 0.0) / 2 + channel.delay_s + 2 * period_s)
    return max(tails)


def buffer_limits(streams: Sequence[Stream]) -> dict[int, int]:
    """Bytes that each stream may hold in memory: shares by their rates, so that all would be full after one time."""
    bytes_per_s = {stream.id: stream.rate_hz * row_struct(stream.channels).size for stream in streams}
    total = sum(bytes_per_s.values())
    return {
        stream: max(MIN_STREAM_BUFFER_BYTES, int(BUFFER_BYTES * share / total)) for stream, share in bytes_per_s.items()
    }


def _streams(
    opened: Opened, rates_hz: Mapping[str, float], first_id: int, log: EventLog, characteristics: Characteristics
) -> list[tuple[Stream, Group]]:
    streams: list[tuple[Stream, Group]] = []
    for group in opened.driver.groups:
        full_name = f"{opened.name}.{group.name}"
        if not re.fullmatch(r"[\w-]+", group.name) or any(group.name == other.group for other, _ in streams):
            raise ValueError(f"{full_name!r} is no name for a file, or the name of two groups")
        if not (group.max_hz > 0 and math.isfinite(group.default_hz) and group.default_hz > 0):
            raise ValueError(f"{full_name} has the rates default {group.default_hz} Hz, highest {group.max_hz} Hz")
        rate_hz = rates_hz.get(full_name, rates_hz.get(opened.name, group.default_hz))
        if rate_hz > group.max_hz:
            log.add("info", full_name, f"sampled at {group.max_hz:g} Hz, its highest rate, not at {rate_hz:g} Hz")
            rate_hz = group.max_hz
        stream = Stream(
            id=first_id + len(streams),
            driver=opened.name,
            group=group.name,
            rate_hz=rate_hz,
            channels=[characteristics.fill(channel) for channel in group.channels],
        )
        msgspec.json.decode(msgspec.json.encode(stream), type=Stream)  # what the spool's reader will demand
        streams.append((stream, group))
    return streams
