"""What is told of hosts, in words and figures that fit a table; for terminal, Markdown and page alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from director.answers.number_text import duration_text, figure_text, share_text, watts_text
from director.answers.summary import (
    EnergyFigure,
    HostEnergy,
    HostPhase,
    HostShare,
    Imbalance,
    JoinedFigures,
    OverHosts,
    PhaseGroup,
    Scaling,
    Straggler,
)

MOST_HOSTS = 8  # in a short table; of more, those with most and least


@dataclass(frozen=True)
class HostRow:
    """A row of a table of hosts."""

    label: str
    energy: str
    watts: str
    note: str  # how much was measured, where it is not all; what else one must know
    estimate: bool  # then `note` begins with the word
    kind: str  # "total", "host", "more", "interconnect"


def common_host(phases: Sequence[PhaseGroup]) -> str:
    """`HOST/` where all devices are of one host, whose name then needs no room; else nothing."""
    hosts = {figure.name.partition("/")[0] for phase in phases for figure in phase.components}
    return f"{hosts.pop()}/" if len(hosts) == 1 else ""


def short_rows(over: OverHosts, phase: HostPhase, group: PhaseGroup, part_label: str) -> list[HostRow]:
    """The total, every host of few or the extremes of many, those without data, and the interconnect."""
    shares = [share for share in phase.hosts if share.energy is not None]
    if len(over.hosts) + len(over.without_data) < 2:
        return interconnect_rows(phase)
    rows = [total_row(over, phase, group, part_label)]
    if len(shares) <= MOST_HOSTS:
        rows += [host_row(share) for share in shares]
    else:
        known = sorted((s for s in shares if _joules(s) is not None), key=lambda s: _joules(s) or 0.0)
        rows += [host_row(known[place], word) for place, word in ((-1, "most: "), (0, "least: ")) if known]
        unknown = [s for s in shares if _joules(s) is None]
        rows += [host_row(share) for share in unknown[:3]]
        left_out = len(shares) - min(len(known), 2) - len(unknown[:3])
        rows.append(HostRow(f"… {left_out} more hosts", "", "", "in summary.json", False, "more"))
    rows += known_rows(phase)
    gaps = over.without_data
    rows += [HostRow(gap.host, "not measured", "–", "", False, "host") for gap in gaps[:3]]
    if len(gaps) > 3:
        rows.append(HostRow(f"… {len(gaps) - 3} more hosts", "not measured", "–", "", False, "more"))
    return [*rows, *interconnect_rows(phase)]


def total_row(over: OverHosts, phase: HostPhase, group: PhaseGroup, part_label: str) -> HostRow:
    """The total over all hosts; where it is not known, of those that are."""
    measured, hosts = len(over.hosts), len(over.hosts) + len(over.without_data)
    label = f"{hosts} hosts" if measured == hosts else f"{measured} of {hosts} hosts"
    if phase.interconnect is not None and phase.interconnect.method != "estimate":
        label += " + switches"
    return _figure_row(label, group.total, part_label, "total")


def known_rows(phase: HostPhase) -> list[HostRow]:
    """The sum over hosts that are known, where there is no total."""
    if phase.known is None:
        return []
    return [_figure_row(f"{phase.known_hosts} known hosts", phase.known, "ESTIMATE in part", "known")]


def interconnect_rows(phase: HostPhase) -> list[HostRow]:
    """The interconnect, and the total with an estimate of it."""
    rows = []
    if phase.interconnect is not None:
        rows.append(_figure_row("interconnect", phase.interconnect, "ESTIMATE", "interconnect"))
    if phase.with_interconnect is not None:
        rows.append(_figure_row("total with it", phase.with_interconnect, "ESTIMATE in part", "interconnect"))
    return rows


def host_row(share: HostShare, before: str = "") -> HostRow:
    """One host's energy while any host was in the phase."""
    energy = share.energy
    if energy is None:
        return HostRow(f"{before}{share.host}", "not measured", "–", "", False, "host")
    notes = _notes(energy, "ESTIMATE")
    return HostRow(
        f"{before}{share.host}", energy_text(energy), watts_text(energy.mean_watts), notes, energy.estimate, "host"
    )


def energy_text(energy: HostEnergy | EnergyFigure | None) -> str:
    """`12.3 ± 0.4 kJ`, or that it is not known."""
    if energy is None or energy.joules is None:
        return "not measured"
    return figure_text(energy.joules, energy.expanded_joules, "J")


def _joules(share: HostShare) -> float | None:
    return None if share.energy is None else share.energy.joules


def _figure_row(label: str, figure: EnergyFigure | None, estimate: str, kind: str) -> HostRow:
    if figure is None:
        return HostRow(label, "not measured", "–", "", False, kind)
    notes = estimate if figure.method == "estimate" else _notes(figure, estimate)
    return HostRow(label, energy_text(figure), watts_text(figure.mean_watts), notes, figure.estimate, kind)


def _notes(energy: HostEnergy | EnergyFigure, estimate: str) -> str:
    notes = [estimate] if energy.estimate else []
    notes += [f"{energy.coverage:.1%} measured"] if energy.coverage < 0.9995 else []
    notes += [] if energy.accuracy_known or energy.estimate else ["U without a device's own error"]
    return ", ".join(notes)


def joined_facts(phase: HostPhase, group: PhaseGroup) -> list[tuple[str, str]]:
    """What joining the ranks tells of a phase name: names and texts. Nothing where nothing was joined."""
    joined = phase.joined
    if joined is None:
        return []
    facts = [("joined", _joined_text(joined))]
    if joined.undecided == joined.count and joined.waiting is None:  # nobody waited for anybody
        return facts + imbalance_facts(phase)
    facts.append(("duration", f"median {_time(joined.median_s)}, {_time(joined.least_s)} … {_time(joined.most_s)}"))
    spread = f"by {_time(joined.begin_spread_s)} (median), {_time(joined.most_begin_spread_s)} at most"
    facts.append(("begins apart", spread))
    facts += [("last", straggler_text(straggler, joined)) for straggler in joined.stragglers[:3]]
    more = len(joined.stragglers) - 3 + joined.stragglers_left_out
    facts += [("", f"and {more} more ranks")] if more > 0 else []
    if joined.undecided:
        facts.append(("no one last", f"in {joined.undecided}: within what the clocks may be off"))
    if joined.waiting is not None:
        facts.append(("waiting", waiting_text(joined.waiting, group.total)))
    return facts + imbalance_facts(phase)


def imbalance_facts(phase: HostPhase) -> list[tuple[str, str]]:
    """Largest by mean over hosts."""
    kinds = (("of time", phase.duration_imbalance), ("of energy", phase.energy_imbalance))
    return [(f"imbalance {kind}", imbalance_text(ratio)) for kind, ratio in kinds if ratio is not None]


def imbalance_text(ratio: Imbalance) -> str:
    """`1.24 ± 0.01, most on node2`."""
    text = f"{figure_text(ratio.ratio, ratio.expanded, '')} × the mean"
    return text if ratio.ratio - 1.0 < 5e-4 else f"{text}, most on {ratio.host}"


def _joined_text(joined: JoinedFigures) -> str:
    text = f"{joined.count} over {joined.ranks} ranks"
    return text + (f"; in {joined.incomplete} ranks are missing" if joined.incomplete else "")


def straggler_text(straggler: Straggler, joined: JoinedFigures) -> str:
    """`node2 rank 2: 4 of 4 times, 2.0 s after the median`."""
    who = straggler_name(straggler)
    late = f"{_time(straggler.mean_late_s)} after the median (at most {_time(straggler.most_late_s)})"
    return f"{who}: {straggler.times_last} of {joined.count} times, {late}"


def straggler_name(straggler: Straggler) -> str:
    """Host and rank, as far as they are said."""
    if straggler.rank is None:
        return straggler.lane if straggler.host else f"lane {straggler.lane}"
    return f"{straggler.host} rank {straggler.rank}".strip()


def waiting_text(waiting: HostEnergy, total: EnergyFigure | None) -> str:
    """`16.0 s on all hosts together, 800 ± 270 J (5.3% of the phase)`."""
    share = ""
    if waiting.joules is not None and total is not None and total.joules and not waiting.estimate:
        share = f" ({share_text(max(waiting.joules / total.joules, 0.0))} of the phase)"
    estimate = " ESTIMATE" if waiting.estimate else ""
    return f"{_time(waiting.seconds)} on all hosts together, {energy_text(waiting)}{estimate}{share}"


def scaling_facts(scaling: Scaling) -> list[tuple[str, str]]:
    """The figures against a smaller run, and what was assumed."""
    per = f"per {scaling.work.removesuffix('s').replace('querie', 'query')}" if scaling.work else "per run"
    facts = [
        (
            "against",
            f"{scaling.against}: {scaling.smaller_n} {scaling.unit} there, {scaling.n} here; "
            f"phase {scaling.phase}, {per}",
        ),
        ("speed-up", figure_text(scaling.speed_up, scaling.speed_up_expanded, "")),
        ("parallel efficiency", figure_text(scaling.efficiency, scaling.efficiency_expanded, "")),
    ]
    if scaling.energy_ratio is None:
        facts.append(("energy ratio", f"not comparable: {scaling.energy_note}"))
    else:
        estimate = " ESTIMATE in part" if scaling.energy_estimate else ""
        text = f"{figure_text(scaling.energy_ratio, scaling.energy_ratio_expanded, '')}{estimate}"
        facts.append(("energy ratio", f"{text}, this run by the smaller one"))
    facts += [("assumed", text) for text in scaling.assumed]
    return [*facts, ("not in ±", "how much runs differ: only repeats tell")]


def _time(seconds: float) -> str:
    """As a duration, with more digits where it is short."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else duration_text(seconds)


def worst_first(shares: Sequence[HostShare]) -> list[HostShare]:
    """Hosts by energy, the largest first; those without one last."""
    return sorted(shares, key=lambda share: (_joules(share) is None, -(_joules(share) or 0.0)))
