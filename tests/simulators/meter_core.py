"""What all simulated meters do: average over a window, update at a period, clip, range, integrate.

Written from the meters' manuals; no real meter was at hand. Values have the errors that a meter may have: a share of
the reading and a share of the range, both fixed for one instance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from metered_load import SquareLoad

VOLTS = (15.0, 30.0, 60.0, 150.0, 300.0, 600.0)
AMPERES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
OVER = 1.3  # of the range, rms: up to there it measures
DOWN = 0.3  # of the range: at and below it automatic ranging goes down


@dataclass(frozen=True)
class Shown:
    """What one element shows since its last update. NaN: none; infinite: it clipped."""

    volts: float = math.nan
    amperes: float = math.nan
    watts: float = math.nan
    power_factor: float = math.nan
    over: bool = False


@dataclass
class MeterCore:
    """One meter. Time is whatever its clock says, in seconds."""

    clock_s: Callable[[], float]
    loads: Sequence[SquareLoad]
    period_s: float = 1.0
    phase_s: float = 0.0
    reading_error: float = 0.0
    range_error: float = 0.0
    volts_range: float = 300.0
    amperes_range: float = 5.0
    auto_volts: bool = False
    auto_amperes: bool = False
    integrating: bool = False
    holds_integral: bool = False
    updates: int = 0
    fell: bool = False  # an update was completed since this was asked
    shown: list[Shown] = field(default_factory=list)
    watt_hours: list[float] = field(default_factory=list)
    _last: int | None = None
    _integral_begin_s: float = 0.0

    def __post_init__(self) -> None:
        self.shown = [Shown() for _ in self.loads]
        self.watt_hours = [0.0 for _ in self.loads]

    def advance(self) -> None:
        """Complete the updates that have come due."""
        now = math.floor((self.clock_s() - self.phase_s) / self.period_s)
        if self._last is None:
            self._last = now - 1
        for number in range(max(self._last, now - 3) + 1, now + 1):
            self._update(self.phase_s + number * self.period_s)
        self._last = max(now, self._last)

    def set_period(self, period_s: float) -> None:
        """Another update rate: the next update comes a period from now."""
        self.advance()
        self.period_s = period_s
        self.phase_s = self.clock_s()
        self._last = 0

    def start_integration(self) -> None:
        self.advance()
        self.integrating = self.holds_integral = True
        self._integral_begin_s = self.clock_s()

    def stop_integration(self) -> None:
        self.advance()
        self.integrating = False

    def reset_integration(self) -> None:
        self.holds_integral = False
        self.watt_hours = [0.0 for _ in self.loads]

    def _update(self, at_s: float) -> None:
        self.updates += 1
        self.fell = True
        previous, self.shown = self.shown, [self._measure(load, at_s) for load in self.loads]
        self._range_automatically(previous)
        if self.integrating:
            gain = 1 + self.reading_error
            self.watt_hours = [
                gain * (load.energy(at_s) - load.energy(self._integral_begin_s)) / 3600 for load in self.loads
            ]

    def _measure(self, load: SquareLoad, at_s: float) -> Shown:
        true_watts = load.mean_watts(at_s - self.period_s, at_s)
        amperes = true_watts / (load.volts * load.power_factor)
        over = load.volts > OVER * self.volts_range or amperes > OVER * self.amperes_range
        if over:
            return Shown(math.inf, math.inf, math.inf, math.nan, True)
        watts = true_watts * (1 + self.reading_error) + self.range_error * self.volts_range * self.amperes_range
        apparent = load.volts * amperes
        return Shown(load.volts, amperes, watts, min(watts / apparent, 1.0) if apparent else 0.0)

    def _range_automatically(self, previous: Sequence[Shown]) -> None:
        largest = max(self._true_amperes(load) for load in self.loads)
        if self.auto_amperes:
            self.amperes_range = _ranged(AMPERES, self.amperes_range, largest)
        if self.auto_volts:
            self.volts_range = _ranged(VOLTS, self.volts_range, max(load.volts for load in self.loads))

    def _true_amperes(self, load: SquareLoad) -> float:
        now_s = self.clock_s()
        return load.mean_watts(now_s - self.period_s, now_s) / (load.volts * load.power_factor)


def _ranged(ranges: Sequence[float], present: float, value: float) -> float:
    """One step of automatic ranging."""
    place = ranges.index(present)
    if value > OVER * present and place + 1 < len(ranges):
        return ranges[place + 1]
    if place and value <= DOWN * present and value <= 1.25 * ranges[place - 1]:
        return ranges[place - 1]
    return present
