"""Writes `report.html` of a series: the answer over its runs, and a table that leads to each run's page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from director.answers.number_text import figure_text, share_text
from director.answers.summary import Summary
from director.report_page.page import REPORT
from director.report_page.template import render
from director.running.series import CHIEF_METRICS, OlympicScore, Series, Spread, remark, value_text
from director.session.files import write_durably

PARTS = (("main", "Answer"), ("runs", "Runs"), ("metrics", "Metrics"), ("again", "Reproduce"))


@dataclass(frozen=True)
class _Run:
    name: str
    link: str  # empty: it has no page
    remark: str
    values: list[str]


@dataclass(frozen=True)
class _Metric:
    name: str
    phase: str
    runs: int
    estimate: bool
    mean: str
    deviation: str
    lowest: str
    highest: str


def write_series_page(
    directory: Path,
    series: Series,
    summaries: Mapping[str, Summary],
    metrics: Sequence[Spread],
    score: OlympicScore | None,
) -> Path:
    """Write the page and return its path. `metrics` and `score` are of the runs that ended well.

    Raises:
        OSError: it cannot be written.
    """
    found = {name: {m.name: m for m in summary.metrics} for name, summary in summaries.items()}
    columns = [name for name in CHIEF_METRICS if any(name in of_run for of_run in found.values())]
    runs = [
        _Run(
            name=run.directory,
            link=f"./{quote(run.directory)}/{REPORT}" if (directory / run.directory / REPORT).is_file() else "",
            remark=remark(run, score),
            values=[value_text(found.get(run.directory, {}).get(name)) for name in columns],
        )
        for run in series.runs
    ]
    before, figure, after, more = _answer(metrics, score)
    text = render(
        "series.html",
        scripts=False,
        parts=PARTS,
        title=series.label or directory.name,
        name=directory.name,
        version=next((s.tool_version for s in summaries.values()), ""),
        begun=len(series.runs),
        planned=series.planned,
        before=before,
        figure=figure,
        after=after,
        more=more,
        estimate=any(m.estimate for m in metrics),
        columns=columns,
        runs=runs,
        metrics=[_metric(m) for m in metrics],
        command=shlex.join(series.command),
    )
    path = directory / REPORT
    write_durably(path, text.encode("utf-8", "backslashreplace"))
    return path


def _answer(metrics: Sequence[Spread], score: OlympicScore | None) -> tuple[str, str, str, list[str]]:
    repeats = "± holds the uncertainty of a run and how much the runs differ, k = 2."
    if score is not None:
        figure = figure_text(score.mean_joules, score.expanded_joules, "J")
        dropped = f"{score.dropped[0]} was the fastest, {score.dropped[1]} the slowest." if score.dropped else ""
        rule = "MLPerf Training takes this mean, without the fastest and the slowest run of three or more."
        return (
            "Training used",
            figure,
            f"on average, in {score.mean_seconds:.3f} s.",
            [rule, *filter(None, [dropped]), repeats],
        )
    chief = next((m for name in CHIEF_METRICS for m in metrics if m.name == name and m.unit == "J"), None)
    if chief is None:
        return "No energy can be given", "", "for this series.", ["The pages of its runs say why."]
    return "A run used", figure_text(chief.mean, chief.expanded, "J"), f"on average over {chief.runs} runs.", [repeats]


def _metric(metric: Spread) -> _Metric:
    unit = metric.unit.partition(" (")[0]
    known = metric.standard_deviation is not None and metric.mean != 0
    return _Metric(
        name=metric.name,
        phase=metric.phase,
        runs=metric.runs,
        estimate=metric.estimate,
        mean=figure_text(metric.mean, metric.expanded, unit),
        deviation=share_text((metric.standard_deviation or 0.0) / abs(metric.mean)) if known else "–",
        lowest=figure_text(metric.lowest, None, unit),
        highest=figure_text(metric.highest, None, unit),
    )
