"""How much later than the others the ranks end that others wait for, over time, as envelopes like those of power."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from director.answers.host_text import straggler_name
from director.answers.summary import HostPhase, OverHosts, Straggler
from director.energy.cells import Floats, Ints
from director.phases.join import medians
from director.report_page.plot_data import Envelope, PlotData

MOST_BINS = 4096
MOST_LINES = 6


@dataclass(frozen=True)
class Lateness:
    """Of one phase name."""

    phase: str
    envelopes: list[Envelope]  # per straggler, in ms after the median end


def lateness(session: Path, over: OverHosts, data: PlotData) -> Lateness | None:
    """Of the phase name whose stragglers cost most time. None: nobody was late, or there is nothing to draw on."""
    phase = costliest(over)
    if phase is None or phase.joined is None or data.end_ns <= data.begin_ns:
        return None
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    columns = ["begin_ns", "end_ns", "lane", "joined"]
    table = pq.read_table(session / "phases.parquet", columns=[*columns, "name"], filters=[("name", "=", phase.name)])
    table = table.filter(pc.is_valid(table["joined"]))
    begin, end, joined = (table[column].to_numpy() for column in ("begin_ns", "end_ns", "joined"))
    late_ms = (end - medians(end, joined)) * 1e-6
    lane = table["lane"].combine_chunks()
    lanes, codes = lane.dictionary.to_pylist(), lane.indices.to_numpy()
    found = []
    for straggler in phase.joined.stragglers[:MOST_LINES]:
        mine = np.flatnonzero(codes == lanes.index(straggler.lane))
        own = begin[mine] - data.origin_ns, end[mine] - data.origin_ns
        found.append(_envelope(straggler, *own, late_ms[mine], data))
    return Lateness(phase.name, found)


def costliest(over: OverHosts) -> HostPhase | None:
    """The phase name whose stragglers came latest, all times together."""
    late = [phase for phase in over.phases if phase.joined is not None and phase.joined.stragglers]
    return max(late, key=lambda phase: phase.joined.late_s if phase.joined else 0.0, default=None)


def _envelope(straggler: Straggler, begin_ns: Ints, end_ns: Ints, late_ms: Floats, data: PlotData) -> Envelope:
    """A phase's lateness stands for the time that it lasted; of several in a bin the extremes are kept."""
    span = data.end_ns - data.begin_ns
    bins = max(1, min(MOST_BINS, span))
    width = span / bins
    order = np.argsort(begin_ns, kind="stable")
    begin, end, late = begin_ns[order], end_ns[order], late_ms[order]
    middle = data.begin_ns + (np.arange(bins) + 0.5) * width
    place = np.searchsorted(begin, middle, side="right") - 1
    inside = (place >= 0) & (middle <= end[np.maximum(place, 0)])
    mean = np.where(inside, late[np.maximum(place, 0)], np.nan)
    least, most = mean.copy(), mean.copy()
    where = np.clip(((0.5 * (begin + end) - data.begin_ns) / width).astype(np.int64), 0, bins - 1)
    count = np.bincount(where, minlength=bins)
    total = np.bincount(where, weights=late, minlength=bins)
    here = count > 0
    mean[here] = total[here] / count[here]
    np.fmin.at(least, where, late)
    np.fmax.at(most, where, late)
    return Envelope(
        name=straggler_name(straggler),
        channel="end after the median end",
        device=straggler.host,
        scope="none",
        quantity="lateness",
        unit="ms",
        estimate=False,
        begin_ns=data.begin_ns,
        bin_ns=width,
        least=least,
        mean=np.clip(mean, least, most),
        most=most,
    )
