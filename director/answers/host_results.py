"""What a session of several hosts tells besides: energy per host, who waited for whom, imbalance, the interconnect."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from msgspec import UnsetType

from director.answers.phase_intervals import HostIntervals, IntervalMaker, JoinedPhases, PhaseName
from director.answers.questions import Questions
from director.answers.straggling import joined_figures, times_last
from director.answers.summary import (
    EnergyFigure,
    HostEnergy,
    HostGap,
    HostPhase,
    HostShare,
    Imbalance,
    OverHosts,
    PhaseGroup,
)
from director.energy.component_energy import ComponentEnergy
from director.energy.components import Component, build_tree, natural, roots, split_interconnect
from director.energy.group_energy import component_figure, total_figure
from director.energy.interval_energy import COVERAGE_K
from director.phases.table import PhaseTable
from director.session.files import SessionError
from director.session.manifest import Manifest
from drivers.contract import Channel

MOST_NAMES = 8  # of hosts in a sentence


def tree_of(channels: Sequence[tuple[str, Channel]], questions: Questions) -> list[Component]:
    """The power tree of the nodes, then that of the interconnect, which holds nothing else and lies in nothing else.

    Raises:
        SessionError: a name of the interconnect is none of a device.
    """
    nodes, switches, unknown = split_interconnect(channels, questions.interconnect)
    measures = dict(questions.measures)
    tree, apart = build_tree(nodes, measures), build_tree(switches)
    for component in apart:
        component.interconnect = True
    powered = {component.host for component in apart} | {component.name for component in apart}
    unknown += sorted(set(questions.interconnect) - set(unknown) - powered)
    if unknown:
        known = names_text([component.name for component in [*tree, *apart]]) or "none"
        raise SessionError(f"--interconnect {unknown[0]}: no such device gives power or energy; there are: {known}")
    for name in measures:
        if name not in {component.name for component in tree}:
            known = names_text([component.name for component in tree]) or "none"
            raise SessionError(f"--measures {name}: no such device gives power or energy; there are: {known}")
    return [*tree, *apart]


class Gathered:
    """Figures of each phase name by component: of its whole time, of the host's own, and of the time it waited."""

    def __init__(self, names: Sequence[PhaseName], together: JoinedPhases | None) -> None:
        self.names = names
        self.together = together
        self.figures: list[dict[str, EnergyFigure]] = [{} for _ in names]
        self.own: list[dict[str, EnergyFigure]] = [{} for _ in names]
        self.waiting: list[dict[str, EnergyFigure]] = [{} for _ in names]

    def take(self, energy: ComponentEnergy, intervals: HostIntervals, *, outermost: bool) -> None:
        """Sum a component's energies. Those of the host's own time are for totals only."""
        name = energy.component.name
        for number, found in enumerate(self.figures):
            found[name] = component_figure(energy, intervals.names[number])
        if self.together is None or not outermost or energy.component.interconnect:
            return
        for number in range(len(self.names)):
            if len(intervals.own[number]):
                self.own[number][name] = component_figure(energy, intervals.own[number])
            if len(intervals.waiting[number]):
                self.waiting[number][name] = component_figure(energy, intervals.waiting[number])


class _Times:
    """How long a host was in phases of its own, and how long it waited; per phase name."""

    def __init__(self, intervals: HostIntervals) -> None:
        self.phases = intervals.own_phases
        self.own_s = [intervals.seconds(numbers) for numbers in intervals.own]
        self.waiting_s = [intervals.seconds(numbers) for numbers in intervals.waiting]
        self.parts = [len(numbers) for numbers in intervals.own]


def over_hosts(
    manifest: Manifest,
    table: PhaseTable,
    gathered: Gathered,
    tree: Sequence[Component],
    phases: Sequence[PhaseGroup],
    maker: IntervalMaker,
    questions: Questions,
) -> OverHosts:
    """The part of the summary that is about hosts."""
    cut = roots(tree)
    of_host: dict[str, list[Component]] = {}
    for component in cut:
        if not component.interconnect:
            of_host.setdefault(component.of_host, []).append(component)
    names = sorted((host.name for host in manifest.hosts), key=natural)
    several = gathered.together is not None
    times = {name: _Times(maker.of(name)) for name in names} if several else {}
    switches = [component for component in cut if component.interconnect]
    for_others = {c.host for c in switches} | {c.host for c in tree if c.of_host != c.host}
    hosts = [name for name in names if name in of_host or name not in for_others]
    found = [
        _host_phase(number, table, gathered, of_host, times, hosts, switches, phases[number], questions)
        for number in range(len(phases))
    ]
    return OverHosts(
        hosts=[name for name in hosts if name in of_host],
        without_data=[HostGap(host=name, why=_why(manifest, name)) for name in hosts if name not in of_host],
        interconnect=_interconnect_text(switches, questions),
        phases=found,
    )


def _host_phase(
    number: int,
    table: PhaseTable,
    gathered: Gathered,
    of_host: dict[str, list[Component]],
    times: dict[str, _Times],
    hosts: Sequence[str],
    switches: Sequence[Component],
    phase: PhaseGroup,
    questions: Questions,
) -> HostPhase:
    name = gathered.names[number]
    figures, own, waited = gathered.figures[number], gathered.own[number], gathered.waiting[number]
    shares = []
    last = {} if gathered.together is None else times_last(gathered.together, number)
    for host in hosts:
        cut, time = of_host.get(host, []), times.get(host)
        shares.append(
            HostShare(
                host=host,
                energy=_energy(cut, figures, phase.duration_s),
                phases=time.phases[number] if time else 0,
                own=_energy(cut, own, time.own_s[number]) if time else None,
                waiting=_energy(cut, waited, time.waiting_s[number]) if time else None,
                times_last=last.get(host, 0),
            )
        )
    known = [s.host for s in shares if s.energy is not None and s.energy.joules is not None]
    missing = phase.total is not None and phase.total.joules is None and bool(known)
    owned = [s.host for s in shares if s.own is not None and s.own.joules is not None]
    together = gathered.together
    joined = None
    if together is not None and len(together.of_name[number]):
        cost = _cost_of_waiting([c for host in hosts for c in of_host.get(host, [])], waited, shares)
        joined = joined_figures(table, together, number, cost)
    interconnect, with_it = _interconnect(switches, figures, phase, questions)
    return HostPhase(
        name=phase.name,
        hosts=shares,
        known=_total("known hosts", [c for host in known for c in of_host[host]], figures) if missing else None,
        known_hosts=len(known),
        duration_imbalance=_duration_imbalance(hosts, times, number, name.time_bound_ns * 1e-9),
        energy_imbalance=_energy_imbalance(shares, _total("own", [c for h in owned for c in of_host[h]], own)),
        joined=joined,
        interconnect=interconnect,
        with_interconnect=with_it,
    )


def _cost_of_waiting(
    cut: Sequence[Component], waited: dict[str, EnergyFigure], shares: Sequence[HostShare]
) -> HostEnergy | None:
    """Of all hosts together; its mean power is that of one host that waits."""
    seconds = sum(share.waiting.seconds for share in shares if share.waiting is not None)
    cost = _energy(cut, waited, seconds)
    if cost is None or cost.joules is None or seconds <= 0:
        return cost
    return msgspec.structs.replace(cost, mean_watts=cost.joules / seconds)


def _total(name: str, cut: Sequence[Component], figures: dict[str, EnergyFigure]) -> EnergyFigure | None:
    """Sum over the devices that have a figure, as every total is taken."""
    return total_figure(name, [(c, figures[c.name], c.channels[0].model) for c in cut if c.name in figures])


def _energy(cut: Sequence[Component], figures: dict[str, EnergyFigure], seconds: float) -> HostEnergy | None:
    total = _total("", cut, figures)
    if total is None:
        return None
    return HostEnergy(
        seconds=seconds,
        joules=total.joules,
        expanded_joules=total.expanded_joules,
        mean_watts=total.mean_watts,
        coverage=total.coverage,
        estimate=total.estimate,
        accuracy_known=total.accuracy_known,
    )


def imbalance(values: dict[str, float], expanded: dict[str, float], expanded_of_sum: float | None) -> Imbalance | None:
    """Largest / mean over hosts, with the U of both in quadrature.

    Errors that hosts share cancel in the ratio, so that its U is rather too large. None: there are not two hosts, or
    nothing to compare.
    """
    total = sum(values.values())
    if len(values) < 2 or total <= 0:
        return None
    host = max(values, key=lambda name: values[name])
    ratio = values[host] * len(values) / total
    u = None
    if expanded_of_sum is not None and host in expanded:
        u = ratio * math.hypot(expanded[host] / values[host], expanded_of_sum / total)
    return Imbalance(ratio=ratio, expanded=u, host=host, hosts=len(values))


def _duration_imbalance(
    hosts: Sequence[str], times: dict[str, _Times], number: int, bound_s: float
) -> Imbalance | None:
    """Each of the 2·n edges of n intervals lies within the bound of its instant: a rectangular distribution."""
    own = {host: times[host] for host in hosts if host in times and times[host].phases[number]}
    seconds = {host: time.own_s[number] for host, time in own.items()}
    u = {
        host: COVERAGE_K * bound_s / math.sqrt(3.0) * math.sqrt(2.0 * time.parts[number]) for host, time in own.items()
    }
    return imbalance(seconds, u, math.sqrt(sum(x * x for x in u.values())))


def _energy_imbalance(shares: Sequence[HostShare], total: EnergyFigure | None) -> Imbalance | None:
    known = {s.host: s.own for s in shares if s.own is not None and s.own.joules is not None}
    joules = {host: figure.joules for host, figure in known.items() if figure.joules is not None}
    expanded = {host: figure.expanded_joules for host, figure in known.items() if figure.expanded_joules is not None}
    return imbalance(joules, expanded, None if total is None else total.expanded_joules)


def _interconnect(
    switches: Sequence[Component], figures: dict[str, EnergyFigure], phase: PhaseGroup, questions: Questions
) -> tuple[EnergyFigure | None, EnergyFigure | None]:
    """The interconnect in a phase; of an estimate also what MLPerf Training's rules make of the total."""
    if questions.interconnect_watts is None:
        return _total("interconnect", switches, figures), None
    joules = questions.interconnect_watts * phase.duration_s
    estimate = EnergyFigure(
        name="interconnect",
        scope="interconnect",
        method="estimate",
        joules=joules,
        expanded_joules=None,
        mean_watts=questions.interconnect_watts,
        peak_watts=None,
        coverage=0.0,
        estimate=True,
        accuracy_known=False,
    )
    total = phase.total
    if total is None or total.joules is None:
        return estimate, None
    watts = None if total.mean_watts is None else total.mean_watts + questions.interconnect_watts
    return estimate, EnergyFigure(
        name="total with interconnect",
        scope="total",
        method="sum",
        joules=total.joules + joules,
        expanded_joules=total.expanded_joules,  # the estimate counts as exact, as it does in the rules
        mean_watts=watts,
        peak_watts=None,
        coverage=total.coverage,
        estimate=True,
        accuracy_known=False,
    )


def _interconnect_text(switches: Sequence[Component], questions: Questions) -> str:
    if questions.interconnect_watts is not None:
        return (
            f"ESTIMATE, {questions.interconnect_watts:g} W stated × time, and not in the total; "
            "MLPerf Training adds it as if it were exact"
        )
    if switches:
        return f"measured by {names_text([c.name for c in switches])}, and in the total"
    return ""


def _why(manifest: Manifest, name: str) -> str:
    """Why nothing was measured of a host, as far as its drivers say."""
    if manifest.fleet is not None and any(record.host == name and not record.agent for record in manifest.fleet.agents):
        return "its agent was never heard"
    host = next((host for host in manifest.hosts if host.name == name), None)
    if host is None or not (host.streams or host.drivers):
        return "no readings came from it"
    reasons = [f"{state.driver}: {state.reason}" for state in host.drivers if state.reason]
    return "; ".join(reasons) or "no power or energy was read there"


def names_text(names: Sequence[str]) -> str:
    """`a, b and 40 more`."""
    shown = list(names[:MOST_NAMES])
    if len(names) > MOST_NAMES:
        shown = [*names[: MOST_NAMES - 1], f"and {len(names) - MOST_NAMES + 1} more"]
    return ", ".join(shown)


def told_hosts(over: OverHosts | UnsetType) -> set[str]:
    """Hosts of which `host_warnings` says that nothing was measured."""
    return {gap.host for gap in over.without_data} if isinstance(over, OverHosts) and over.hosts else set()


def host_warnings(over: OverHosts | UnsetType) -> list[str]:
    """What is missing or doubtful about hosts, the gravest first."""
    if not isinstance(over, OverHosts):
        return []
    warnings = []
    if told_hosts(over):
        names = names_text([gap.host for gap in over.without_data])
        why = "; ".join(dict.fromkeys(f"{gap.host}: {gap.why}" for gap in over.without_data[:3]))
        warnings.append(
            f"nothing was measured of {len(over.without_data)} of {len(over.hosts) + len(over.without_data)} hosts "
            f"({names}), and no total holds them: {why}"
        )
    for phase in over.phases:
        if phase.known is not None:
            unknown = [s.host for s in phase.hosts if s.energy is not None and s.energy.joules is None]
            warnings.append(
                f"phase {phase.name}: no total is given, because too little was measured of {names_text(unknown)}; "
                f"the {phase.known_hosts} hosts that are known have a sum of their own"
            )
        if phase.joined is not None and phase.joined.apart:
            warnings.append(
                f"phase {phase.name}: in {phase.joined.apart} of {phase.joined.count} joined phases a rank began after "
                "another had ended: they do not wait for each other, or these are not the same piece of work and "
                "want an index"
            )
    return warnings
