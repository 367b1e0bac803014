"""What plots of a session show: envelopes of power, what meters tell besides, temperature and clocks.

They are cut from traces in bounded memory.

An envelope divides the time into equal bins and gives for each the least, mean and largest value, so that a peak of
one reading is seen however many readings a bin holds. Power is cut by the same code as energies are: readings are
shifted by the device's lag, and mean × time is the energy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from director.energy.align import align
from director.energy.cells import GAP_FACTOR, Floats, Ints
from director.energy.channel_check import find_flaw
from director.energy.channel_timing import timing_of
from director.energy.components import Component, build_tree, natural
from director.session.manifest import Manifest, StreamFile
from director.session.session_clocks import SessionClocks
from drivers.contract import Channel, Scope, Status

# Numbers per kind of plot, least, mean and largest: with those a page stays below 3 MB even where none compresses.
MOST_POWER_VALUES = 840_000
MOST_OTHER_VALUES = 80_000
MOST_BINS = 32_768  # of one envelope: more than any screen has columns, many times over
BINS_PER_READING = 4  # so that the edges of bins move those of readings by little
MOST_ENVELOPES = 64  # of one kind
MOST_INTERVALS = 500  # of throttling, per device and cause
BESIDE_NS = 60_000_000_000  # shown before and after the work and its baseline, where there are readings

BESIDE_POWER = ("voltage", "current", "power_factor", "uncertainty")
CAUSES = ("heat", "power limit", "hardware")
# Bits of nvmlClocksEventReasons (nvml.h). 8, a slowdown by the hardware, has no cause of its own where a bit says why.
_NVML_CAUSES = {"heat": 0x20 | 0x40, "power limit": 0x04 | 0x80 | 0x200, "hardware": 0x08 | 0x400}
_NVML_WHY = 0x40 | 0x80


@dataclass(frozen=True)
class Envelope:
    """One channel over time in equal bins; arrays of length N, in `unit`. NaN: not measured in that bin."""

    name: str  # of power: the component, "node0/gpu0"; else "node0/gpu0 memory_temperature"
    channel: str  # that it is drawn from: "nvml/gpu0/power_instant"
    device: str  # "node0/gpu0"
    scope: Scope
    quantity: str
    unit: str
    estimate: bool
    begin_ns: int  # left edge of the first bin, from the origin
    bin_ns: float
    least: Floats
    mean: Floats
    most: Floats

    @property
    def middle_s(self) -> Floats:
        """Seconds from the origin to the middle of each bin."""
        return np.asarray((self.begin_ns + (np.arange(len(self.mean)) + 0.5) * self.bin_ns) * 1e-9, dtype=np.float64)


@dataclass(frozen=True)
class Throttling:
    """When and why the clocks of a device were held back."""

    device: str  # "node0/gpu0"
    seconds: dict[str, float]  # by CAUSES, all of them; two causes may hold at once
    intervals: dict[str, list[tuple[float, float]]]  # by cause: seconds from the origin; near ones joined if many


@dataclass(frozen=True)
class PlotData:
    """Everything over time. The origin is the command's begin, or that of the traces where nothing was run."""

    origin_ns: int  # monotonic
    begin_ns: int  # from the origin; what the plots span
    end_ns: int
    power: list[Envelope] = field(default_factory=list)  # outermost components first, as in the summary
    temperatures: list[Envelope] = field(default_factory=list)
    clocks: list[Envelope] = field(default_factory=list)
    meters: list[Envelope] = field(default_factory=list)  # what those that give power tell besides
    throttling: list[Throttling] = field(default_factory=list)
    left_out: int = 0  # channels beyond the most that are drawn of one kind


def plot_data(session: Path, manifest: Manifest) -> PlotData:
    """Cut the traces of a finished session.

    Raises:
        SessionError: a trace is missing or damaged.
    """
    files = [(host.name, file) for host in manifest.hosts for file in host.streams]
    session_clocks = SessionClocks(session, manifest)
    span = _span(manifest, session_clocks, files)
    if span is None:
        return PlotData(0, 0, 0)
    data = PlotData(*span)
    channels = [(host, file, channel) for host, file in files for channel in file.stream.channels]
    tree = build_tree([(host, channel) for host, _, channel in channels if not find_flaw(channel)])
    by_component = [_by_preference(component, channels) for component in tree]
    plain = [c for c in channels if c[2].kind == "gauge" and not find_flaw(c[2])]
    temperatures = _sorted([c for c in plain if c[2].quantity == "temperature"])
    clocks = _sorted([c for c in plain if c[2].quantity == "frequency"])
    powered = {(component.host, channel.device) for component in tree for channel in component.channels}
    meters = _sorted([c for c in plain if c[2].quantity in BESIDE_POWER and (c[0], c[2].device) in powered])
    cutter = _Cutter(session_clocks, *span)
    power = []
    for component, candidates in list(zip(tree, by_component, strict=True))[:MOST_ENVELOPES]:
        drawn = (cutter.envelope(*c, MOST_POWER_VALUES // min(len(tree), MOST_ENVELOPES)) for c in candidates)
        found = next((envelope for envelope in drawn if np.isfinite(envelope.mean).any()), None)
        if found is not None:
            power.append(replace(found, name=component.name, device=component.name, scope=component.scope))
    throttling = [
        cutter.throttling(*c)
        for c in _sorted([c for c in channels if c[2].quantity == "throttle"])
        if c[2].kind == "state"
    ]
    kinds = (tree, temperatures, clocks, meters)
    return replace(
        data,
        power=power,
        temperatures=cutter.envelopes(temperatures),
        clocks=cutter.envelopes(clocks),
        meters=cutter.envelopes(meters),
        throttling=throttling[:MOST_ENVELOPES],
        left_out=sum(max(len(kind) - MOST_ENVELOPES, 0) for kind in kinds),
    )


_Found = tuple[str, StreamFile, Channel]


def _span(
    manifest: Manifest, clocks: SessionClocks, files: Sequence[tuple[str, StreamFile]]
) -> tuple[int, int, int] | None:
    """The origin, and the begin and end of what is shown from there; None: there is no reading."""
    ranges = [found for host, file in files if (found := clocks.time_range(host, file)) is not None]
    if not ranges:
        return None
    slack = max(round(0.5e9 / file.stream.rate_hz) for _, file in files)
    first, last = min(r[0] for r in ranges) - slack, max(r[1] for r in ranges) + slack
    work = manifest.workload
    if work is None:
        return first + slack, -slack, last - first - slack
    started_ns, ended_ns, _ = clocks.workload_span()
    origin = started_ns if started_ns is not None else first + slack
    edges = [t for t in (started_ns, ended_ns, *(t for pair in manifest.idle_ns for t in pair)) if t is not None]
    if started_ns is not None and ended_ns is not None:  # a reading at an odd instant must not squeeze the rest
        begin, end = max(first, min(edges) - BESIDE_NS), min(last, max(edges) + BESIDE_NS)
        if begin < end:
            first, last = begin, end
    return origin, first - origin, last - origin


def _by_preference(component: Component, channels: Sequence[_Found]) -> list[_Found]:
    """The component's channels, the one that shows short peaks best first.

    A counter polled about as fast as it steps gives power that jitters, so a gauge comes first, the one that averages
    over the shortest time.
    """

    def rank(found: _Found) -> tuple[bool, float, str]:
        channel = found[2]
        return channel.kind == "counter", math.inf if channel.window_s is None else channel.window_s, channel.name

    return sorted((c for c in channels if c[0] == component.host and c[2] in component.channels), key=rank)


def _sorted(channels: Sequence[_Found]) -> list[_Found]:
    return sorted(channels, key=lambda c: (c[0], natural(c[2].device), c[2].name))


@dataclass(frozen=True)
class _Cutter:
    clocks: SessionClocks
    origin_ns: int
    begin_ns: int
    end_ns: int

    def envelopes(self, channels: Sequence[_Found]) -> list[Envelope]:
        share = MOST_OTHER_VALUES // max(min(len(channels), MOST_ENVELOPES), 1)
        found = [self.envelope(*channel, share) for channel in channels[:MOST_ENVELOPES]]
        return [envelope for envelope in found if np.isfinite(envelope.mean).any()]

    def envelope(self, host: str, file: StreamFile, channel: Channel, most_values: int) -> Envelope:
        timing = timing_of(channel, file.stream.rate_hz)
        span = self.end_ns - self.begin_ns
        wanted = math.ceil(span / timing.spacing_ns * BINS_PER_READING)
        bins = max(1, min(wanted, MOST_BINS, most_values // 3, span))
        edges = self.begin_ns + np.rint(np.arange(bins + 1) * (span / bins)).astype(np.int64)
        pieces = self.clocks.pieces(host, file, [channel])
        aligned = align(channel, timing, pieces, edges + self.origin_ns, self.origin_ns)
        seen = np.diff(aligned.measured_ns_at) > 0
        with np.errstate(invalid="ignore"):
            mean = np.diff(aligned.joules_at) / (np.diff(edges) * 1e-9)
        least, most = (np.where(seen, v, np.nan) for v in (aligned.least_watts, aligned.peak_watts))
        return Envelope(
            name=f"{host}/{channel.device} {channel.name.rpartition('/')[2]}",
            channel=channel.name,
            device=f"{host}/{channel.device}",
            scope=channel.scope,
            quantity=channel.quantity,
            unit=channel.unit if channel.kind == "gauge" else "W",
            estimate=channel.estimate,
            begin_ns=self.begin_ns,
            bin_ns=span / bins,
            least=least,
            mean=np.clip(np.where(seen, mean, np.nan), least, most),  # of rounding, and of a bridge beside a gap
            most=most,
        )

    def throttling(self, host: str, file: StreamFile, channel: Channel) -> Throttling:
        """A state holds from its reading to the next one, but not across a gap."""
        longest = round(GAP_FACTOR * 1e9 / file.stream.rate_hz)
        parts: dict[str, list[npt.NDArray[np.int64]]] = {cause: [] for cause in CAUSES}
        for t, state, valid in self._states(host, file, channel, longest):
            for cause, held in _causes(channel, state).items():
                parts[cause].append(_runs(t, held & valid, longest))
        seconds, intervals = {}, {}
        for cause, runs in parts.items():
            joined = np.concatenate([np.empty((0, 2), np.int64), *runs])
            joined = np.clip(joined, self.begin_ns, self.end_ns)
            seconds[cause] = float((joined[:, 1] - joined[:, 0]).sum()) * 1e-9
            intervals[cause] = [(a * 1e-9, b * 1e-9) for a, b in self._few(_connected(joined, 0)).tolist()]
        return Throttling(f"{host}/{channel.device}", seconds, intervals)

    def _states(
        self, host: str, file: StreamFile, channel: Channel, longest: int
    ) -> Iterator[tuple[Ints, Ints, npt.NDArray[np.bool_]]]:
        """Instants (one more than states: the last state's end), states and which of them are valid."""
        carried: tuple[Ints, Ints, npt.NDArray[np.bool_]] | None = None
        for piece in self.clocks.pieces(host, file, [channel]):
            t, state = piece.t_ns - self.origin_ns, piece.values[0].astype(np.int64)
            valid = (piece.statuses[0] == Status.NEW) | (piece.statuses[0] == Status.STALE)
            if carried is not None:
                t, state, valid = (np.concatenate(pair) for pair in zip(carried, (t, state, valid), strict=True))
            if len(t):
                yield t, state[:-1], valid[:-1]
                carried = t[-1:], state[-1:], valid[-1:]
        if carried is not None:
            t, state, valid = carried
            yield np.concatenate((t, t + longest)), state, valid

    def _few(self, runs: Ints) -> Ints:
        """At most so many intervals, those that lie near each other joined."""
        if len(runs) <= MOST_INTERVALS:
            return runs
        return _connected(runs, (self.end_ns - self.begin_ns) // MOST_INTERVALS)


def _causes(channel: Channel, state: Ints) -> dict[str, npt.NDArray[np.bool_]]:
    if not channel.name.startswith("nvml/"):
        return {"hardware": state != 0}
    held = {cause: (state & bits) != 0 for cause, bits in _NVML_CAUSES.items()}
    held["hardware"] &= (state & _NVML_WHY) == 0
    return held


def _runs(t: Ints, held: npt.NDArray[np.bool_], longest: int) -> Ints:
    """(begin, end) of the readings that are held."""
    end = np.minimum(t[1:], t[:-1] + longest)
    return _connected(np.stack((t[:-1][held], end[held]), axis=1), 0)


def _connected(runs: Ints, apart: int) -> Ints:
    """Ascending intervals, joined where they are not further apart than that."""
    if not len(runs):
        return runs
    first = np.concatenate(([True], runs[1:, 0] > runs[:-1, 1] + apart))
    last = np.concatenate((first[1:], [True]))
    return np.stack((runs[first, 0], runs[last, 1]), axis=1)
