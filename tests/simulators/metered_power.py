"""A device's power sensor as it behaves: it averages over a window, has a new value now and then, and may freeze."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class MeteredPower:
    """True power is base + swing·sin(2πt/period); shown at t is its mean over the window before the last update.

    Times in seconds, power in watts. A sensor that froze shows what it showed then.
    """

    base: float = 400.0
    swing: float = 100.0
    period: float = 10.0
    window: float = 1.0
    update: float = 1.0
    frozen_from: float = math.inf

    def updated(self, t: float) -> float:
        """When the value that is shown at t was made."""
        return math.floor(min(t, self.frozen_from) / self.update) * self.update

    def mean(self, a: float, b: float) -> float:
        """Of the true power from a to b, by its integral."""
        omega = 2 * math.pi / self.period
        if b <= a:
            return self.base + self.swing * math.sin(omega * b)
        return self.base + self.swing * (math.cos(omega * a) - math.cos(omega * b)) / (omega * (b - a))

    def shown(self, t: float) -> float:
        end = self.updated(t)
        return self.mean(end - self.window, end)
