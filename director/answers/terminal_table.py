"""The short table that a run ends with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from director.answers.number_text import duration_text, figure_text, watts_text
from director.answers.summary import EnergyFigure, Metric, PhaseGroup, Summary
from director.energy.interval_energy import TERMS

MOST_PHASES = 12
MOST_COMPONENTS = 16
MOST_WARNINGS = 12


def print_summary(summary: Summary, file: TextIO, *, explain: bool = False) -> None:
    """Print metrics, energy per phase and scope, and warnings; with `explain` the uncertainty budget too.

    Colour only where `file` is a terminal and NO_COLOR is not set.
    """
    console = Console(file=file, highlight=False)
    title = summary.label or summary.session
    console.print(f"\n[bold]{escape(title)}[/bold]  {escape(_ending(summary))}")
    if summary.estimate_only:
        console.print("[bold yellow]ESTIMATE[/bold yellow]: nothing here was measured; see the warnings")
    main = [m for m in summary.metrics if m.phase in ("run", "command") or m.name == "energy per epoch"]
    for metric in summary.metrics if explain else main:
        console.print("  " + _metric_line(metric))
    console.print(_energy_table(summary.phases))
    console.print(f"[dim]total = {escape(summary.scope_of_total)}[/dim]")
    console.print("[dim]± is the expanded uncertainty U, k = 2[/dim]")
    if explain:
        for phase in summary.phases[:MOST_PHASES]:
            console.print(_budget_table(phase))
    _print_sampling(console, summary)
    for warning in summary.warnings[:MOST_WARNINGS]:
        console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
    if len(summary.warnings) > MOST_WARNINGS:
        console.print(f"… and {len(summary.warnings) - MOST_WARNINGS} more warnings in summary.json")


def _ending(summary: Summary) -> str:
    if summary.signal is not None:
        return f"killed by signal {summary.signal}"
    if summary.exit_code:
        return f"exit code {summary.exit_code}"
    return ""


def _metric_line(metric: Metric) -> str:
    estimate = " [yellow]ESTIMATE[/yellow]" if metric.estimate else ""
    note = f"  [dim]({escape(metric.note)})[/dim]" if metric.note else ""
    implied = metric.phase in ("run", "command") or metric.name == "energy per epoch"
    where = "" if implied else f" [dim]of {escape(metric.phase)}[/dim]"
    value = figure_text(metric.value, metric.expanded, metric.unit)
    return f"[bold]{escape(metric.name)}[/bold]{where}: {escape(value)}{estimate}{note}"


def _energy_table(phases: Sequence[PhaseGroup]) -> Table:
    hosts = {figure.name.partition("/")[0] for phase in phases for figure in phase.components}
    host = f"{hosts.pop()}/" if len(hosts) == 1 else ""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("phase", overflow="fold", max_width=24)
    table.add_column("duration", justify="right", no_wrap=True)
    table.add_column("scope", overflow="fold", max_width=30)
    table.add_column("energy ± U", justify="right", no_wrap=True)
    table.add_column("mean W", justify="right", no_wrap=True)
    table.add_column("peak W", justify="right", no_wrap=True)
    table.add_column("method", overflow="fold")
    for phase in phases[:MOST_PHASES]:
        name = escape(phase.name) + (f" ×{phase.count}" if phase.count > 1 else "")
        duration = duration_text(phase.duration_s)
        rows = phase.components[:MOST_COMPONENTS] + phase.not_explained
        if phase.total is not None and len(phase.components) > 1:
            rows = [phase.total, *rows]
        for figure in rows:
            table.add_row(name, duration, *_figure_cells(figure, host))
            name, duration = "", ""
        if len(phase.components) > MOST_COMPONENTS:
            table.add_row("", "", f"… {len(phase.components) - MOST_COMPONENTS} more in summary.json")
        if not rows:
            table.add_row(name, duration, "–", "not measured")
    if len(phases) > MOST_PHASES:
        table.add_row(f"… {len(phases) - MOST_PHASES} more in summary.json")
    return table


def _figure_cells(figure: EnergyFigure, host: str) -> list[str]:
    energy = "not measured"
    if figure.joules is not None:
        energy = figure_text(figure.joules, figure.expanded_joules, "J")
    method = "[yellow]ESTIMATE[/yellow]" if figure.estimate else escape(figure.method)
    if figure.coverage < 0.9995:
        method += f", {figure.coverage:.1%} covered"
    if not figure.accuracy_known:
        method += " (U without the device's own error)"
    return [
        escape(figure.name.removeprefix(host)),
        energy,
        watts_text(figure.mean_watts),
        watts_text(figure.peak_watts),
        method,
    ]


def _budget_table(phase: PhaseGroup) -> Table:
    """Standard uncertainties of one phase name, as shares of its energy."""
    table = Table(box=None, pad_edge=False, header_style="bold", title=f"budget of {escape(phase.name)}: u / E")
    table.title_justify = "left"
    table.add_column("scope", overflow="fold")
    for term in TERMS:
        table.add_column(term, justify="right")
    table.add_column("U (k=2)", justify="right")
    table.add_column("other methods", overflow="fold")
    total = [phase.total] if phase.total is not None and len(phase.components) > 1 else []
    for figure in [*total, *phase.components]:
        if not figure.joules or figure.expanded_joules is None:
            continue
        shares = [f"{figure.terms.get(term, 0.0) / abs(figure.joules):.2%}" for term in TERMS]
        others = "; ".join(
            f"{escape(a.method)} {a.difference:+.2%}" + (" (not used)" if a.not_used_because else "")
            for a in figure.alternatives
            if a.difference is not None
        )
        table.add_row(escape(figure.name), *shares, f"{figure.expanded_joules / abs(figure.joules):.2%}", others)
    return table


def _print_sampling(console: Console, summary: Summary) -> None:
    due = sum(s.due for s in summary.sampling)
    if due:
        late, missed = sum(s.late for s in summary.sampling), sum(s.missed for s in summary.sampling)
        console.print(f"[dim]sampling: {due} readings due, {late} late, {missed} missed[/dim]")
