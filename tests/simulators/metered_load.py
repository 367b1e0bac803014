"""Loads of known power: what a meter looks at, and the exact energy between any two instants."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SquareLoad:
    """`high` watts for a share of each period, `low` for the rest. A period of 0: always `high`."""

    low: float
    high: float
    period_s: float = 0.0
    duty: float = 0.5
    begin_s: float = 0.0
    volts: float = 230.0
    power_factor: float = 0.95

    def energy(self, t_s: float) -> float:
        """∫ P from `begin_s` to t, in joules."""
        t_s -= self.begin_s
        if not self.period_s:
            return self.high * t_s
        whole = math.floor(t_s / self.period_s)
        rest = t_s - whole * self.period_s
        on = self.duty * self.period_s
        of_period = self.high * on + self.low * (self.period_s - on)
        return whole * of_period + self.high * min(rest, on) + self.low * max(rest - on, 0.0)

    def mean_watts(self, begin_s: float, end_s: float) -> float:
        """Between two instants."""
        return (self.energy(end_s) - self.energy(begin_s)) / (end_s - begin_s)
