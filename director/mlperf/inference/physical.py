"""Energy inside the timed window from the samples of power analyzers, by the project's own integration.

PTDaemon stamps the mean of a second when it is over. docs/formulas/energy.md and uncertainty.md describe the method.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from director.energy.align import align
from director.energy.channel_timing import timing_of
from director.energy.interval_energy import interval_energies
from director.mlperf.inference.sample_log import Samples, Window
from director.session.trace_store import Piece
from drivers.contract import Accuracy, Channel, Status

_SECOND_S = 1.0  # PTDaemon is told `Go,1000`: a sample every 1000 ms
_STAMP_BOUND_NS = 1e6  # stamps are to the millisecond
_TYPICAL = 0.005  # PTDaemon reports 0.23–0.7 %
_MOST_PLAUSIBLE = 0.2


@dataclass(frozen=True)
class Physical:
    """Joules with U (k = 2) and the measured share of the window."""

    joules: float | None  # None: less than half of the window was measured
    expanded_joules: float | None
    coverage: float
    accuracy_from: str


def meter_accuracy(server: Mapping[str, Any] | None) -> Accuracy:
    """The mean uncertainty that PTDaemon itself reported last, of the testing stage; a typical one where it did not."""
    found = None
    messages = (server or {}).get("ptd_messages")
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        reply = str(message.get("reply"))
        if reply.startswith("Uncertainty,"):
            try:
                value = float(reply.split(",")[1])
            except ValueError:
                continue
            found = value if 0 < value < _MOST_PLAUSIBLE else None
    if found is None:
        return Accuracy(reading_fraction=_TYPICAL, source="typical uncertainty that PTDaemon reports")
    return Accuracy(reading_fraction=found, source="mean uncertainty that PTDaemon reported")


def physical_energy(blocks: Iterable[Samples], window: Window, accuracy: Accuracy) -> Physical:
    """Energy in the window; reads all blocks, whatever it makes of them."""
    channel = Channel(
        name="mlperf/spl/power",
        device="wall",
        quantity="power",
        unit="W",
        kind="gauge",
        scope="wall",
        update_period_s=_SECOND_S,
        window_s=_SECOND_S,
        stamped=True,
        accuracy=accuracy,
    )
    timing = timing_of(channel, 1 / _SECOND_S)
    edges_ns = np.array([0, (window.end_us - window.begin_us) * 1000], dtype=np.int64)
    aligned = align(channel, timing, _pieces(blocks, window.begin_us), edges_ns, 0)
    one = np.array([0]), np.array([1])
    energies = interval_energies(channel, timing, aligned, *one, np.array([_STAMP_BOUND_NS]))
    joules, expanded = float(energies.joules[0]), float(energies.expanded_joules[0])
    known = math.isfinite(joules)
    coverage = float(energies.coverage[0])
    return Physical(
        joules=joules if known else None,
        expanded_joules=expanded if known else None,
        coverage=coverage if math.isfinite(coverage) else 0.0,
        accuracy_from=accuracy.source,
    )


def summed(parts: list[Physical]) -> Physical:
    """Of several analyzers; their own errors are taken to be one, as of meters of one model."""
    if len(parts) == 1:
        return parts[0]
    joules = [part.joules for part in parts if part.joules is not None]
    known = bool(parts) and len(joules) == len(parts)
    return Physical(
        joules=sum(joules) if known else None,
        expanded_joules=sum(part.expanded_joules or 0.0 for part in parts) if known else None,
        coverage=min((part.coverage for part in parts), default=0.0),
        accuracy_from=parts[0].accuracy_from if parts else "",
    )


def _pieces(blocks: Iterable[Samples], origin_us: int) -> Iterator[Piece]:
    for block in blocks:
        watts = block.watts
        status = np.where(watts >= 0, np.uint8(Status.NEW), np.uint8(Status.MISSING))  # NaN, too, is missing
        if not np.isfinite(watts).all():
            status[~np.isfinite(watts)] = Status.MISSING
        t_ns = (block.t_us - origin_us) * 1000
        yield Piece(t_ns, np.zeros(len(t_ns), dtype=np.int64), [watts], [status])
