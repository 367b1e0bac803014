"""Energy inside the timed window, run_start … run_stop, from power logs: what physics says beside the official figure.

The project's own integration does it (docs/formulas/energy.md), over all logs of a run in one pass: they are laid one
after the other on a long axis of time, far enough apart that none sees its neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from director.energy.align import align
from director.energy.cells import Floats
from director.energy.channel_timing import timing_of
from director.energy.interval_energy import COVERAGE_K, interval_energies
from director.mlperf.training.power_log import PowerLog
from director.session.trace_store import Piece
from drivers.contract import Channel

_HALF_HOUR_MS = 1_800_000.0
_PIECE_READINGS = 1 << 18  # about; small logs are aligned many at a time
_LEAST_MARGIN_MS = 60_000.0  # readings kept on each side of the run
# Nobody states what a reading averages over. Taken as an instant it gives the largest U, and no shift in time.
_CHANNEL = Channel(
    name="mlperf/power",
    device="node",
    quantity="power",
    unit="W",
    kind="gauge",
    scope="node",
    window_s=0.0,
    stamped=True,
)


@dataclass(frozen=True)
class PhysicalEnergy:
    """Joules of several logs inside one run, each times its efficiency. NaN: less than half of the run was measured."""

    joules: tuple[float, ...]  # of each log
    expanded_joules: float  # U (k = 2) of their sum; the meters' own accuracy, which nobody states, is not in it
    coverage: tuple[float, ...]  # measured share of the run, of each log
    shift_s: tuple[float, ...]  # what was added to each log's times, whole half hours
    readings_inside: tuple[int, ...]


def energy_inside(logs: Sequence[PowerLog], efficiency: Sequence[float], run_ms: tuple[float, float]) -> PhysicalEnergy:
    """Energy of each log between two instants of wall time, in ms since the epoch."""
    start, stop = run_ms
    spacing = _spacing_ms(logs)
    margin = max(_LEAST_MARGIN_MS, 20 * spacing)
    step = math.ceil((stop - start + 4 * margin) / 1000) * 1000.0
    shifts = [_shift_ms(log, start, stop) for log in logs]
    pieces = _laid_out(logs, shifts, start, stop, margin, step)
    timing = timing_of(_CHANNEL, 1000 / spacing)
    n = len(logs)
    edges = np.repeat(np.arange(n) * step + margin, 2) + np.tile([0.0, stop - start], n)
    aligned = align(_CHANNEL, timing, pieces, np.rint(edges * 1e6).astype(np.int64), 0)
    bound = np.full(n, _resolution_ms(logs) * 1e6)
    energies = interval_energies(_CHANNEL, timing, aligned, np.arange(n) * 2, np.arange(n) * 2 + 1, bound)
    factor = np.array(efficiency)
    terms = {term: u * factor for term, u in energies.terms.items()}
    # Logs are independent, but for the clock of the result log, which places all of them.
    variance = sum(float(u @ u) for term, u in terms.items() if term != "sync") + float(terms["sync"].sum()) ** 2
    readings = energies.readings
    known = readings > 0
    return PhysicalEnergy(
        joules=tuple(np.where(known, energies.joules * factor, np.nan).tolist()),
        expanded_joules=COVERAGE_K * math.sqrt(variance),
        coverage=tuple(np.where(known, energies.coverage, 0.0).tolist()),
        shift_s=tuple(shift / 1000 for shift in shifts),
        readings_inside=tuple(readings.tolist()),
    )


def _spacing_ms(logs: Iterable[PowerLog]) -> float:
    """Median distance of readings, of the first log that has some: a run's logs come from one logger."""
    for log in logs:
        for t, _, _ in log.in_time_order():
            steps = t[1:] - t[:-1]
            steps = steps[steps > 0]
            if len(steps):
                middle = len(steps) // 2
                return float(np.partition(steps, middle)[middle])
    return 1000.0


def _resolution_ms(logs: Iterable[PowerLog]) -> float:
    """The coarsest of 1 s, 100 ms, 10 ms and 1 ms that all stamps are multiples of: a stamp is that well known."""
    finest = 1000.0
    for log in logs:
        for t, _ in log.in_file_order():
            while finest > 1 and bool((t[:1000] % finest).any()):
                finest /= 10
    return finest


def _shift_ms(log: PowerLog, start: float, stop: float) -> float:
    """Whole half hours that bring a log onto the run: 0, unless it overlaps less than half of the run as it is."""
    if not log.readings or min(log.last_ms, stop) - max(log.first_ms, start) >= 0.5 * (stop - start):
        return 0.0
    off = (start + stop) / 2 - (log.first_ms + log.last_ms) / 2
    shift = round(off / _HALF_HOUR_MS) * _HALF_HOUR_MS
    fits = min(log.last_ms + shift, stop) - max(log.first_ms + shift, start) >= 0.5 * (stop - start)
    return shift if fits and abs(shift) <= 26 * 2 * _HALF_HOUR_MS else 0.0


def _laid_out(
    logs: Sequence[PowerLog], shifts: Sequence[float], start: float, stop: float, margin: float, step: float
) -> Iterator[Piece]:
    times, powers, length = [], [], 0
    for number, (log, shift) in enumerate(zip(logs, shifts, strict=True)):
        for t, watts, _ in log.in_time_order():
            near = slice(*np.searchsorted(t, [start - shift - margin, stop - shift + margin]).tolist())
            at, watts = _merged(t[near] + (shift - start + margin + number * step), watts[near])
            times.append(at)
            powers.append(watts)
            length += len(at)
            if length >= _PIECE_READINGS:
                yield _piece(times, powers)
                times, powers, length = [], [], 0
    if length:
        yield _piece(times, powers)


def _piece(times: list[Floats], powers: list[Floats]) -> Piece:
    at = np.rint(np.concatenate(times) * 1e6).astype(np.int64)
    nothing = np.zeros(len(at), dtype=np.int64)
    return Piece(at, nothing, [np.concatenate(powers)], [np.zeros(len(at), dtype=np.uint8)])


def _merged(t: Floats, watts: Floats) -> tuple[Floats, Floats]:
    """Readings with the same stamp become one, their mean."""
    first = np.concatenate(([True], t[1:] > t[:-1])).nonzero()[0]
    if len(first) == len(t) or not len(t):
        return t, watts
    counts = np.diff(np.append(first, len(t)))
    return t[first], np.add.reduceat(watts, first) / counts
