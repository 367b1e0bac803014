"""The results of a measured block, computed in a process of its own.

What computes them brings threads and a hundred megabytes along, and those are not for the program that was measured.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from director.answers.report_command import explain_failure
from director.answers.summary import EnergyFigure, Summary
from director.session.files import hold


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What to compute of a session whose spool is complete."""

    session: str
    phases: list[tuple[str, int]] = []  # name and begin (monotonic ns) of phases whose totals are wanted
    plot: bool = False


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What was computed; the summary also lies in the session."""

    summary: Summary
    totals: list[EnergyFigure | None] = []  # of the phases that were asked for
    svg: str = ""  # empty: not asked for, or no power was measured
    text_line: str = ""


class NoResults(Exception):
    """The results could not be computed: why. The readings are kept."""


def compute(asked: Asked) -> Results:
    """Make a session of what is in the spool, and its results.

    Raises:
        NoResults: that failed.
        OSError: no process can be had.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "director.running.block_results"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is for the program that waits for us
        env={**os.environ, "PYTHONSAFEPATH": "1"},  # a folder `director` where the user stands is not ours
    )
    try:
        answer, messages = process.communicate(msgspec.json.encode(asked))
    except BaseException:
        process.kill()
        process.communicate()
        raise
    try:
        if process.returncode == 0:
            return msgspec.json.decode(answer, type=Results)
        last = messages.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise NoResults(last[0] if last else f"the process that computes them ended with status {process.returncode}")
    except msgspec.DecodeError as error:
        raise NoResults(f"the process that computes them is of another version: {error}") from error


def _compute_here(asked: Asked) -> Results:
    from director.answers.phase_totals import phase_totals
    from director.answers.results import write_results
    from director.session.ingest import ingest

    session = Path(asked.session)
    with hold(session):
        manifest = ingest(session, "complete")
        summary = write_results(session)
        results = Results(summary=summary, totals=phase_totals(session, manifest, asked.phases))
        if asked.plot:
            from director.answers.small_plot import power_curve, svg, text_line

            curve = power_curve(session, manifest)
            if curve is not None:
                title = summary.label or summary.session
                results = msgspec.structs.replace(results, svg=svg(curve, title), text_line=text_line(curve))
        return results


def main() -> int:
    """Answer one question from standard input on standard output."""
    try:
        results = _compute_here(msgspec.json.decode(sys.stdin.buffer.read(), type=Asked))
    except Exception as error:
        print(explain_failure(error), file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.encode(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
