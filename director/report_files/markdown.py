"""The report as GitHub-flavoured Markdown: to paste into an issue, a pull request or a wiki."""

from __future__ import annotations

import shlex
from pathlib import Path

from director.answers.host_text import common_host, joined_facts, scaling_facts, short_rows
from director.answers.number_text import duration_text, figure_text, share_text, watts_text
from director.answers.summary import EnergyFigure, OverHosts, PhaseGroup, Scaling, Summary
from director.report_files.markdown_text import escaped, fenced, table
from director.report_page import page_data
from director.report_page.headline import headline
from director.running.series import METRIC_COLUMNS, SeriesResults, metric_rows, olympic_text, run_rows
from director.session.manifest import Manifest

MOST_PHASES = 20
MOST_COMPONENTS = 16
MOST_WARNINGS = 50


def session_markdown(summary: Summary, manifest: Manifest) -> str:
    """The answer, what to know before believing it, the figures, and how to get them again."""
    answer = headline(summary)
    figure = f"**{escaped(answer.figure)}** " if answer.figure else ""
    estimate = f" **{answer.estimate}**" if answer.estimate else ""
    lines = [
        f"# {escaped(summary.label or summary.session, 160)}",
        "",
        f"{answer.before} {figure}{escaped(answer.after)}{estimate}",
        "",
        *([escaped(page_data.ending_text(summary)), ""] if page_data.ending_text(summary) else []),
        escaped(" ".join(answer.more)),
        "",
        *_warnings(summary),
        *_metrics(summary),
        *_energies(summary),
        *_hosts(summary),
        *_scaling(summary),
        *_budget(summary),
        *_sampling(summary),
        *_again(summary, manifest),
    ]
    return "\n".join(lines).rstrip() + "\n"


def series_markdown(directory: Path, results: SeriesResults) -> str:
    """The mean of a series, its runs, how much they differ, and the command."""
    series = results.series
    lines = [f"# {escaped(series.label or directory.name, 160)}", ""]
    lines += [f"{len(series.runs)} of {series.planned} runs.", ""]
    if results.score is not None:
        lines += [f"**{escaped(olympic_text(results.score))}**", ""]
    columns, rows = run_rows(results)
    lines += ["## Runs", "", *table(columns, rows, 2)]
    lines += ["## How much the runs differ", ""]
    if results.metrics:
        lines += table(METRIC_COLUMNS, metric_rows(results.metrics), 2)
        lines += ["± holds the uncertainty of a run and how much the runs differ, k = 2.", ""]
    else:
        lines += ["No run ended well, so there is nothing to compare.", ""]
    lines += ["## Do it again", "", *fenced(shlex.join(series.command))]
    lines += [
        "All figures anew from the raw files:",
        "",
        *fenced(f"power-director report {shlex.quote(directory.name)}"),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _warnings(summary: Summary) -> list[str]:
    if not summary.warnings:
        return []
    more = len(summary.warnings) - MOST_WARNINGS
    items = [f"- {escaped(warning)}" for warning in summary.warnings[:MOST_WARNINGS]]
    items += [f"- {more} more in summary.json"] if more > 0 else []
    return ["## Before you rely on it", "", *items, ""]


def _metrics(summary: Summary) -> list[str]:
    if not summary.metrics:
        return ["## Metrics", "", "No metric can be given: no energy was measured.", ""]
    rows = [
        [
            metric.name,
            metric.phase,
            "; ".join(filter(None, [page_data.WHAT_METRICS_MEAN.get(metric.name, ""), metric.note])),
            page_data.metric_text(metric) + (f" {_label_of_sums(summary)}" if metric.estimate else ""),
        ]
        for metric in summary.metrics
    ]
    return ["## Metrics", "", *table(("metric", "of phase", "what it is", "value ± U"), rows, 3)]


def _label_of_sums(summary: Summary) -> str:
    """What a figure over devices is called that holds a modelled part."""
    return "ESTIMATE" if summary.estimate_only else "ESTIMATE in part"


def _energies(summary: Summary) -> list[str]:
    rows = [row for phase in summary.phases[:MOST_PHASES] for row in _energy_rows(summary, phase)]
    columns = ("phase", "device", "method", "duration", "energy ± U", "mean W", "peak W", "time measured")
    left_out = len(summary.phases) + summary.phases_left_out - MOST_PHASES
    more = [f"{left_out} more phase names are in the session's tables.", ""] if left_out > 0 else []
    scope = f"total = {summary.scope_of_total}. ± is the expanded uncertainty U, k = 2."
    return ["## Energy by phase and device", "", *table(columns, rows, 3), *more, escaped(scope), ""]


def _energy_rows(summary: Summary, phase: PhaseGroup) -> list[list[str]]:
    name = phase.name if phase.count == 1 else f"{phase.name} ×{phase.count}"
    figures: list[EnergyFigure] = [*phase.components[:MOST_COMPONENTS], *phase.not_explained]
    if phase.total is not None and len(phase.components) > 1:
        figures = [phase.total, *figures]
    if not figures:
        return [[name, "", "not measured", duration_text(phase.duration_s), "–", "–", "–", "–"]]
    host = common_host(summary.phases)
    rows = []
    for figure in figures:
        estimate = _label_of_sums(summary) if figure is phase.total else "ESTIMATE"
        method = [estimate] if figure.estimate else [figure.method]
        method += [] if figure.accuracy_known else ["U without the device's own error"]
        rows.append(
            [
                name,
                figure.name.removeprefix(host),
                ", ".join(method),
                duration_text(phase.duration_s),
                "not measured" if figure.joules is None else figure_text(figure.joules, figure.expanded_joules, "J"),
                watts_text(figure.mean_watts),
                watts_text(figure.peak_watts),
                share_text(figure.coverage),
            ]
        )
    more = len(phase.components) - MOST_COMPONENTS
    return rows if more <= 0 else [*rows, [name, f"{more} more in summary.json", *[""] * 6]]


def _hosts(summary: Summary) -> list[str]:
    """Of several hosts, or where the interconnect was asked for."""
    over = summary.over_hosts
    if not isinstance(over, OverHosts):
        return []
    pairs = list(zip(over.phases[:MOST_PHASES], summary.phases, strict=False))
    rows = [
        [phase.name, duration_text(group.duration_s), row.label, row.note, row.energy, row.watts]
        for phase, group in pairs
        for row in short_rows(over, phase, group, _label_of_sums(summary))
    ]
    lines = ["## Hosts", "", *table(("phase", "duration", "host", "note", "energy ± U", "mean W"), rows, 4)]
    facts = [[phase.name, name, text] for phase, group in pairs for name, text in joined_facts(phase, group)]
    if facts:
        lines += ["## Ranks that waited for each other", "", *table(("phase", "", ""), facts, 3)]
    lines += [f"Interconnect: {escaped(over.interconnect)}", ""] if over.interconnect else []
    return lines


def _scaling(summary: Summary) -> list[str]:
    if not isinstance(summary.scaling, Scaling):
        return []
    facts = [[name, text] for name, text in scaling_facts(summary.scaling)]
    return ["## Against a smaller run", "", *table(("", ""), facts, 2)]


def _budget(summary: Summary) -> list[str]:
    """Of the main figure; summary.json has that of every device."""
    budgets = page_data.budgets(summary)
    if not budgets:
        return []
    rows = [[term.name, term.meaning, term.joules, term.of_energy] for term in budgets[0].terms]
    columns = ("term", "what it is", "part of U", "of the energy")
    heading = f"## Where the uncertainty of {escaped(budgets[0].name)} comes from"
    return [heading, "", *table(columns, rows, 2)]


def _sampling(summary: Summary) -> list[str]:
    if not summary.sampling:
        return []
    rows = [
        [s.stream, page_data.units_of_time(s.rate_hz), *map(str, (s.due, s.taken, s.late, s.missed, s.dropped_rows))]
        for s in summary.sampling
    ]
    columns = ("stream", "rate", "due", "on time", "late", "missed", "lost on disk")
    return ["## How well it was sampled", "", *table(columns, rows, 1)]


def _again(summary: Summary, manifest: Manifest) -> list[str]:
    lines = ["## Do it again", ""]
    if summary.command:
        lines += ["Measured with:", "", *fenced(page_data.own_command(summary, manifest))]
    lines += ["All figures anew from the session's raw files:", ""]
    lines += fenced(f"power-director report {shlex.quote(summary.session)}")
    facts = [[name, text] for name, text in page_data.facts(summary, manifest)]
    return [*lines, *table(("", ""), facts, 2)]
