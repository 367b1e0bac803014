"""The energies of a summary as CSV: a row per phase name and component, for spreadsheets and pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from director.answers.summary import EnergyFigure, PhaseGroup, Summary
from director.report_page.template import shown
from director.running.series import SeriesResults

COLUMNS = (
    "phase",
    "count",
    "duration_s",
    "kind",  # "total", "component", "not explained": sums over rows of different kinds count joules twice
    "component",
    "scope",
    "joules",
    "expanded_joules",  # U, k = 2
    "mean_watts",
    "peak_watts",
    "coverage",
    "method",
    "estimate",
    "accuracy_known",
    "readings",
    "stale",
    "missing",
    "above_idle_joules",
)
# What a spreadsheet takes for a formula, full-width forms included (OWASP, "CSV Injection").
_FORMULA = tuple("=+-@＝＋－＠")

_LONGEST_CODE = 10  # of a character that is shown by its code: nothing is cut off

Cell = str | int | float | bool | None


def session_csv(summary: Summary) -> str:
    """The table of one session: RFC 4180, with a header. An empty cell: not known, never zero."""
    return _text(COLUMNS, (_cells(*row) for row in _rows(summary)))


def series_csv(results: SeriesResults) -> str:
    """The same of every run that has results, with its directory and its exit status in front."""
    status = {run.directory: run.status for run in results.series.runs}
    runs = results.summaries.items()
    rows = ([name, status[name], *_cells(*row)] for name, summary in runs for row in _rows(summary))
    return _text(("run", "run_status", *COLUMNS), rows)


def _text(header: tuple[str, ...], rows: Iterator[list[Cell]]) -> str:
    target = io.StringIO()
    writer = csv.writer(target)  # its dialect is RFC 4180's
    writer.writerow(header)
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    return target.getvalue()


def _rows(summary: Summary) -> Iterator[tuple[PhaseGroup, str, EnergyFigure | None]]:
    """A phase of which nothing can be added up still has a total: one without figures."""
    for phase in summary.phases:
        yield phase, "total", phase.total
        yield from ((phase, "component", figure) for figure in phase.components)
        yield from ((phase, "not explained", figure) for figure in phase.not_explained)


def _cells(phase: PhaseGroup, kind: str, figure: EnergyFigure | None) -> list[Cell]:
    cells: list[Cell] = [phase.name, phase.count, phase.duration_s, kind]
    if figure is None:
        return [*cells, "total", *[None] * (len(COLUMNS) - len(cells) - 1)]
    return [
        *cells,
        figure.name,
        figure.scope,
        figure.joules,
        figure.expanded_joules,
        figure.mean_watts,
        figure.peak_watts,
        figure.coverage,
        figure.method,
        figure.estimate,
        figure.accuracy_known,
        figure.readings,
        figure.stale,
        figure.missing,
        figure.above_idle_joules,
    ]


def _cell(value: Cell) -> str | int | float | None:
    """Numbers in full; text on one line, and with an apostrophe before what would be a formula."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return value
    text = shown(value, _LONGEST_CODE * len(value))
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
