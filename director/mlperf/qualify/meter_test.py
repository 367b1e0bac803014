"""The meter test of MLPerf Training: a meter against a reference on one system, idle and under two loads.

At each level, five disjoint minutes are averaged for both meters; the highest and the lowest of each five are dropped,
and the mean of the other three (the Olympic mean) of the meter may differ from the reference's by 5 % at most
(training_policies, power: accuracy of telemetry).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from director.energy.align import align
from director.energy.cells import Floats, Ints
from director.energy.channel_timing import timing_of
from director.energy.interval_energy import Energies, interval_energies
from director.session.trace_store import Piece
from drivers.contract import Channel, Status, Unavailable
from drivers.replay.formats import open_trace
from drivers.replay.trace import Trace, TraceStream

LEVELS = 3
MINUTES = 5
LIMIT_PERCENT = 5.0
LEAST_COVERAGE = 0.99
MINUTE_S = 60.0
POINTS = 60  # of a minute, in plots
_PIECE_ROWS = 1 << 16


class QualifyRefused(Exception):
    """The test cannot be made of these traces: the text for the user."""


@dataclass(frozen=True)
class Level:
    """When a level's five minutes begin: with a phase of a session, or so many seconds after both traces run."""

    name: str
    after_s: float | None = None


@dataclass(frozen=True)
class Measured:
    """One meter at one level. Watts; U with k = 2."""

    minutes: tuple[float, ...]
    dropped: tuple[int, ...]  # which minutes, from 0: the lowest and the highest
    olympic: float
    expanded: float


@dataclass(frozen=True)
class LevelResult:
    """Both meters at one level."""

    name: str
    begin_wall_ns: int
    meter: Measured
    reference: Measured
    difference_percent: float  # of the meter, in percent of the reference
    expanded_percent: float  # its U, k = 2
    passes: bool
    curves: tuple[Floats, Floats] = field(repr=False)  # both meters' watts over the five minutes; NaN: not measured


@dataclass(frozen=True)
class Qualification:
    """The outcome of the test."""

    meter: str
    reference: str
    limit_percent: float
    accuracy_known: bool  # of both; False: U lacks a meter's own error
    levels: tuple[LevelResult, ...]

    @property
    def passes(self) -> bool:
        """Whether the meter stays within the limit at every level."""
        return all(level.passes for level in self.levels)

    def to_json(self) -> dict[str, Any]:
        """Everything, with full precision."""
        content = asdict(self)
        for level in content["levels"]:
            del level["curves"]
        return {**content, "passes": self.passes}


@dataclass(frozen=True)
class _Source:
    """One channel of a trace."""

    path: Path
    trace: Trace
    stream: TraceStream
    place: int  # of the channel in the stream

    @property
    def channel(self) -> Channel:
        return self.stream.channels[self.place]

    @property
    def to_wall_ns(self) -> int:
        """What turns trace time into wall time."""
        return self.trace.start_wall_ns - self.trace.start_ns


def qualify(
    paths: Sequence[Path],
    channels: Sequence[str | None],
    levels: Sequence[Level],
    limit_percent: float,
    minute_s: float = MINUTE_S,
) -> Qualification:
    """Make the test of two traces, the meter's first, then the reference's.

    Args:
        paths: of the traces.
        channels: of each trace, a power or an energy counter; None: the only one of power, else the only counter.
        levels: idle and two loads.
        limit_percent: how much the meter may differ from the reference.
        minute_s: how long a minute is; for tests of the test.

    Raises:
        QualifyRefused: a trace cannot be read, does not cover a level, or is no measured power.
    """
    if len({level.name for level in levels}) != LEVELS:
        raise QualifyRefused(
            f"the rules ask for {LEVELS} different levels, idle and two loads; {len(levels)} are given"
        )
    sources = [_open(path, wanted) for path, wanted in zip(paths, channels, strict=True)]
    meter, reference = sources
    if meter.path.resolve() == reference.path.resolve() and meter.channel == reference.channel:
        raise QualifyRefused(f"{meter.channel.name} cannot be its own reference: name two channels or two traces")
    minute_ns = round(minute_s * 1e9)
    begins = [_begin(level, sources, minute_ns) for level in levels]
    for (one, a), (other, b) in zip(_sorted(levels, begins), _sorted(levels, begins)[1:], strict=False):
        if b - a < MINUTES * minute_ns:
            raise QualifyRefused(f"{other} begins within the five minutes of {one}: levels must be disjoint")
    measured = [_measure(source, levels, begins, minute_ns) for source in sources]
    results = [
        _compare(level.name, begin, (mine, theirs), (my_curve, their_curve), limit_percent)
        for level, begin, (mine, my_curve), (theirs, their_curve) in zip(levels, begins, *measured, strict=True)
    ]
    known = all(source.channel.accuracy is not None for source in sources)
    return Qualification(_name(meter), _name(reference), limit_percent, known, tuple(results))


def _sorted(levels: Sequence[Level], begins: Sequence[int]) -> list[tuple[str, int]]:
    return sorted(zip((level.name for level in levels), begins, strict=True), key=lambda pair: pair[1])


def _name(source: _Source) -> str:
    return f"{source.path.name}, {source.channel.name}"


def measures_power(channel: Channel) -> bool:
    """Whether it tells power, or counts energy, whose rise over a time is the mean power."""
    return (channel.quantity, channel.kind) in (("power", "gauge"), ("energy", "counter"))


def _open(path: Path, wanted: str | None) -> _Source:
    try:
        trace = open_trace(path, {})
    except Unavailable as error:
        raise QualifyRefused(f"{error.reason}{f': {error.fix}' if error.fix else ''}") from error
    there = [
        _Source(path, trace, stream, place)
        for stream in trace.streams
        for place, channel in enumerate(stream.channels)
        if measures_power(channel)
    ]
    gauges = [source for source in there if source.channel.kind == "gauge"]
    found = gauges or there if wanted is None else [source for source in there if source.channel.name == wanted]
    if len(found) != 1:
        all_names = [source.channel.name for source in there]
        what = f"no power or energy channel {wanted}" if wanted is not None else f"{len(found)} power channels"
        raise QualifyRefused(f"{path} has {what}; name one: {', '.join(all_names) or 'there is none'}")
    if found[0].channel.estimate:
        raise QualifyRefused(f"{path}: {found[0].channel.name} is an ESTIMATE, and no meter")
    return found[0]


def _begin(level: Level, sources: Sequence[_Source], minute_ns: int) -> int:
    """Wall time at which a level's minutes begin."""
    if level.after_s is not None:
        both = max(source.stream.start_ns + source.to_wall_ns for source in sources)
        return both + round(level.after_s * 1e9)
    for source in sources:
        phases = source.path / "phases.parquet"
        if phases.is_file():
            import pyarrow.parquet as pq

            table = pq.read_table(phases, columns=["name", "begin_ns", "end_ns"]).to_pylist()
            found = [row for row in table if row["name"] == level.name]
            if len(found) > 1:
                raise QualifyRefused(f"{source.path} has {len(found)} phases {level.name!r}; say NAME=SECONDS instead")
            if found:
                if found[0]["end_ns"] - found[0]["begin_ns"] < MINUTES * minute_ns:
                    raise QualifyRefused(f"{source.path}: the phase {level.name!r} is shorter than five minutes")
                return int(found[0]["begin_ns"]) + source.to_wall_ns
    raise QualifyRefused(f"no session given here has a phase {level.name!r}; say {level.name}=SECONDS")


def _measure(
    source: _Source, levels: Sequence[Level], begins: Sequence[int], minute_ns: int
) -> list[tuple[Measured, Floats]]:
    """Of each level, the minutes and the curve."""
    origin = min(begins)
    steps = range(MINUTES * POINTS + 1)
    edges = np.array([[b - origin + n * minute_ns // POINTS for n in steps] for b in begins], dtype=np.int64)
    ordered = np.unique(edges)
    channel = source.channel
    timing = timing_of(channel, source.stream.rate_hz)
    aligned = align(channel, timing, _pieces(source, origin), ordered, 0)

    def energies_of(step: int) -> Energies:
        begin, end = (np.searchsorted(ordered, part.ravel()) for part in (edges[:, :-1:step], edges[:, step::step]))
        return interval_energies(channel, timing, aligned, begin, end, np.zeros(len(begin)))

    minutes, points = energies_of(POINTS), energies_of(1)
    shape = len(levels), MINUTES
    minute_s = minute_ns / 1e9
    watts, expanded = (part.reshape(shape) / minute_s for part in (minutes.joules, minutes.expanded_joules))
    curves = points.joules.reshape(len(levels), -1) / (points.duration_ns.reshape(len(levels), -1) / 1e9)
    coverage = minutes.coverage.reshape(shape)
    for level, shares in zip(levels, coverage, strict=True):
        least = int(np.argmin(shares))
        if not shares[least] >= LEAST_COVERAGE:
            raise QualifyRefused(
                f"{source.path}, {channel.name}: {shares[least]:.1%} of minute {least + 1} of {level.name} were "
                f"measured, and {LEAST_COVERAGE:.0%} are needed"
            )
    return [(_olympic(mine, u), curve) for mine, u, curve in zip(watts, expanded, curves, strict=True)]


def _pieces(source: _Source, origin_ns: int) -> Iterator[Piece]:
    """Readings on the wall clock, from `origin_ns` on."""
    shift = source.to_wall_ns - origin_ns
    times: list[int] = []
    values: list[float | int] = []
    statuses: list[int] = []
    place = source.place
    for row in source.stream.rows():
        times.append(row.t_ns + shift)
        values.append(row.values[place])
        statuses.append(Status.NEW if row.statuses is None else row.statuses[place])
        if len(times) == _PIECE_ROWS:
            yield _piece(source.channel, times, values, statuses)
            times, values, statuses = [], [], []
    if times:
        yield _piece(source.channel, times, values, statuses)


def _piece(channel: Channel, times: list[int], values: list[float | int], statuses: list[int]) -> Piece:
    t_ns = np.array(times, dtype=np.int64)
    counts = channel.kind == "counter"
    column: Floats | Ints = np.array(values, dtype=np.int64) if counts else np.array(values, dtype=np.float64)
    return Piece(t_ns, np.zeros(len(t_ns), np.int64), [column], [np.array(statuses, dtype=np.uint8)])


def _olympic(watts: Floats, expanded: Floats) -> Measured:
    """Mean without the highest and the lowest. U is the mean of the kept minutes' U: a meter's error stays the same."""
    lowest, *kept, highest = np.argsort(watts, kind="stable").tolist()
    means = float(watts[kept].mean()), float(expanded[kept].mean())
    return Measured(tuple(watts.tolist()), (lowest, highest), *means)


def _compare(
    name: str, begin: int, both: tuple[Measured, Measured], curves: tuple[Floats, Floats], limit: float
) -> LevelResult:
    meter, reference = both
    if reference.olympic <= 0:
        raise QualifyRefused(f"{name}: the reference reads {reference.olympic:.3f} W; nothing can be compared with it")
    ratio = meter.olympic / reference.olympic
    difference = (ratio - 1) * 100
    expanded = math.hypot(meter.expanded, ratio * reference.expanded) / reference.olympic * 100
    return LevelResult(name, begin, meter, reference, difference, expanded, abs(difference) <= limit, curves)
