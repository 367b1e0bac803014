"""How a host's monotonic clock maps to the session's, with a bound on the error.

A question that left at t1 (host) arrived at t2 (reference), its answer left at t3 and arrived at t4. No message
arrives before it leaves, so the offset, reference minus host, was at most t2 − t1 at t1, and at least t3 − t4 at t4.
That is all that anybody can know: which way took how long cannot be told from four instants, so of one exchange the
bound is half its round trip. Every exchange limits the offset at other instants too, by as much less as the clocks may
have drifted apart since. What all exchanges allow at an instant is an interval: its middle is the estimate, half of it
the bound. A delayed exchange allows more than others do and so changes nothing. docs/formulas/clock-sync.md has the
formulas.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from director.session.clock_pairs import MAX_SLEW, WallClock
from director.session.sync_file import Exchanges

Instants = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

WANDER = 5e-6  # how far a rate strays from its mean: temperature, and steering by chrony that has settled
MAX_WANDER = 1e-3  # two kernels, each steering by at most 500 ppm the other way
UNSEEN_NS = 60_000_000_000  # farther than this from any exchange nothing shows what the clocks did …
UNSEEN_RATE = 100e-6  # … and they may run as far apart as the worst of oscillators
WALL_APART_NS = 1_000_000_000  # of the wall clocks of two machines, where nothing else ties them
_ISOLATED_RATE = 50e-6
_LATEST = 1 << 61  # these limits keep every difference within 64 bits
_TURNS = 6  # each makes the error of the inverse a thousandth or less


class ClockModel(ABC):
    """Maps a host's monotonic instants to the session's clock and back, in ns, with how wrong each may be."""

    @abstractmethod
    def offset(self, host_ns: Instants) -> Instants:
        """Session minus host."""

    @abstractmethod
    def bound(self, host_ns: Instants) -> Instants:
        """How wrong the offset may be."""

    @abstractmethod
    def to_host(self, session_ns: Instants) -> Instants:
        """The host's instants."""

    def to_session(self, host_ns: Instants) -> tuple[Instants, Instants]:
        """The session's instants, and how wrong each may be."""
        return host_ns + self.offset(host_ns), self.bound(host_ns)


@dataclass(frozen=True)
class ClockJump:
    """One of the two monotonic clocks stood still (a machine slept, or was moved) between two instants of the host."""

    after_ns: int
    before_ns: int
    jump_ns: int  # change of the offset


@dataclass(frozen=True)
class _Stretch:
    """Exchanges without a jump among them. x counts ns from `origin_ns` of the host; the offset at x is
    `base_ns` + rate · x + residual, and the residual lies between `low` and `high`, which are given at `knots`."""

    origin_ns: int
    base_ns: int
    rate: float
    wander: float  # how far the rate may be from `rate`
    knots: Floats
    low: Floats
    high: Floats

    @property
    def first_ns(self) -> int:
        return self.origin_ns + int(self.knots[0])

    @property
    def last_ns(self) -> int:
        return self.origin_ns + int(self.knots[-1])

    def offset(self, host_ns: Instants) -> Instants:
        x = (host_ns - self.origin_ns).astype(np.float64)
        residual = np.interp(x, self.knots, (self.low + self.high) / 2)
        moved: Instants = np.rint(self.rate * x + residual).astype(np.int64)
        return self.base_ns + moved

    def bound(self, host_ns: Instants) -> Instants:
        x = (host_ns - self.origin_ns).astype(np.float64)
        middle = np.interp(x, self.knots, (self.low + self.high) / 2)
        right = np.clip(np.searchsorted(self.knots, x), 0, len(self.knots) - 1)
        left = np.maximum(right - 1, 0)
        away = [np.abs(x - self.knots[side]) for side in (left, right)]
        grown = [self.wander * distance for distance in away]
        high = np.minimum(self.high[left] + grown[0], self.high[right] + grown[1])
        low = np.maximum(self.low[left] - grown[0], self.low[right] - grown[1])
        unseen = np.maximum(np.minimum(*away) - UNSEEN_NS, 0.0)
        worst = np.maximum(high - middle, middle - low) + UNSEEN_RATE * unseen
        bound: Instants = np.ceil(worst).astype(np.int64) + 1  # 1: offsets are rounded
        return bound

    def to_host(self, session_ns: Instants) -> Instants:
        host = session_ns - self.base_ns
        for _ in range(_TURNS):
            host = session_ns - self.offset(host)
        return host


_Ask = Callable[[_Stretch, Instants], Instants]


class SyncedClock(ClockModel):
    """A clock that is tied by exchanges.

    Raises:
        ValueError: no usable exchange.
    """

    def __init__(self, exchanges: Exchanges) -> None:
        found = _without_isolated(_usable(exchanges))
        if not len(found):
            raise ValueError("no exchange with the director")
        gap = _gap(found, slice(None, -1), slice(1, None)) - MAX_WANDER * np.diff(found.t1)
        cuts = np.flatnonzero(gap > 0)
        self.exchanges = len(found)
        self._stretches = [
            _stretch(_part(found, slice(a, b)))
            for a, b in itertools.pairwise([0, *(int(i) + 1 for i in cuts), len(found)])
        ]
        edges = itertools.pairwise(self._stretches)
        # In the gap beside a jump the nearer stretch speaks.
        self._borders = np.array([one.last_ns + (two.first_ns - one.last_ns) // 2 for one, two in edges], np.int64)

    @property
    def jumps(self) -> list[ClockJump]:
        """Where the two clocks cannot have run on together."""
        found = []
        for one, two in itertools.pairwise(self._stretches):
            at = np.array([two.first_ns], np.int64)
            found.append(ClockJump(one.last_ns, two.first_ns, int((two.offset(at) - one.offset(at))[0])))
        return found

    @property
    def drift(self) -> tuple[float, float]:
        """Rate of the offset, and how far from it the rate may have been at any time; of the longest stretch."""
        longest = max(self._stretches, key=lambda stretch: stretch.last_ns - stretch.first_ns)
        return longest.rate, longest.wander

    def offset(self, host_ns: Instants) -> Instants:
        return self._by_stretch(host_ns, lambda stretch, at: stretch.offset(at))

    def bound(self, host_ns: Instants) -> Instants:
        bound = self._by_stretch(host_ns, lambda stretch, at: stretch.bound(at))
        for one, two in itertools.pairwise(self._stretches):
            beside = np.flatnonzero((host_ns > one.last_ns) & (host_ns < two.first_ns))
            at = host_ns[beside]
            apart = np.abs(two.offset(at) - one.offset(at)) + np.maximum(one.bound(at), two.bound(at))
            bound[beside] = np.maximum(bound[beside], apart)
        return bound

    def to_host(self, session_ns: Instants) -> Instants:
        host = self._stretches[0].to_host(session_ns)
        for number, stretch in enumerate(self._stretches[1:]):
            later = stretch.to_host(session_ns)
            host = np.where(later >= self._borders[number], later, np.minimum(host, self._borders[number]))
        return host

    def _by_stretch(self, host_ns: Instants, ask: _Ask) -> Instants:
        if len(self._stretches) == 1:
            return ask(self._stretches[0], host_ns)
        answer = np.empty_like(host_ns)
        number = np.searchsorted(self._borders, host_ns, side="right")
        for k in np.unique(number).tolist():
            answer[number == k] = ask(self._stretches[k], host_ns[number == k])
        return answer


def _part(exchanges: Exchanges, which: slice | Instants | npt.NDArray[np.bool_]) -> Exchanges:
    return Exchanges(exchanges.t1[which], exchanges.t2[which], exchanges.t3[which], exchanges.t4[which])


def _usable(exchanges: Exchanges) -> Exchanges:
    """Those that can have been, in the order in which they were asked."""
    t1, t2, t3, t4 = exchanges.t1, exchanges.t2, exchanges.t3, exchanges.t4
    within = np.ones(len(t1), bool)
    for t in (t1, t2, t3, t4):
        within &= (t > -_LATEST) & (t < _LATEST)
    kept = _part(exchanges, within)
    kept = _part(kept, (kept.t4 >= kept.t1) & (kept.t3 >= kept.t2) & (kept.t4 - kept.t1 >= kept.t3 - kept.t2))
    return _part(kept, np.argsort(kept.t1, kind="stable"))


def _gap(exchanges: Exchanges, before: slice, after: slice) -> Floats:
    """How far apart the offsets are that exchanges allow, by pairs; 0 or less: some offset would do for both."""
    one, two = _part(exchanges, before), _part(exchanges, after)
    base = one.t2 - one.t1  # differences first: offsets may be near 2^62
    low = np.maximum((one.t3 - one.t4) - base, (two.t3 - two.t4) - base)
    high = np.minimum(np.zeros_like(base), (two.t2 - two.t1) - base)
    return (low - high).astype(np.float64)


def _without_isolated(found: Exchanges) -> Exchanges:
    """Leave out what contradicts both its neighbours while these agree: no clock leaps away and back."""
    if len(found) < 3:
        return found
    apart = np.diff(found.t1).astype(np.float64)
    beside = _gap(found, slice(None, -1), slice(1, None)) - _ISOLATED_RATE * apart
    around = _gap(found, slice(None, -2), slice(2, None)) - _ISOLATED_RATE * (apart[1:] + apart[:-1])
    isolated = np.zeros(len(found), bool)
    isolated[1:-1] = (beside[:-1] > 0) & (beside[1:] > 0) & (around <= 0)
    return _part(found, ~isolated)


def _stretch(found: Exchanges) -> _Stretch:
    origin, base = int(found.t1[0]), int(found.t2[0]) - int(found.t1[0])
    asked, answered = ((t - origin).astype(np.float64) for t in (found.t1, found.t4))
    # 1 ns: clocks tell whole nanoseconds
    high, low = (
        ((found.t2 - found.t1) - base + 1).astype(np.float64),
        ((found.t3 - found.t4) - base - 1).astype(np.float64),
    )
    rate, doubt = _mean_rate(asked, answered, low, high)
    knots = np.unique(np.concatenate((asked, answered)))
    at_most, at_least = np.full(len(knots), np.inf), np.full(len(knots), -np.inf)
    np.minimum.at(at_most, np.searchsorted(knots, asked), high - rate * asked)
    np.maximum.at(at_least, np.searchsorted(knots, answered), low - rate * answered)
    wander = doubt + WANDER
    upper, lower = _limits(knots, at_most, at_least, wander)
    while wander < MAX_WANDER and (upper < lower - 1).any():  # 1 ns: rounding
        wander = min(4 * wander, MAX_WANDER)  # noise hides a part of what is needed
        upper, lower = _limits(knots, at_most, at_least, wander)
    return _Stretch(origin, base, rate, wander, knots, np.minimum(lower, upper), np.maximum(lower, upper))


def _mean_rate(asked: Floats, answered: Floats, low: Floats, high: Floats) -> tuple[float, float]:
    """The mean rate of the offset, and how wrong it may be: from the best exchanges near the begin and the end."""
    first, last = asked[0], asked[-1]
    quarter, trip = (last - first) / 4, high - low
    early, late = np.flatnonzero(asked <= first + quarter), np.flatnonzero(asked >= last - quarter)[::-1]
    a, b = early[trip[early].argmin()], late[trip[late].argmin()]
    if answered[b] <= asked[a]:
        return 0.0, MAX_SLEW
    least = (low[b] - high[a]) / (answered[b] - asked[a])
    most = (high[b] - low[a]) / (asked[b] - answered[a]) if asked[b] > answered[a] else np.inf
    if most < -MAX_SLEW or least > MAX_SLEW:
        return float(least + most) / 2, float(most - least) / 2
    least, most = max(least, -MAX_SLEW), min(most, MAX_SLEW)
    return float(least + most) / 2, float(most - least) / 2


def _limits(knots: Floats, at_most: Floats, at_least: Floats, wander: float) -> tuple[Floats, Floats]:
    return _spread(knots, at_most, wander), -_spread(knots, -at_least, wander)


def _spread(knots: Floats, at_most: Floats, wander: float) -> Floats:
    """What limits at knots allow at every knot, where a limit grows by `wander` with the distance."""
    slope = wander * knots
    forward = np.minimum.accumulate(at_most - slope) + slope
    backward = np.minimum.accumulate((at_most + slope)[::-1])[::-1] - slope
    return np.minimum(forward, backward)


class WallTiedClock(ClockModel):
    """A clock that only the wall clocks of both machines tie: they are taken to be within a second of each other."""

    def __init__(self, host: WallClock, reference: WallClock) -> None:
        self._host = host
        self._reference = reference

    def offset(self, host_ns: Instants) -> Instants:
        return self._reference.to_monotonic(self._host.to_wall(host_ns)[0])[0] - host_ns

    def bound(self, host_ns: Instants) -> Instants:
        wall, of_host = self._host.to_wall(host_ns)
        return of_host + self._reference.to_monotonic(wall)[1] + WALL_APART_NS

    def to_host(self, session_ns: Instants) -> Instants:
        return self._host.to_monotonic(self._reference.to_wall(session_ns)[0])[0]
