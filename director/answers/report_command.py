"""`power-director report`: results from a session's raw files, computed anew and shown."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from director.answers.progress import progress_bar
from director.running.notices import say
from director.running.run_options import ReportOptions
from director.session.files import SessionError, load_manifest

if TYPE_CHECKING:
    from director.answers.summary import Summary

SUMMARY = "summary.json"


def report(session: Path, options: ReportOptions) -> Summary:
    """Compute a session's results, write them and the page into it, print the table to standard error, and the JSON.

    Raises:
        SessionError: the session is not complete or a raw file is damaged.
        OSError: a file cannot be written.
    """
    # Here only: these bring pyarrow and all the arithmetic along.
    from director.answers.results import write_results
    from director.answers.terminal_table import print_summary

    with progress_bar(quiet=options.quiet) as step:
        summary = write_results(session, step, options.questions)
    if not options.quiet:
        print_summary(summary, sys.stderr, explain=options.explain)
    with progress_bar(quiet=options.quiet) as step:
        step("the report page", 0, 0)
        write_report_page(lambda: _page(session, summary), options)
    if options.json is not None:
        write_out((session / SUMMARY).read_bytes(), options.json)
    return summary


def write_report_page(write: Callable[[], Path], options: ReportOptions) -> None:
    """Call what writes a page and returns its path.

    Whatever goes wrong with it is told and costs nothing else, but where the page itself is what was asked for.
    """
    try:
        path = write()
    except Exception as error:
        if options.page_required:
            raise
        say(f"warning: there is no report page: {type(error).__name__}: {error}")
    else:
        if not options.quiet:
            say(f"to read in a browser: {path}")


def _page(session: Path, summary: Summary) -> Path:
    from director.report_page.page import write_page

    return write_page(session, load_manifest(session), summary)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of plain text to standard error."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*row)
    Console(stderr=True, highlight=False, markup=False).print(table)


def write_out(content: bytes, target: str) -> None:
    """Write to a file, or to standard output for "-"; who reads that may stop before the end."""
    if target == "-":
        try:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # what is left in the buffer would fail again at the end of the process
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        Path(target).write_bytes(content)


def explain_failure(error: Exception) -> str:
    """What went wrong with the results, in a line."""
    if isinstance(error, SessionError):
        return str(error)
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"the results cannot be written: {error.strerror or error}{where}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return (
        f"the results cannot be computed: {type(error).__name__}: {error} ({where}); tell the authors of this program"
    )
