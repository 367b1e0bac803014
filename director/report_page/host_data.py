"""What the page of a session says of its hosts: rows ready for the template."""

from __future__ import annotations

from dataclasses import dataclass

from director.answers.host_text import energy_text, joined_facts, scaling_facts, worst_first
from director.answers.number_text import duration_text, share_text, watts_text
from director.answers.summary import EnergyFigure, HostPhase, HostShare, OverHosts, Scaling, Summary
from director.report_page.headline import chief_phase
from director.report_page.straggler_plot import costliest

MOST_HOSTS = 64  # in the table; the one with most energy first
MOST_BARS = 16


@dataclass(frozen=True)
class HostLine:
    """One host in the table."""

    host: str
    energy: str
    estimate: bool
    watts: str
    measured: str
    own: str  # time in its own phases of the name that others waited in
    waited: str
    cost: str
    last: str  # how often it was the last


@dataclass(frozen=True)
class HostSection:
    """The part of the page about hosts."""

    phase: str  # that energies are of
    joined: str  # whose waiting is told; empty: nothing was joined
    lines: list[HostLine]
    left_out: int
    gaps: list[tuple[str, str]]  # hosts without data, and why
    facts: list[tuple[str, list[tuple[str, str]]]]  # of joined phases
    interconnect: list[tuple[str, str, str, str]]  # label, energy, W, what it is
    interconnect_text: str


def several_hosts(summary: Summary) -> OverHosts | None:
    """The part over hosts, where there are several."""
    over = summary.over_hosts
    return over if isinstance(over, OverHosts) and len(over.hosts) + len(over.without_data) > 1 else None


def host_section(summary: Summary) -> HostSection | None:
    """None: there is one host, and nothing was asked about the interconnect."""
    over = summary.over_hosts
    if not isinstance(over, OverHosts):
        return None
    chief = next(phase for phase in over.phases if phase.name == chief_phase(summary).name)
    waited = costliest(over)
    shares = worst_first([share for share in chief.hosts if share.energy is not None])
    several = several_hosts(summary) is not None
    groups = {group.name: group for group in summary.phases}
    facts = [(phase.name, joined_facts(phase, groups[phase.name])) for phase in over.phases]
    return HostSection(
        phase=chief.name,
        joined="" if waited is None else waited.name,
        lines=[_line(share, waited) for share in shares[:MOST_HOSTS]] if several else [],
        left_out=max(len(shares) - MOST_HOSTS, 0),
        gaps=[(gap.host, gap.why) for gap in over.without_data[:MOST_HOSTS]],
        facts=[(name, found) for name, found in facts if found],
        interconnect=_interconnect(chief),
        interconnect_text=over.interconnect,
    )


def _line(share: HostShare, waited: HostPhase | None) -> HostLine:
    energy = share.energy
    in_joined = None if waited is None else next((s for s in waited.hosts if s.host == share.host), None)
    own = in_joined.own if in_joined is not None and in_joined.phases else None
    cost = None if in_joined is None else in_joined.waiting
    last = 0 if in_joined is None else in_joined.times_last
    return HostLine(
        host=share.host,
        energy=energy_text(energy),
        estimate=energy is not None and energy.estimate,
        watts=watts_text(None if energy is None else energy.mean_watts),
        measured="–" if energy is None else share_text(energy.coverage),
        own="–" if own is None else duration_text(own.seconds),
        waited="–" if cost is None else duration_text(cost.seconds),
        cost="–" if cost is None else energy_text(cost),
        last=str(last) if last else "–",
    )


def _interconnect(phase: HostPhase) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, EnergyFigure | None]] = [
        ("interconnect", phase.interconnect),
        ("total with interconnect", phase.with_interconnect),
    ]
    return [
        (
            label,
            energy_text(figure),
            watts_text(figure.mean_watts),
            "" if not figure.estimate else "ESTIMATE" if figure.method == "estimate" else "ESTIMATE in part",
        )
        for label, figure in rows
        if figure is not None
    ]


def scaling_rows(summary: Summary) -> list[tuple[str, str]]:
    """Against a smaller run, where that was asked for."""
    return scaling_facts(summary.scaling) if isinstance(summary.scaling, Scaling) else []


def share_figure(share: HostShare) -> EnergyFigure:
    """A host's energy as a figure, for bars."""
    energy = share.energy
    return EnergyFigure(
        name=share.host,
        scope="total",
        method="sum",
        joules=None if energy is None else energy.joules,
        expanded_joules=None if energy is None else energy.expanded_joules,
        mean_watts=None if energy is None else energy.mean_watts,
        peak_watts=None,
        coverage=0.0 if energy is None else energy.coverage,
        estimate=energy is not None and energy.estimate,
        accuracy_known=energy is None or energy.accuracy_known,
    )
