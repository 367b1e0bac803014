"""Computes a report anew and gives it in the format that the user asks for, and its plots as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from director.answers.progress import progress_bar
from director.answers.report_command import SUMMARY, report, write_out
from director.answers.summary import Summary
from director.report_page.page import REPORT
from director.running.notices import say
from director.running.run_options import ReportOptions
from director.running.series import SeriesResults, report_series, series_json
from director.session.files import SERIES, SessionError, load_manifest


@dataclass(frozen=True)
class Wanted:
    """What to give besides the files that a report always writes."""

    form: str = "table"  # "md", "json", "csv", "html"
    output: str = "-"  # a file, "-" for standard output
    plots: Path | None = None  # the folder to draw into
    plot_form: str = "svg"  # "png"


def write_report(directory: Path, options: ReportOptions, wanted: Wanted) -> None:
    """Compute the results of a session or a series and give them as wanted.

    Raises:
        SessionError: it is not complete or a raw file is damaged.
        OSError: a file cannot be written.
    """
    drawn = 0
    if (directory / SERIES).exists():
        if options.questions.against is not None:
            raise SessionError(f"--against compares single runs: name one of them, such as {directory}/run-001")
        results = report_series(directory, options)
        if wanted.form != "table":
            write_out(_series_file(directory, results, wanted.form), wanted.output)
        for name, run in results.summaries.items() if wanted.plots else ():
            drawn += _draw(directory / name, run, wanted, options, name)
    else:
        summary = report(directory, options)
        if wanted.form != "table":
            write_out(_session_file(directory, summary, wanted.form), wanted.output)
        drawn += _draw(directory, summary, wanted, options) if wanted.plots else 0
    if wanted.plots and not options.quiet:
        say(f"plots drawn: {drawn}, in {wanted.plots}" if drawn else "no plot is drawn: nothing was measured")


def _session_file(session: Path, summary: Summary, form: str) -> bytes:
    if form == "json":
        return (session / SUMMARY).read_bytes()
    if form == "html":
        return (session / REPORT).read_bytes()
    if form == "csv":
        from director.report_files.csv_rows import session_csv

        return session_csv(summary).encode()
    from director.report_files.markdown import session_markdown

    return session_markdown(summary, load_manifest(session)).encode()


def _series_file(directory: Path, results: SeriesResults, form: str) -> bytes:
    if form == "json":
        return series_json(directory, results)
    if form == "html":
        return (directory / REPORT).read_bytes()
    if form == "csv":
        from director.report_files.csv_rows import series_csv

        return series_csv(results).encode()
    from director.report_files.markdown import series_markdown

    return series_markdown(directory, results).encode()


def _draw(session: Path, summary: Summary, wanted: Wanted, options: ReportOptions, name: str = "") -> int:
    """Draw a session's plots; those of a series' run in a folder of the run's name. Returns their number."""
    from director.report_files.plots import write_plots

    assert wanted.plots is not None
    with progress_bar(quiet=options.quiet) as step:
        step("plots", 0, 0)
        return len(write_plots(session, load_manifest(session), summary, wanted.plots / name, wanted.plot_form))
