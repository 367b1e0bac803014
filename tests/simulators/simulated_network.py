"""Exchanges of clocks over a network that does not exist, between clocks whose true offset is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from director.session.sync_file import Exchanges

S = 1_000_000_000
Delay = Callable[[np.random.Generator, int], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class SimulatedHost:
    """A host whose clock runs at 1 + drift + wander · sin(2π T / period) of the reference's; T since the begin."""

    begin_ns: int = 5_000 * S  # of the reference
    host_begin_ns: int = 77 * S  # of the host at that instant
    drift: float = 0.0
    wander: float = 0.0
    period_s: float = 600.0

    def at(self, session_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """What the host's clock shows at instants of the reference."""
        since = (session_ns - self.begin_ns).astype(np.float64)
        turn = 2 * np.pi / (self.period_s * S)
        gained = self.drift * since + self.wander * (1 - np.cos(turn * since)) / turn
        return self.host_begin_ns + (session_ns - self.begin_ns) + np.rint(gained).astype(np.int64)


def exchanges(
    host: SimulatedHost,
    seconds: float,
    there: Delay,
    back: Delay,
    *,
    loss: float = 0.0,
    silent_s: tuple[float, float] = (0.0, 0.0),
    asks: int = 12,
    period_s: float = 4.0,
    seed: int = 1,
) -> Exchanges:
    """Bursts of questions, each sent when the one before was answered or lost for half a second.

    `there` and `back` give ns of delay. Nothing is asked in `silent_s`.
    """
    random = np.random.default_rng(seed)
    t1: list[int] = []
    t2: list[int] = []
    t4: list[int] = []
    for burst_s in np.arange(0.5, seconds, period_s):
        if silent_s[0] <= burst_s < silent_s[1]:
            continue
        now = host.begin_ns + round(burst_s * S)
        for out, home, lost in zip(there(random, asks), back(random, asks), random.random(asks) < loss, strict=True):
            if lost:
                now += S // 2
                continue
            t1.append(now)
            t2.append(now + round(out))
            now = t2[-1] + 20_000 + round(home)
            t4.append(now)
    asked, arrived, ended = (np.array(t, np.int64) for t in (t1, t2, t4))
    return Exchanges(host.at(asked), arrived, arrived + 20_000, host.at(ended))


def fixed(milliseconds: float) -> Delay:
    """A delay that is always the same."""
    return lambda _random, count: np.full(count, milliseconds * 1e6)


def jittery(milliseconds: float, jitter_milliseconds: float) -> Delay:
    """A least delay and an exponential one on top."""
    return lambda random, count: milliseconds * 1e6 + random.exponential(jitter_milliseconds * 1e6, count)
