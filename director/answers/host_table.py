"""Hosts, stragglers and scaling on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from director.answers.host_text import joined_facts, scaling_facts, short_rows
from director.answers.number_text import duration_text
from director.answers.summary import OverHosts, PhaseGroup, Scaling

Show = Callable[..., str]  # makes text that others wrote safe to print


def host_table(over: OverHosts, phases: Sequence[PhaseGroup], part_label: str, most: int, show: Show) -> Table:
    """Energy per phase and host: all of few hosts, the extremes of many."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("phase", overflow="fold", max_width=16)
    table.add_column("duration", justify="right", no_wrap=True)
    table.add_column("host", overflow="fold", max_width=20)
    table.add_column("energy ± U", justify="right", no_wrap=True)
    table.add_column("mean W", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for phase, group in zip(over.phases[:most], phases, strict=False):
        name = show(group.name, 60) + (f" ×{group.count}" if group.count > 1 else "")
        duration = duration_text(group.duration_s)
        for row in short_rows(over, phase, group, part_label):
            note = f"[yellow]{show(row.note)}[/yellow]" if row.estimate else show(row.note) if row.note else ""
            table.add_row(name, duration, show(row.label, 60), row.energy, row.watts, note)
            name, duration = "", ""
    if len(over.phases) > most:
        table.add_row(f"… {len(over.phases) - most} more in summary.json")
    return table


def print_hosts(console: Console, over: OverHosts, phases: Sequence[PhaseGroup], most: int, show: Show) -> None:
    """Who waited for whom, and where the interconnect's figure comes from."""
    for phase, group in zip(over.phases[:most], phases, strict=False):
        facts = joined_facts(phase, group)
        if facts:
            console.print(f"\n[bold]{show(phase.name, 60)} over the ranks[/bold]")
            _print_facts(console, facts, show)
    if over.interconnect:
        console.print(f"\ninterconnect: {show(over.interconnect)}")


def print_scaling(console: Console, scaling: Scaling, show: Show) -> None:
    """Figures against a smaller run."""
    console.print("\n[bold]Against a smaller run[/bold]")
    _print_facts(console, scaling_facts(scaling), show)


def _print_facts(console: Console, facts: Sequence[tuple[str, str]], show: Show) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, text in facts:
        table.add_row(show(name) if name else "", show(text))
    console.print(Padding(table, (0, 0, 0, 2), expand=False))
