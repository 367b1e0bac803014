"""What the page of a session says, worked out of its summary and manifest: texts and shares, ready for the template."""

from __future__ import annotations

import datetime
import shlex
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from director.answers.host_text import common_host, worst_first
from director.answers.number_text import duration_text, figure_text, share_text, watts_text
from director.answers.summary import EnergyFigure, Metric, PhaseGroup, Summary
from director.report_page.headline import chief_phase
from director.report_page.host_data import MOST_BARS, several_hosts, share_figure
from director.session.manifest import Manifest

TERMS = {
    "meter": "the meter's own limits of error",
    "edge": "where in a reading the phase begins and ends",
    "sync": "how well clocks are tied to each other",
    "window": "what the device does not look at between its readings",
    "step": "steps of the energy counter",
    "gap": "time without readings, which is interpolated",
}
SCOPES = {
    "wall": "wall socket",
    "node": "machine",
    "psys": "platform",
    "module": "module",
    "package": "CPU package",
    "core": "CPU cores",
    "uncore": "CPU uncore",
    "dram": "memory",
    "gpu": "GPU",
    "gpu_memory": "GPU memory",
    "rail": "supply rail",
    "battery": "battery",
}
BESIDE_POWER = {
    "voltage": "voltage",
    "current": "current",
    "power_factor": "power factor",
    "uncertainty": "uncertainty of a reading of power, as PTDaemon reckons it",
}
WHAT_METRICS_MEAN = {
    "joules-to-train": "energy from the start of the run to its end, without initialisation",
    "time-to-train": "duration of the run",
    "energy": "energy from the command's start to its end",
    "energy of the run": "energy of the measured run",
    "energy-delay product": "energy × duration: rewards both thrift and speed",
    "energy above idle": "energy minus idle power × duration: what the work itself added",
    "energy per epoch": "energy of the epochs by their number",
    "samples per joule": "the same as samples per second for each watt",
    "tokens per joule": "the same as tokens per second for each watt",
    "queries per joule": "the same as queries per second for each watt",
    "streams per joule": "the same as streams per second for each watt",
}


@dataclass(frozen=True)
class Bar:
    """One bar with its whisker; shares of the chart's width, 0 … 1."""

    label: str
    note: str
    text: str  # the figure
    watts: str
    share: float
    low: float  # where the whisker ± U begins and ends
    high: float
    kind: str  # "total", "part", "unexplained"
    estimate: bool


@dataclass(frozen=True)
class PhaseBars:
    """A phase name's total on the scale of all, and its components on a scale of their own."""

    name: str
    count: int
    duration: str
    total: Bar
    parts: list[Bar]
    chief: bool


@dataclass(frozen=True)
class TermBar:
    """One term of the uncertainty budget."""

    name: str
    meaning: str
    joules: str  # 2·u, its contribution to U
    of_energy: str
    share: float  # of U


@dataclass(frozen=True)
class Budget:
    """Where U of one figure comes from."""

    name: str
    figure: str
    terms: list[TermBar]


@dataclass(frozen=True)
class Tile:
    """One chief figure."""

    label: str
    figure: str
    note: str = ""


def when_text(manifest: Manifest) -> str:
    """When the session began, in UTC."""
    try:
        at = datetime.datetime.fromtimestamp(manifest.created_wall_ns / 1e9, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return "at an unknown time"
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def ending_text(summary: Summary) -> str:
    """How the command ended, where that was not well."""
    if summary.signal is not None:
        try:
            name = signal.Signals(summary.signal).name
        except ValueError:
            name = f"signal {summary.signal}"
        return f"The command was killed by {name}. The figures are of what ran until then."
    if summary.exit_code:
        return f"The command failed with exit code {summary.exit_code}. The figures are of what ran until then."
    return ""


def tiles(summary: Summary) -> list[Tile]:
    """The chief figures besides the answer."""
    run = chief_phase(summary)
    total, found = run.total, [Tile("duration", duration_text(run.duration_s), _of(run))]
    if total is not None and total.mean_watts is not None:
        found.append(Tile("mean power", f"{watts_text(total.mean_watts)} W", _of(run)))
    if total is not None and total.peak_watts is not None:
        found.append(Tile("highest reading", f"{watts_text(total.peak_watts)} W", _of(run)))
    if total is not None and total.joules is not None:
        if total.above_idle_joules is not None and run.duration_s > 0:
            idle = (total.joules - total.above_idle_joules) / run.duration_s
            found.append(Tile("idle power", f"{watts_text(idle)} W", "before and after"))
        if total.expanded_joules is not None and total.joules > 0:
            found.append(
                Tile("uncertainty", f"± {share_text(total.expanded_joules / total.joules)}", "of the energy, k = 2")
            )
        found.append(Tile("time covered", share_text(total.coverage), _of(run)))
    wanted = ("energy per epoch", "samples per joule", "tokens per joule", "cost", "carbon")
    for metric in summary.metrics:
        new = metric.name in wanted and metric.name not in {tile.label for tile in found}
        if new and metric.phase in (run.name, "epoch"):
            note = "ESTIMATE" if metric.estimate else ""
            found.append(Tile(metric.name, metric_text(metric), note))
    return found[:8]


def _of(run: PhaseGroup) -> str:
    return "of the run" if run.name == "run" else "of the command"


def metric_text(metric: Metric) -> str:
    """Value ± U with its unit, without the unit's other names."""
    return figure_text(metric.value, metric.expanded, metric.unit.partition(" (")[0])


def phase_bars(summary: Summary) -> list[PhaseBars]:
    """Every phase name with its bars."""
    host, chief = common_host(summary.phases), chief_phase(summary)
    largest = max((_reach(p.total) for p in summary.phases if p.total is not None), default=0.0)
    found = []
    over = several_hosts(summary)
    for number, phase in enumerate(summary.phases):
        parts = [(figure, "part") for figure in phase.components] + [(f, "unexplained") for f in phase.not_explained]
        if over is not None:  # devices of many hosts are too many to show
            shares = worst_first([share for share in over.phases[number].hosts if share.energy is not None])
            parts = [(share_figure(share), "part") for share in shares[:MOST_BARS]]
        widest = max((_reach(figure) for figure, _ in parts), default=0.0)
        found.append(
            PhaseBars(
                name=phase.name,
                count=phase.count,
                duration=duration_text(phase.duration_s),
                total=_bar(phase.total, "", largest, "total"),
                parts=[_bar(figure, host, widest, kind) for figure, kind in parts],
                chief=phase is chief,
            )
        )
    return found


def _reach(figure: EnergyFigure) -> float:
    return max((figure.joules or 0.0) + (figure.expanded_joules or 0.0), 0.0)


def _bar(figure: EnergyFigure | None, host: str, largest: float, kind: str) -> Bar:
    if figure is None or figure.joules is None:
        name = "total" if figure is None else figure.name.removeprefix(host)
        note = "" if figure is None else f"only {share_text(figure.coverage)} of the time was measured"
        return Bar(name, note, "not measured", "–", 0.0, 0.0, 0.0, kind, False)
    notes = [SCOPES.get(figure.scope, "")] if kind == "part" else []  # of a host's sum there is none
    notes += ["seen from outside, by no device inside"] if kind == "unexplained" else []
    notes += [f"{figure.coverage:.1%} measured"] if figure.coverage < 0.9995 else []
    notes += [] if figure.accuracy_known else ["± without the device's own error"]

    def share(joules: float) -> float:
        return round(min(max(joules / largest, 0.0), 1.0), 5) if largest > 0 else 0.0

    u = figure.expanded_joules or 0.0
    return Bar(
        label=figure.name.removeprefix(host),
        note="; ".join(filter(None, notes)),
        text=figure_text(figure.joules, figure.expanded_joules, "J"),
        watts=f"{watts_text(figure.mean_watts)} W",
        share=share(figure.joules),
        low=share(figure.joules - u),
        high=share(figure.joules + u),
        kind=kind,
        estimate=figure.estimate,
    )


def budgets(summary: Summary) -> list[Budget]:
    """Where U comes from: of the chief phase's total, then of its components."""
    run, host = chief_phase(summary), common_host(summary.phases)
    figures = [run.total] if run.total is not None and len(run.components) > 1 else []
    found = []
    for figure in [*figures, *run.components]:
        u, joules = figure.expanded_joules, figure.joules
        if u is None or joules is None or not figure.terms:
            continue
        terms = [
            TermBar(
                name=name,
                meaning=TERMS.get(name, ""),
                joules=figure_text(2 * value, None, "J"),
                of_energy=share_text(2 * value / abs(joules)) if joules else "–",
                share=round(min(2 * value / u, 1.0), 5) if u > 0 else 0.0,
            )
            for name, value in figure.terms.items()
        ]
        name = figure.name.removeprefix(host)
        found.append(Budget(name, figure_text(joules, u, "J"), terms))
    return found


def own_command(summary: Summary, manifest: Manifest) -> str:
    """The command line that measures the same again, as far as the session tells."""
    words = ["power-director", "run"]
    fleet = manifest.fleet
    if fleet is not None:
        words = words if fleet.asker == "local" else ["power-agent", "run"]
        words += ["--hosts", ",".join(record.host for record in fleet.agents)]
        words += [word for stage in fleet.stages if len(fleet.stages) > 1 for word in ("--stage", stage)]
    words += ["--label", summary.label] if summary.label else []
    if manifest.idle_ns:
        begin, end = manifest.idle_ns[0]
        words += ["--idle", f"{(end - begin) * 1e-9:.0f}"]
    for source in manifest.phase_sources:
        if source.kind in ("mllog", "loadgen"):
            words += [f"--{source.kind}", source.origin or "-"]
        elif source.kind == "regex":
            words += ["--phase-pattern", source.pattern]
            words += ["--phase-log", source.origin] if source.origin else []
    factors = manifest.factors
    words += ["--cost-per-kwh", f"{factors.cost_per_kwh:g}"] if factors.cost_per_kwh is not None else []
    words += ["--currency", factors.currency] if factors.currency else []
    words += ["--carbon-g-per-kwh", f"{factors.carbon_g_per_kwh:g}"] if factors.carbon_g_per_kwh is not None else []
    if manifest.replay_clock is not None:
        words += ["--replay", "TRACE", "--replay-speed", f"{manifest.replay_clock.speed:g}"]
    words += ["--", *summary.command] if summary.command else []
    return shlex.join(words)


def facts(summary: Summary, manifest: Manifest) -> list[tuple[str, str]]:
    """What a second run must have in common with this one to be comparable."""
    found = [
        ("program", f"ml-power-agent {summary.tool_version}"),
        ("session", summary.session),
        ("begun", when_text(manifest)),
    ]
    if manifest.workload is not None:
        found.append(("working directory", manifest.workload.cwd))
    hosts_of: dict[tuple[str, str], list[str]] = {}  # what equal hosts have in common is told once
    for host in manifest.hosts:
        models = dict.fromkeys(c.model for f in host.streams for c in f.stream.channels if c.model)
        told = [(name.replace("_", " "), text) for name, text in host.system.items()]
        told += [("wall clock", host.wall_clock)] if host.wall_clock else []
        for fact in [*told, *([("devices", ", ".join(models))] if models else [])]:
            hosts_of.setdefault(fact, []).append(host.name)
    for (name, text), hosts in hosts_of.items():
        at = f" of {hosts_text(hosts)}" if len(manifest.hosts) > 1 else ""
        found.append((f"{name}{at}", text))
    found += list(manifest.environment.items())
    return found


def hosts_text(hosts: Sequence[str]) -> str:
    """`a, b and 40 more hosts`."""
    return ", ".join(hosts) if len(hosts) <= 3 else f"{hosts[0]}, {hosts[1]} and {len(hosts) - 2} more hosts"


def units_of_time(rate_hz: float) -> str:
    """`10 Hz`, `1 kHz`."""
    return f"{rate_hz / 1000:g} kHz" if rate_hz >= 1000 else f"{round(rate_hz, 4):g} Hz"


def component_readings(summary: Summary) -> Sequence[EnergyFigure]:
    """The chief phase's components, whose readings, stale and missing ones are told."""
    return chief_phase(summary).components
