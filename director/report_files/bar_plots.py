"""Energy by phase and by device, and where its uncertainty comes from, as bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from director.answers.host_text import common_host
from director.answers.number_text import duration_text, figure_text, share_text
from director.answers.summary import EnergyFigure, Summary
from director.report_page.headline import chief_phase
from director.report_page.page_data import SCOPES, TERMS
from director.report_page.template import shown

MOST_BARS = 24
MOST_BUDGETS = 6  # in one figure, which then fits a printed page
WIDTH_IN, BAR_IN, THIN_BAR_IN = 7.2, 0.27, 0.18
CHARACTER_IN = 0.066
TOTAL, PART, UNEXPLAINED, TERM = "#0072b2", "#56b4e9", "#999999", "#e69f00"

Row = tuple[str, EnergyFigure | None, str, str]  # label, figure, colour, what an estimate is called


def bar_plots(title: str, summary: Summary) -> Iterator[tuple[str, Figure]]:
    """File names without their ending, and figures."""
    host, chief = common_host(summary.phases), chief_phase(summary)
    of_sums = "ESTIMATE" if summary.estimate_only else "ESTIMATE in part"
    phases: list[Row] = []
    for phase in summary.phases:
        count = f" ×{phase.count}" if phase.count > 1 else ""
        name = f"{shown(phase.name, 40)}{count}, {duration_text(phase.duration_s)}"
        phases.append((name, phase.total, TOTAL, of_sums))
    left_out = summary.phases_left_out
    yield from _energy_plot("energy-by-phase", f"{title}: energy by phase", phases, left_out)

    devices: list[Row] = [(_device(f, host), f, PART, "ESTIMATE") for f in chief.components]
    devices += [(shown(f.name.removeprefix(host), 60), f, UNEXPLAINED, "ESTIMATE") for f in chief.not_explained]
    heading = f"{title}: energy by device, {shown(chief.name, 40)}"
    yield from _energy_plot("energy-by-device", heading, devices, 0)

    figures = [chief.total] if chief.total is not None and len(chief.components) > 1 else []
    same = chief.total.terms if figures and chief.total is not None else None  # the one outermost device's
    parts = [figure for figure in chief.components if figure.terms != same]
    known = [f for f in [*figures, *parts] if f.joules is not None and f.expanded_joules and f.terms]
    if known:
        yield "uncertainty", _budget_plot(f"{title}: where U comes from, {shown(chief.name, 40)}", known, host, of_sums)


def _device(figure: EnergyFigure, host: str) -> str:
    return f"{shown(figure.name.removeprefix(host), 40)} ({SCOPES.get(figure.scope, shown(figure.scope, 20))})"


def _energy_plot(name: str, title: str, rows: Sequence[Row], left_out: int) -> Iterator[tuple[str, Figure]]:
    """Bars with whiskers of ± U; of what was not measured no bar, but a word."""
    if not any(figure is not None and figure.joules is not None for _, figure, _, _ in rows):
        return
    left_out += max(len(rows) - MOST_BARS, 0)
    rows = rows[:MOST_BARS]
    estimates = {label for _, figure, _, label in rows if figure is not None and figure.estimate}
    if estimates:
        all_of_them = all(figure is None or figure.estimate for _, figure, _, _ in rows)
        title += ", ESTIMATE" if all_of_them and estimates == {"ESTIMATE"} else ", ESTIMATE in part"
    drawing = Figure(figsize=(WIDTH_IN, BAR_IN * len(rows) + 1.1), layout="constrained")
    axis = drawing.subplots()
    drawing.suptitle(title, fontsize=10)
    texts = []  # beside the bars: where they begin, and what they say
    for number, (_, figure, colour, label) in enumerate(rows):
        if figure is None or figure.joules is None:
            texts.append((0.0, "not measured"))
            continue
        _bar(axis, number, figure.joules, colour, estimate=figure.estimate)
        u = figure.expanded_joules or 0.0
        if u:
            axis.errorbar(figure.joules, number, xerr=u, color="#222222", lw=0.9, capsize=2.5)
        text = figure_text(figure.joules, figure.expanded_joules, "J") + (f" {label}" if figure.estimate else "")
        texts.append((max(figure.joules + u, 0.0), text))
    _finish(axis, [label for label, _, _, _ in rows], texts, "energy; whiskers: ± U, k = 2")
    if left_out:
        drawing.supxlabel(f"{left_out} more are in the session's tables", fontsize=7)
    yield name, drawing


def _budget_plot(title: str, figures: Sequence[EnergyFigure], host: str, of_sums: str) -> Figure:
    """A set of bars per figure: 2·u of each term, which add up to U as squares."""
    left_out = len(figures) - MOST_BUDGETS
    figures = figures[:MOST_BUDGETS]
    if any(figure.estimate for figure in figures):
        title += ", ESTIMATE" if all(figure.estimate for figure in figures) else ", ESTIMATE in part"
    height = (THIN_BAR_IN * len(TERMS) + 0.5) * len(figures) + 0.5
    drawing = Figure(figsize=(WIDTH_IN, height), layout="constrained")
    drawing.suptitle(title, fontsize=10)
    axes = drawing.subplots(len(figures), 1, squeeze=False)[:, 0]
    for place, (axis, figure) in enumerate(zip(axes, figures, strict=True)):
        assert figure.joules is not None
        texts = []
        for number, term in enumerate(TERMS):
            part = 2 * figure.terms.get(term, 0.0)
            share = f" ({share_text(part / abs(figure.joules))})" if part and figure.joules else ""
            _bar(axis, number, part, TERM, estimate=figure.estimate)
            texts.append((part, f"{figure_text(part, None, 'J')}{share}"))
        label = "" if not figure.estimate else f" {of_sums}" if figure.name == "total" else " ESTIMATE"
        text = figure_text(figure.joules, figure.expanded_joules, "J")
        axis.set_title(f"{shown(figure.name.removeprefix(host), 24)}: {text}{label}", loc="left")
        heading = "part of U (and as a share of the energy)"
        last = place == len(figures) - 1
        _finish(axis, [f"{term}: {what}" for term, what in TERMS.items()], texts, heading if last else "")
    if left_out > 0:
        drawing.supxlabel(f"{left_out} more devices are in summary.json", fontsize=7)
    return drawing


def _bar(axis: Any, number: int, joules: float, colour: str, *, estimate: bool) -> None:
    """What is modelled is hatched, so that it is told apart without colour too."""
    if estimate:
        axis.barh(number, joules, height=0.7, facecolor="white", edgecolor=colour, hatch="////", lw=0.8)
    else:
        axis.barh(number, joules, height=0.7, color=colour)


def _finish(axis: Any, labels: Sequence[str], texts: Sequence[tuple[float, str]], heading: str) -> None:
    """Write the texts beside the bars, with room for them, and the labels before."""
    room_in = WIDTH_IN - 0.4 - CHARACTER_IN * max(len(label) for label in labels)
    low = min(axis.dataLim.x0, 0.0)
    wanted = [low]
    for number, (x, text) in enumerate(texts):
        axis.annotate(text, (x, number), xytext=(5, 0), textcoords="offset points", va="center", fontsize=7)
        wanted.append(low + (x - low) / max(1 - (CHARACTER_IN * len(text) + 0.1) / room_in, 0.2))
    axis.set_xlim(low, max(wanted) if max(wanted) > low else low + 1.0)
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)  # the first above
    axis.grid(visible=False, axis="y")
    axis.tick_params(left=False)
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.xaxis.set_major_formatter(EngFormatter(unit="J"))
    axis.set_xlabel(heading)
