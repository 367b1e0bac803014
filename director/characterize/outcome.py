"""`power-director characterize`: the table of what was found, and JSON."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from director.answers.number_text import figure_text
from director.characterize.session_channels import Characterisation, Finding, remarks
from director.characterize.step_response import POLLS_PER_UPDATE, StepResponse

_UNKNOWN = "–"


def show(found: Characterisation) -> None:
    """Print the table on standard error."""
    # Without a terminal there is no width that would have to be kept to.
    console = Console(stderr=True, highlight=False, markup=False, width=None if sys.stderr.isatty() else 200)
    console.print(Text.assemble((found.device, "bold"), f"  from {found.session}"))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("channel", overflow="fold")
    for title in ("new value every", "window", "delay", "noise", "load off", "load on"):
        table.add_column(title, justify="right")
    for finding in found.findings:
        if finding.response is not None:
            table.add_row(Text(finding.channel.name), *_cells(finding, finding.response))
    if table.row_count:
        console.print(table)
        console.print("± is the expanded uncertainty U, k = 2", style="dim")
    for finding in found.findings:
        if finding.response is None:
            console.print(Text.assemble((finding.channel.name, "yellow"), f": cannot be told: {finding.reason}"))
    for finding in found.findings:
        for remark in remarks(finding):
            console.print(remark)


def write_json(found: Characterisation, target: str) -> None:
    """Write all with full precision into a file; "-": to standard output.

    Raises:
        OSError: it cannot be written.
    """
    text = msgspec.json.format(msgspec.json.encode(_json(found)), indent=2).decode() + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        Path(target).write_text(text, encoding="utf-8")


def _json(found: Characterisation) -> dict[str, Any]:
    channels = []
    for finding in found.findings:
        told: dict[str, Any] = {"channel": finding.channel.name, "model": finding.channel.model}
        told |= {"unit": finding.channel.unit, "rate_hz": finding.rate_hz}
        if finding.response is None:
            told["reason"] = finding.reason
        else:
            told |= asdict(finding.response) | {"remarks": list(remarks(finding))}
        channels.append(told)
    return {"device": found.device, "session": str(found.session), "channels": channels}


def _cells(finding: Finding, found: StepResponse) -> list[str]:
    of_counter = finding.channel.kind == "counter"
    unit = finding.channel.unit
    rate_unit = ("W" if unit == "J" else f"{unit}/s") if of_counter else unit
    period = f"< {POLLS_PER_UPDATE * found.poll_s:.3g} s"
    if found.update_period_s is not None:
        period = _seconds(found.update_period_s, found.update_period_u_s)
    return [
        period,
        _UNKNOWN if of_counter else _seconds(found.window_s, found.window_u_s),
        _seconds(found.delay_s, found.delay_u_s),
        figure_text(found.noise, found.noise_u, unit),
        figure_text(found.off_value, found.off_value_u, rate_unit),
        figure_text(found.on_value, found.on_value_u, rate_unit),
    ]


def _seconds(value: float, expanded: float) -> str:
    if max(value, expanded) < 1:
        return figure_text(1000 * value, 1000 * expanded, "ms")
    return figure_text(value, expanded, "s")
