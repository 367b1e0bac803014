"""A load that goes on and off, as a channel sees it: for how long it was on, and what a filter makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Load:
    """When the load was on: instants of its edges in ns on the clock of the readings, on and off by turns."""

    edges_ns: npt.NDArray[np.int64]

    def seconds_on(self, at_s: Floats, origin_ns: int) -> Floats:
        """How long it has been on up to each instant, given in seconds after `origin_ns`."""
        edges_s = (self.edges_ns - origin_ns) * 1e-9
        lasted_s = np.diff(edges_s) * (np.arange(len(edges_s) - 1) % 2 == 0)
        found: Floats = np.interp(at_s, edges_s, np.concatenate([[0.0], np.cumsum(lasted_s)]))
        return found

    def filtered(self, at_s: Floats, origin_ns: int, time_constant_s: float) -> Floats:
        """The load behind a low-pass filter of first order, at instants in seconds after `origin_ns`."""
        edges_s = (self.edges_ns - origin_ns) * 1e-9
        level, levels = 0.0, [0.0]
        for number, lasted_s in enumerate(np.diff(edges_s).tolist()):
            target = float(number % 2 == 0)
            level = target + (level - target) * math.exp(-lasted_s / time_constant_s)
            levels.append(level)
        count = np.searchsorted(edges_s, at_s, side="right")
        index = np.clip(count - 1, 0, len(edges_s) - 1)
        target_at = (count % 2).astype(np.float64)
        decay = np.exp(-np.maximum(at_s - edges_s[index], 0.0) / time_constant_s)
        found: Floats = np.where(count == 0, 0.0, target_at + (np.array(levels)[index] - target_at) * decay)
        return found
