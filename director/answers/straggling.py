"""Who was last: figures of the joined phases of one name."""

from __future__ import annotations

import numpy as np

from director.answers.phase_intervals import JoinedPhases
from director.answers.summary import HostEnergy, JoinedFigures, Straggler
from director.phases.table import PhaseTable

MOST_STRAGGLERS = 10


def times_last(together: JoinedPhases, number: int) -> dict[str, int]:
    """By host, how often one of its ranks was the last of a name's joined phases."""
    joins = together.of_name[number]
    host = together.host[joins.rows[joins.last[joins.told]]]
    counts = np.bincount(host[host >= 0], minlength=len(together.hosts)).tolist()
    return dict(zip(together.hosts, counts, strict=True))


def joined_figures(table: PhaseTable, together: JoinedPhases, number: int, waiting: HostEnergy | None) -> JoinedFigures:
    """Figures of one name's joined phases, of which there is one at least. `waiting` is what it cost to wait."""
    joins = together.of_name[number]
    late_ns = joins.last_end_ns - joins.median_end_ns
    ranks = len(np.unique(together.who[joins.rows]))
    last = joins.rows[joins.last[joins.told]]  # rows of the phase table
    who, first, inverse = np.unique(together.who[last], return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    late = late_ns[joins.told]
    times, sums = np.bincount(inverse, minlength=len(who)), np.bincount(inverse, weights=late, minlength=len(who))
    most = np.zeros(len(who))
    np.maximum.at(most, inverse, late)
    stragglers = []
    for place in np.argsort(-sums, kind="stable")[:MOST_STRAGGLERS].tolist():
        row = int(last[first[place]])
        host = int(together.host[row])
        rank = int(table.rank[row])
        stragglers.append(
            Straggler(
                host=together.hosts[host] if host >= 0 else "",
                rank=rank if rank >= 0 else None,
                lane=table.lanes[int(table.lane_code[row])],
                times_last=int(times[place]),
                mean_late_s=float(sums[place] / times[place]) * 1e-9,
                most_late_s=float(most[place]) * 1e-9,
            )
        )
    return JoinedFigures(
        count=len(joins),
        ranks=ranks,
        incomplete=int((joins.members < ranks).sum()),
        apart=int(joins.apart.sum()),
        begin_spread_s=float(np.median(joins.begin_spread_ns)) * 1e-9,
        most_begin_spread_s=float(joins.begin_spread_ns.max()) * 1e-9,
        least_s=float(joins.least_ns.min()) * 1e-9,
        median_s=float(np.median(joins.median_ns)) * 1e-9,
        most_s=float(joins.most_ns.max()) * 1e-9,
        undecided=int((~joins.told).sum()),
        late_s=float(late_ns.sum()) * 1e-9,
        waiting=waiting,
        stragglers=stragglers,
        stragglers_left_out=max(len(who) - MOST_STRAGGLERS, 0),
    )
