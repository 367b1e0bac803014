"""The energies of a summary as CSV: a row per phase name and component, for spreadsheets and pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from director.answers.summary import EnergyFigure, HostEnergy, HostPhase, OverHosts, PhaseGroup, Summary
from director.report_page.template import shown
from director.running.series import SeriesResults

COLUMNS = (
    "phase",
    "count",
    "duration_s",
    "kind",  # "total", "component", "not explained", "host" …: sums over rows of different kinds count joules twice
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
    return _text(COLUMNS, _all_rows(summary))


def series_csv(results: SeriesResults) -> str:
    """The same of every run that has results, with its directory and its exit status in front."""
    status = {run.directory: run.status for run in results.series.runs}
    runs = results.summaries.items()
    rows = ([name, status[name], *cells] for name, summary in runs for cells in _all_rows(summary))
    return _text(("run", "run_status", *COLUMNS), rows)


def _text(header: tuple[str, ...], rows: Iterator[list[Cell]]) -> str:
    target = io.StringIO()
    writer = csv.writer(target)  # its dialect is RFC 4180's
    writer.writerow(header)
    writer.writerows([_cell(cell) for cell in row] for row in rows)
    return target.getvalue()


def _all_rows(summary: Summary) -> Iterator[list[Cell]]:
    yield from (_cells(*row) for row in _rows(summary))
    over = summary.over_hosts
    if isinstance(over, OverHosts):
        for phase, group in zip(over.phases, summary.phases, strict=True):
            yield from _host_rows(over, phase, group)


def _host_rows(over: OverHosts, phase: HostPhase, group: PhaseGroup) -> Iterator[list[Cell]]:
    """Of each host its energy in the phase, in its own phases of the name and while it waited; then of the sums."""
    if len(over.hosts) + len(over.without_data) > 1:
        for share in phase.hosts:
            yield _host_cells(group, "host", share.host, share.energy, group.count)
            if share.own is not None and share.phases:
                yield _host_cells(group, "host in own phases", share.host, share.own, share.phases)
            if share.waiting is not None:
                yield _host_cells(group, "host waiting", share.host, share.waiting, share.phases)
    for kind, figure in (
        ("known hosts", phase.known),
        ("interconnect", phase.interconnect),
        ("total with interconnect", phase.with_interconnect),
    ):
        if figure is not None:
            yield _cells(group, kind, figure)


def _host_cells(group: PhaseGroup, kind: str, host: str, energy: HostEnergy | None, count: int) -> list[Cell]:
    if energy is None:
        cells: list[Cell] = [group.name, count, None, kind, host]
        return [*cells, *[None] * (len(COLUMNS) - len(cells))]
    found: dict[str, Cell] = {
        "phase": group.name,
        "count": count,
        "duration_s": energy.seconds,
        "kind": kind,
        "component": host,
        "scope": "total",
        "joules": energy.joules,
        "expanded_joules": energy.expanded_joules,
        "mean_watts": energy.mean_watts,
        "coverage": energy.coverage,
        "method": "sum",
        "estimate": energy.estimate,
        "accuracy_known": energy.accuracy_known,
    }
    return [found.get(column) for column in COLUMNS]


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
