"""`power-director qualify`: the table of the meter test, JSON, and the plot."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from director.answers.number_text import figure_text
from director.mlperf.qualify.meter_test import Measured, Qualification, QualifyRefused


def show(found: Qualification, json_file: str | None, plot_file: Path | None) -> None:
    """Print the table, and write JSON and the plot where that is wanted; "-": JSON alone, on standard output.

    Raises:
        QualifyRefused: a file cannot be written.
    """
    if plot_file is not None:
        from director.mlperf.qualify.plot import draw

        try:
            draw(found, plot_file)
        except OSError as error:
            raise QualifyRefused(f"{plot_file} cannot be written: {error.strerror}") from None
    if json_file is not None:
        text = json.dumps(found.to_json(), indent=2, allow_nan=False) + "\n"
        if json_file == "-":
            sys.stdout.write(text)
            return
        try:
            Path(json_file).write_text(text, encoding="utf-8")
        except OSError as error:
            raise QualifyRefused(f"{json_file} cannot be written: {error.strerror}") from None
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)
    console.print(Text(f"meter: {found.meter}"))
    console.print(Text(f"reference: {found.reference}"))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, title in enumerate(
        ("level", "meter", "reference", "difference ± U", f"within {found.limit_percent:g} %")
    ):
        table.add_column(title, justify="left" if number == 0 else "right")
    for level in found.levels:
        difference = f"{level.difference_percent:+.2f} ± {level.expanded_percent:.2f} %"
        verdict = Text("yes", style="green") if level.passes else Text("NO", style="bold red")
        table.add_row(Text(level.name), _watts(level.meter), _watts(level.reference), difference, verdict)
    console.print(table)
    lacking = "" if found.accuracy_known else ", without the error of a meter itself, which is not known"
    console.print(f"Olympic means of five minutes, ± U (k = 2){lacking}", style="dim")
    console.print("the meter qualifies" if found.passes else "the meter does not qualify", style="bold")


def _watts(measured: Measured) -> str:
    return figure_text(measured.olympic, measured.expanded, "W")
