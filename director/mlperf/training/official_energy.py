"""Energy of a node or switch log by the formula of a round (mlcommons/logging, result_summarizer; training_policies).

    node:    E = eff · Σ Pᵢ (tᵢ − tᵢ₋₁) · T / (stop − start),  t₀ = power_measurement_start
    switch:  E = eff · interconnect_power_est · T

T is the time to train; eff the conversion efficiency that the log states last, or 1. Round 4.0 takes the readings as
they stand in the file, up to the stop line; its window ends at the later of stop and last reading. Later rounds sort
by time and take readings after the start line and before the first stop line; the window ends at the stop line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from director.energy.cells import Floats, Ints
from director.mlperf.training.power_log import EFFICIENCY, ESTIMATE, START, STOP, Event, PowerLog

_NOT_DEFINED = "the official code gives no figure"


@dataclass
class OfficialEnergy:
    """Joules of one log. `notes` say where the official code would crash, and what was taken instead."""

    joules: float
    efficiency: float = 1.0
    start_ms: float = np.nan  # the window of the formula; NaN for a switch
    stop_ms: float = np.nan
    notes: list[str] = field(default_factory=list)
    from_code: bool = True  # False: the official code gives nothing here; this is what the rules define


def node_energy(log: PowerLog, train_ms: float, round_name: str) -> OfficialEnergy:
    """Official energy of a node log for a time to train."""
    return _as_in_file(log, train_ms) if round_name == "4.0" else _by_time(log, train_ms)


def switch_energy(log: PowerLog, train_ms: float) -> OfficialEnergy:
    """Official energy of a switch log: its first estimate times the time to train. Measured power does not count."""
    efficiency, watts = 1.0, 0.0
    for event in log.events:
        if event.key == EFFICIENCY and event.value is not None:
            efficiency = event.value
        if event.key == ESTIMATE and event.value is not None:
            watts = event.value
            break
    return OfficialEnergy(efficiency * watts * train_ms / 1000, efficiency)


def estimated_watts(log: PowerLog) -> float | None:
    """The interconnect power that a switch log states, before efficiency; None where it states none."""
    return next((event.value for event in log.events if event.key == ESTIMATE), None)


def _as_in_file(log: PowerLog, train_ms: float) -> OfficialEnergy:
    """The formula of round 4.0."""
    stop = next((event for event in log.events if event.key == STOP), None)
    events = [event for event in log.events if stop is None or event.line < stop.line]
    starts = [event for event in events if event.key == START]
    found = OfficialEnergy(np.nan, _last_efficiency(events))
    last = log.readings if stop is None else stop.before
    if not starts:
        if not last:
            return _without_readings(found, has_window=stop is not None)
        found.from_code = False
        found.notes.append(f"there is no {START} line: the first reading opens the window ({_NOT_DEFINED})")
        starts = [Event(START, log.first_ms, None, 0, 0)]
    found.start_ms = starts[-1].time_ms
    found.stop_ms = stop.time_ms if stop is not None else 0.0
    product = 0.0
    before, at = starts[0].time_ms, 0
    for t, watts in log.in_file_order():
        t, watts = t[: last - at], watts[: last - at]
        if not len(t):
            break
        since = np.concatenate(([before], t[:-1]))
        for start in starts:
            if at <= start.before < at + len(t):
                since[start.before - at] = start.time_ms
        if starts[0].before > at:  # readings before the start line: the official code counts from the epoch
            since[: starts[0].before - at] = t[: starts[0].before - at]
            found.from_code = False
        product += float(watts @ (t - since))
        found.stop_ms = max(found.stop_ms, float(t.max()))
        before, at = float(t[-1]), at + len(t)
    if not found.from_code and starts[0].line:
        found.notes.append(f"readings before the {START} line were left out (the official code counts them from 1970)")
    return _scaled(found, product, train_ms)


def _by_time(log: PowerLog, train_ms: float) -> OfficialEnergy:
    """The formula since round 4.1."""
    events = sorted(log.events, key=lambda event: (event.time_ms, event.before, event.line))
    starts = [event for event in events if event.key == START]
    stops = [event for event in events if event.key == STOP]
    found = OfficialEnergy(np.nan, _last_efficiency(events))
    if not log.readings:
        stop_ms = stops[-1].time_ms if stops else 0.0
        return _without_readings(found, has_window=bool(starts) and stop_ms != starts[-1].time_ms)
    if not starts:
        found.from_code = False
        found.notes.append(f"there is no {START} line: the first reading opens the window ({_NOT_DEFINED})")
        starts = [Event(START, log.first_ms, None, 0, 0)]
    found.start_ms = starts[-1].time_ms
    found.stop_ms = stops[-1].time_ms if stops else log.last_ms
    if not stops:
        found.notes.append(f"there is no {STOP} line: the last reading closes the window")
    elif found.stop_ms <= found.start_ms:
        found.from_code = False
        found.notes.append(f"{STOP} is not later than {START}: the last reading closes the window ({_NOT_DEFINED})")
        found.stop_ms, stops = log.last_ms, []
    return _scaled(found, _product(log, starts, stops[0] if stops else None), train_ms)


def _product(log: PowerLog, starts: list[Event], stop: Event | None) -> float:
    """Σ Pᵢ (tᵢ − tᵢ₋₁) in watt milliseconds, over readings after the first start and before the stop."""
    product, before, at = 0.0, starts[0].time_ms, 0
    for t, watts, places in log.in_time_order():
        first = _place(starts[0], t, places, at)
        last = len(t) if stop is None else _place(stop, t, places, at)
        if first < last:
            since = np.empty(last - first)
            since[0], since[1:] = before, t[first : last - 1]
            for start in starts[1:]:
                later = _place(start, t, places, at) - first
                if 0 <= later < len(since) and start.time_ms >= since[later]:
                    since[later] = start.time_ms
            product += float(watts[first:last] @ (t[first:last] - since))
            before = float(t[last - 1])
        at += len(t)
    return product


def _place(event: Event, t: Floats, places: Ints | None, at: int) -> int:
    """How many of the sorted readings come before an event: at its own time, those above it in the file."""
    left = int(t.searchsorted(event.time_ms, "left"))
    right = int(t.searchsorted(event.time_ms, "right"))
    if places is None:
        return min(max(event.before - at, left), right)
    return left + int(places[left:right].searchsorted(event.before))


def _last_efficiency(events: list[Event]) -> float:
    stated = [event.value for event in events if event.key == EFFICIENCY and event.value is not None]
    return stated[-1] if stated else 1.0


def _without_readings(found: OfficialEnergy, has_window: bool) -> OfficialEnergy:
    if has_window:
        found.joules = 0.0
        found.notes.append("there is no power reading: the official code counts 0 J")
        return found
    found.from_code = False
    found.notes.append(f"there is no power reading, and no window: there is no energy ({_NOT_DEFINED})")
    return found


def _scaled(found: OfficialEnergy, product: float, train_ms: float) -> OfficialEnergy:
    window = found.stop_ms - found.start_ms
    if window > 0:
        found.joules = found.efficiency * product * train_ms / window / 1000
    else:
        found.from_code = False
        found.notes.append(f"the power log's window has no length: there is no energy ({_NOT_DEFINED})")
    return found


def window_mean_watts(log: PowerLog, start_ms: float, stop_ms: float) -> float:
    """Mean of straight lines between readings, over a window; beyond them the nearest reading holds. NaN: none."""
    total, last = 0.0, None
    for t, watts in _joined(log):
        if last is None and t[0] > start_ms:
            total += float(watts[0]) * (min(float(t[0]), stop_ms) - start_ms)
        total += _between(t, watts, start_ms, stop_ms)
        last = float(t[-1]), float(watts[-1])
    if last is None or stop_ms <= start_ms:
        return float("nan")
    return (total + last[1] * max(0.0, stop_ms - max(last[0], start_ms))) / (stop_ms - start_ms)


def _joined(log: PowerLog) -> Iterator[tuple[Floats, Floats]]:
    """Readings in order of time; each piece begins with the last of the one before."""
    before: tuple[Floats, Floats] | None = None
    for t, watts, _ in log.in_time_order():
        if before is not None:
            t, watts = np.concatenate((before[0], t)), np.concatenate((before[1], watts))
        before = t[-1:], watts[-1:]
        yield t, watts


def _between(t: Floats, watts: Floats, start_ms: float, stop_ms: float) -> float:
    if len(t) < 2 or t[-1] <= start_ms or t[0] >= stop_ms:
        return 0.0
    if t[0] < start_ms or t[-1] > stop_ms:
        edges = np.clip([start_ms, stop_ms], t[0], t[-1])
        inside = (t > edges[0]) & (t < edges[1])
        ends = np.interp(edges, t, watts)
        t = np.concatenate((edges[:1], t[inside], edges[1:]))
        watts = np.concatenate((ends[:1], watts[inside], ends[1:]))
    return float((t[1:] - t[:-1]) @ (watts[1:] + watts[:-1])) / 2
