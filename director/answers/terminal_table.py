"""The short table that a run ends with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from director.answers.host_table import host_table, print_hosts, print_scaling
from director.answers.host_text import common_host
from director.answers.number_text import duration_text, figure_text, share_text, watts_text
from director.answers.summary import EnergyFigure, Metric, OverHosts, PhaseGroup, Scaling, Summary
from director.energy.interval_energy import TERMS

MOST_PHASES = 12
MOST_COMPONENTS = 16
MOST_WARNINGS = 12
LONGEST_NAME = 60  # characters of a phase's name; summary.json has it whole


def print_summary(summary: Summary, file: TextIO, *, explain: bool = False) -> None:
    """Print metrics, energy per phase and scope, and warnings; with `explain` the uncertainty budget too.

    Colour only where `file` is a terminal and NO_COLOR is not set.
    """
    console = Console(file=file, highlight=False)
    title = f"[bold]{_text(summary.label or summary.session)}[/bold]"
    console.print("", "  ".join(filter(None, [title, _ending(summary)])), sep="\n")
    if summary.estimate_only:
        console.print("[bold yellow]ESTIMATE[/bold yellow]: nothing here was measured; see the warnings")
    main = [m for m in summary.metrics if m.phase in ("run", "command") or m.name == "energy per epoch"]
    for metric in summary.metrics if explain else main:
        console.print(Padding(_metric_line(metric, _estimate_label(summary)), (0, 0, 0, 2), expand=False))
    over = summary.over_hosts
    if isinstance(over, OverHosts) and len(over.hosts) + len(over.without_data) > 1:
        label = "ESTIMATE" if summary.estimate_only else "ESTIMATE in part"
        console.print(host_table(over, summary.phases, label, MOST_PHASES, _text))
    else:
        console.print(_energy_table(summary.phases, _estimate_label(summary)))
        if isinstance(over, OverHosts):
            console.print(host_table(over, summary.phases, "", MOST_PHASES, _text))
    if isinstance(over, OverHosts):
        print_hosts(console, over, summary.phases, MOST_PHASES, _text)
    if isinstance(summary.scaling, Scaling):
        print_scaling(console, summary.scaling, _text)
    console.print(f"[dim]total = {_text(summary.scope_of_total)}[/dim]")
    console.print("[dim]± is the expanded uncertainty U, k = 2[/dim]")
    if explain:
        console.print("\n[bold]Where U comes from[/bold]: each standard uncertainty u, and U, as a share of the energy")
        console.print(_budget_table(summary.phases[:MOST_PHASES]))
        console.print("\n[bold]What other channels and methods give[/bold], against what was used")
        console.print(_methods_table(summary.phases[:MOST_PHASES]), "")
    _print_sampling(console, summary)
    for note in summary.notes:
        console.print(f"[dim]{_text(note)}[/dim]", soft_wrap=True)
    for warning in summary.warnings[:MOST_WARNINGS]:
        console.print(f"[yellow]warning:[/yellow] {_text(warning)}", soft_wrap=True)
    if len(summary.warnings) > MOST_WARNINGS:
        console.print(f"… and {len(summary.warnings) - MOST_WARNINGS} more warnings in summary.json")


def _text(text: str, longest: int = 1000) -> str:
    """Text that others wrote, on one line: what would move the cursor or turn the line round is shown by its code."""
    shown = "".join(c if c.isprintable() else " " if c.isspace() else c.encode("unicode_escape").decode() for c in text)
    return escape(shown if len(shown) <= longest else f"{shown[: longest - 1]}…") or '""'


def _ending(summary: Summary) -> str:
    if summary.signal is not None:
        return f"killed by signal {summary.signal}"
    if summary.exit_code:
        return f"exit code {summary.exit_code}"
    return ""


def _estimate_label(summary: Summary) -> str:
    """What a sum over devices is called that holds a modelled part."""
    return "[yellow]ESTIMATE[/yellow]" if summary.estimate_only else "[yellow]ESTIMATE in part[/yellow]"


def _metric_line(metric: Metric, estimate_label: str) -> str:
    estimate = f" {estimate_label}" if metric.estimate else ""
    note = f"  [dim]({_text(metric.note)})[/dim]" if metric.note else ""
    implied = metric.phase in ("run", "command") or metric.name == "energy per epoch"
    where = "" if implied else f" [dim]of {_text(metric.phase)}[/dim]"
    value = figure_text(metric.value, metric.expanded, metric.unit)
    return f"[bold]{_text(metric.name)}[/bold]{where}: {_text(value)}{estimate}{note}"


def _energy_table(phases: Sequence[PhaseGroup], estimate_label: str) -> Table:
    host = common_host(phases)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("phase", overflow="fold", max_width=24)
    table.add_column("duration", justify="right", no_wrap=True)
    table.add_column("scope", overflow="fold", max_width=30)
    table.add_column("energy ± U", justify="right", no_wrap=True)
    table.add_column("mean W", justify="right", no_wrap=True)
    table.add_column("peak W", justify="right", no_wrap=True)
    table.add_column("method", overflow="fold")
    for phase in phases[:MOST_PHASES]:
        name = _text(phase.name, LONGEST_NAME) + (f" ×{phase.count}" if phase.count > 1 else "")
        duration = duration_text(phase.duration_s)
        rows = phase.components[:MOST_COMPONENTS] + phase.not_explained
        if phase.total is not None and len(phase.components) > 1:
            rows = [phase.total, *rows]
        for figure in rows:
            label = estimate_label if figure is phase.total else "[yellow]ESTIMATE[/yellow]"
            table.add_row(name, duration, *_figure_cells(figure, host, label))
            name, duration = "", ""
        if len(phase.components) > MOST_COMPONENTS:
            table.add_row("", "", f"… {len(phase.components) - MOST_COMPONENTS} more in summary.json")
        if not rows:
            table.add_row(name, duration, "–", "not measured")
    if len(phases) > MOST_PHASES:
        table.add_row(f"… {len(phases) - MOST_PHASES} more in summary.json")
    return table


def _figure_cells(figure: EnergyFigure, host: str, estimate_label: str) -> list[str]:
    energy = "not measured"
    if figure.joules is not None:
        energy = figure_text(figure.joules, figure.expanded_joules, "J")
    method = estimate_label if figure.estimate else _text(figure.method)
    if figure.coverage < 0.9995:
        method += f", {figure.coverage:.1%} covered"
    if not figure.accuracy_known:
        method += " (U without the device's own error)"
    return [
        _text(figure.name.removeprefix(host)),
        energy,
        watts_text(figure.mean_watts),
        watts_text(figure.peak_watts),
        method,
    ]


def _figures(phase: PhaseGroup) -> list[EnergyFigure]:
    total = [phase.total] if phase.total is not None and len(phase.components) > 1 else []
    return [*total, *phase.components]


def _budget_table(phases: Sequence[PhaseGroup]) -> Table:
    """Standard uncertainties of each phase name, as shares of its energy."""
    host = common_host(phases)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("phase", overflow="fold")
    table.add_column("scope", overflow="fold")
    for heading in (*TERMS, "U (k=2)"):
        table.add_column(heading, justify="right", no_wrap=True)
    for phase in phases:
        name = _text(phase.name, LONGEST_NAME)
        for figure in _figures(phase):
            if not figure.joules or figure.expanded_joules is None:
                continue
            parts = [*(figure.terms.get(term, 0.0) for term in TERMS), figure.expanded_joules]
            shares = [share_text(part / abs(figure.joules)) for part in parts]
            table.add_row(name, _text(figure.name.removeprefix(host)), *shares)
            name = ""
    return table


def _methods_table(phases: Sequence[PhaseGroup]) -> Table:
    """How far the energies that were not taken lie from the one that was."""
    host = common_host(phases)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("phase", "scope", "used", "others"):
        table.add_column(heading, overflow="fold")
    for phase in phases:
        name = _text(phase.name, LONGEST_NAME)
        for figure in phase.components:
            others = [
                f"{_method_text(a.channel, a.method)} {a.difference:+.1%}"
                for a in figure.alternatives
                if a.difference is not None
            ]
            if others:
                used = [_method_text(channel, figure.method) for channel in figure.channels]
                table.add_row(name, _text(figure.name.removeprefix(host)), "; ".join(used), "; ".join(others))
                name = ""
    return table


def _method_text(channel: str, method: str) -> str:
    """The quantity, which tells a counter from a power; whether it is padded it does not tell."""
    quantity = channel.rpartition("/")[2]
    return _text(f"{quantity}, padded" if method == "padded" else quantity)


def _print_sampling(console: Console, summary: Summary) -> None:
    due = sum(s.due for s in summary.sampling)
    if due:
        late, missed = sum(s.late for s in summary.sampling), sum(s.missed for s in summary.sampling)
        console.print(f"[dim]sampling: {due} readings due, {late} late, {missed} missed[/dim]")
