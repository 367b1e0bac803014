"""`--repeat N`: equal runs one after another in one directory, and how much their results differ."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from director.answers.report_command import SUMMARY, print_table, report, write_out, write_report_page
from director.running.notices import say
from director.running.run_command import default_directory, make_directory, run_once
from director.running.run_options import ReportOptions, RunOptions
from director.session.files import SERIES, SessionError, load_manifest, write_durably
from power_agent.workload import check_program

if TYPE_CHECKING:
    from director.answers.summary import Metric, Summary

SERIES_VERSION = 1
CHIEF_METRICS = (  # told of every run, where it has them
    "time-to-train",
    "joules-to-train",
    "energy of the run",
    "energy",
    "MLPerf efficiency",
    "MLPerf energy per stream",
    "MLPerf energy per query",
    "samples per joule",
)
METRIC_COLUMNS = ("metric", "phase", "runs", "mean", "std. dev.", "lowest", "highest")


class SeriesRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a series."""

    directory: str  # relative to the series' directory
    status: int  # exit code, or minus the signal
    interrupted: bool = False


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """Schema of `series.json`."""

    schema_version: int = SERIES_VERSION
    label: str = ""
    command: list[str]
    created_wall_ns: int
    planned: int
    runs: list[SeriesRun] = []


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """One metric over the runs that gave it."""

    name: str
    phase: str
    unit: str
    estimate: bool
    runs: int
    mean: float
    expanded: float | None  # U of the mean, k = 2; null: that of a run is not known
    standard_deviation: float | None  # of the sample; null: one run has none
    lowest: float
    highest: float


class OlympicScore(msgspec.Struct, frozen=True, kw_only=True):
    """MLPerf Training's mean: the fastest and the slowest of three runs or more are dropped."""

    kept: list[str]  # directories of the runs
    dropped: list[str]  # the fastest, then the slowest
    mean_seconds: float
    mean_joules: float
    expanded_joules: float | None  # U, k = 2, of the mean; null: that of a run is not known
    estimate: bool


class SeriesSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` gives for a series."""

    series: Series
    metrics: list[Spread]
    olympic: OlympicScore | None
    summaries: list[msgspec.Raw]  # each run's summary.json


@dataclass(frozen=True)
class SeriesResults:
    """A series with what its runs give."""

    series: Series
    summaries: dict[str, Summary]  # of every run that has results, by its directory
    metrics: list[Spread]  # over the runs that ended well
    score: OlympicScore | None


def run_series(options: RunOptions) -> int:
    """Run and measure `options.repeat` times; stop where a run fails or somebody asks for the end.

    Returns the status of the first run that failed: its exit code, or minus the signal that killed it.

    Raises:
        UsageError, CannotStart: nothing was run.
    """
    check_program(options.argv[0])
    directory = options.output or default_directory(options)
    make_directory(directory)
    series = Series(label=options.label, command=options.argv, created_wall_ns=time.time_ns(), planned=options.repeat)
    store_series(directory, series)
    each = replace(options, report=replace(options.report, json=None))
    summaries: dict[str, Summary] = {}
    status = 0
    for index in range(1, options.repeat + 1):
        name = f"run-{index:03d}"
        if not options.report.quiet:
            say(f"run {index} of {options.repeat}")
        outcome = run_once(each, directory / name, series=directory.name, index=index)
        series = msgspec.structs.replace(
            series,
            runs=[*series.runs, SeriesRun(directory=name, status=outcome.status, interrupted=outcome.interrupted)],
        )
        try:
            store_series(directory, series)
        except OSError as error:
            say(f"warning: {directory / SERIES} cannot be written: {error.strerror}")
        if outcome.summary is not None:
            summaries[name] = outcome.summary
        status = outcome.status
        if status or outcome.interrupted:
            why = "was interrupted" if outcome.interrupted else f"failed with status {status}"
            say(f"the series ends here: run {index} of {options.repeat} {why}")
            break
    try:
        _show(directory, _results(series, summaries), options.report)
    except OSError as error:  # the runs have ended, and their status is what counts
        say(f"the series cannot be shown: {error.strerror or error}; for it: power-director report {directory}")
    return status


def load_series(directory: Path) -> Series:
    """Read `series.json`.

    Raises:
        SessionError: it is damaged or newer than this program.
    """
    path = directory / SERIES
    try:
        series = msgspec.json.decode(path.read_bytes(), type=Series)
    except (OSError, msgspec.DecodeError) as error:
        raise SessionError(f"{path} is not the record of a series, or is damaged: {error}") from error
    if series.schema_version > SERIES_VERSION:
        raise SessionError(f"{path} was written by a newer version of this program: update ml-power-agent")
    return series


def report_series(directory: Path, options: ReportOptions) -> SeriesResults:
    """Compute every finished run of a series anew, and show the series.

    Raises:
        SessionError: the series or a run is damaged.
    """
    series = load_series(directory)
    summaries = {}
    for run in series.runs:
        session = directory / run.directory
        if load_manifest(session).state not in ("complete", "recovered"):
            say(f"{session} was not finished and is left out: power-director recover {directory}")
            continue
        summaries[run.directory] = report(session, replace(options, json=None))
    results = _results(series, summaries)
    _show(directory, results, options)
    return results


def store_series(directory: Path, series: Series) -> None:
    """Replace `series.json`."""
    write_durably(directory / SERIES, msgspec.json.format(msgspec.json.encode(series), indent=1) + b"\n")


def series_json(directory: Path, results: SeriesResults) -> bytes:
    """What `--json` gives."""
    raw = [msgspec.Raw((directory / name / SUMMARY).read_bytes()) for name in results.summaries]
    whole = SeriesSummary(series=results.series, metrics=results.metrics, olympic=results.score, summaries=raw)
    return msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"


def _results(series: Series, summaries: dict[str, Summary]) -> SeriesResults:
    good = {run.directory for run in series.runs if run.status == 0 and not run.interrupted}
    finished = {name: summary for name, summary in summaries.items() if name in good}
    return SeriesResults(series, summaries, spread(list(finished.values())), olympic_score(finished))


def _show(directory: Path, results: SeriesResults, options: ReportOptions) -> None:
    if results.metrics and not options.quiet:
        _print(results)
    write_report_page(lambda: _page(directory, results), options)
    if options.json is not None:
        write_out(series_json(directory, results), options.json)


def _page(directory: Path, results: SeriesResults) -> Path:
    from director.report_page.series_page import write_series_page

    return write_series_page(directory, results.series, results.summaries, results.metrics, results.score)


def spread(summaries: Sequence[Summary]) -> list[Spread]:
    """Mean and sample standard deviation of every metric, in the order of the first run that has it."""
    by_metric: dict[tuple[str, str, str], list[Metric]] = {}
    for summary in summaries:
        for metric in summary.metrics:
            by_metric.setdefault((metric.name, metric.phase, metric.unit), []).append(metric)
    return [_spread(found) for found in by_metric.values()]


def _spread(metrics: Sequence[Metric]) -> Spread:
    values = [metric.value for metric in metrics]
    return Spread(
        name=metrics[0].name,
        phase=metrics[0].phase,
        unit=metrics[0].unit,
        estimate=any(metric.estimate for metric in metrics),
        runs=len(values),
        mean=statistics.fmean(values),
        expanded=_expanded_of_mean(metrics),
        standard_deviation=statistics.stdev(values) if len(values) > 1 else None,
        lowest=min(values),
        highest=max(values),
    )


def olympic_score(summaries: dict[str, Summary]) -> OlympicScore | None:
    """The mean that MLPerf Training takes, where every run is a training with an energy."""
    from director.answers.metrics import olympic

    runs = []
    for summary in summaries.values():
        metrics = {metric.name: metric for metric in summary.metrics}
        if "time-to-train" not in metrics or "joules-to-train" not in metrics:
            return None
        runs.append((metrics["time-to-train"].value, metrics["joules-to-train"]))
    if not runs:
        return None
    kept, seconds, joules = olympic([(run_s, energy.value) for run_s, energy in runs])
    names, energies = list(summaries), [runs[i][1] for i in kept]
    dropped = sorted(set(range(len(runs))) - set(kept), key=lambda i: (runs[i][0], i))
    return OlympicScore(
        kept=[names[i] for i in kept],
        dropped=[names[i] for i in dropped],
        mean_seconds=seconds,
        mean_joules=joules,
        expanded_joules=_expanded_of_mean(energies),
        estimate=any(energy.estimate for energy in energies),
    )


def _expanded_of_mean(metrics: Sequence[Metric]) -> float | None:
    """The mean U of the runs, which share a meter, and in quadrature 2·s/√n for what differs between them."""
    known = [metric.expanded for metric in metrics if metric.expanded is not None]
    if len(known) < len(metrics):
        return None
    values = [metric.value for metric in metrics]
    of_repeats = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return math.hypot(statistics.fmean(known), 2 * of_repeats)


def run_rows(results: SeriesResults) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table: of every run its chief figures, and whether it counts."""
    found = {name: {m.name: m for m in summary.metrics} for name, summary in results.summaries.items()}
    columns = [name for name in CHIEF_METRICS if any(name in metrics for metrics in found.values())]
    rows = []
    for run in results.series.runs:
        metrics = found.get(run.directory, {})
        values = (value_text(metrics.get(name)) for name in columns)
        rows.append([run.directory, remark(run, results.score), *values])
    return ["run", "", *columns], rows


def remark(run: SeriesRun, score: OlympicScore | None) -> str:
    """Why a run does not count, where it does not."""
    if run.interrupted:
        return "interrupted"
    if run.status:
        return f"failed, status {run.status}"
    if score is not None and run.directory in score.dropped:
        return "fastest, dropped" if run.directory == score.dropped[0] else "slowest, dropped"
    return ""


def value_text(metric: Metric | None) -> str:
    """A metric's value in a table of runs."""
    from director.answers.number_text import figure_text

    if metric is None:
        return "–"
    return figure_text(metric.value, None, metric.unit.partition(" (")[0]) + (" ESTIMATE" if metric.estimate else "")


def metric_rows(metrics: Sequence[Spread]) -> list[list[str]]:
    """Rows of a table with METRIC_COLUMNS: how much the runs differ."""
    from director.answers.number_text import figure_text, share_text

    rows = []
    for metric in metrics:
        unit = metric.unit.partition(" (")[0]  # without the same in other words, for which there is no room
        known = metric.standard_deviation is not None and metric.mean != 0
        rows.append(
            [
                metric.name + (" ESTIMATE" if metric.estimate else ""),
                metric.phase,
                str(metric.runs),
                figure_text(metric.mean, metric.expanded, unit),
                share_text((metric.standard_deviation or 0.0) / abs(metric.mean)) if known else "–",
                figure_text(metric.lowest, None, unit),
                figure_text(metric.highest, None, unit),
            ]
        )
    return rows


def olympic_text(score: OlympicScore) -> str:
    """MLPerf Training's mean, and which runs it is of."""
    from director.answers.number_text import figure_text

    return (
        f"MLPerf Training's mean over {', '.join(score.kept)}: {score.mean_seconds:.3f} s, "
        f"{figure_text(score.mean_joules, score.expanded_joules, 'J')}" + (" ESTIMATE" if score.estimate else "")
    )


def _print(results: SeriesResults) -> None:
    series = results.series
    title = series.label or "series"
    print_table(title, *run_rows(results))
    print_table(f"{title}: {len(series.runs)} of {series.planned} runs", METRIC_COLUMNS, metric_rows(results.metrics))
    if results.score is not None:
        say(olympic_text(results.score))
