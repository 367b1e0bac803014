"""The command lines of `power-director report` and `recover`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from director.commands.parser import Commands, fail

if TYPE_CHECKING:
    from director.running.run_options import ReportOptions

REPORT_EXAMPLES = """\
examples:
  power-director report --explain power-sessions/20260102T030405Z-train
  power-director report --quiet --json - series | jq .metrics

Exit status: 0; 1, it cannot be read or written; 2, it is no session, a damaged
one, or one that a newer version wrote.
"""

RECOVER_EXAMPLES = """\
examples:
  power-director recover power-sessions/20260102T030405Z-train
  power-director recover --quiet --json - series

What is missing it tells here and in the manifest. Doing it twice changes nothing.
Exit status: 0; 1, it cannot be read or written; 2, there is nothing to recover,
or not yet: the job has not ended.
"""


def add(commands: Commands) -> None:
    """Add the commands `report` and `recover`."""
    text = "compute a session's results anew from its raw files, and show them"
    report = commands.add("report", help=text, description=f"{text}.".capitalize(), epilog=REPORT_EXAMPLES)
    report.add_argument("directory", type=Path, metavar="DIR", help="a session, or a series of --repeat")
    report.set_defaults(act=_report)
    add_report_options(report)

    text = "finish a session that a crash, a kill or a power cut left"
    recover = commands.add("recover", help=text, description=f"{text}.".capitalize(), epilog=RECOVER_EXAMPLES)
    recover.add_argument("directory", type=Path, metavar="DIR", help="the session, or a series of --repeat")
    recover.set_defaults(act=_recover)
    add_report_options(recover)


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how results are shown."""
    group = parser.add_argument_group("report")
    group.add_argument("--json", metavar="FILE", help="write the results as JSON; -: standard output, at the end")
    group.add_argument("--quiet", action="store_true", help="no table; warnings only")
    group.add_argument("--explain", action="store_true", help="where each U comes from, and what other methods give")


def report_options(arguments: argparse.Namespace) -> ReportOptions:
    """How results are to be shown."""
    from director.running.run_options import ReportOptions

    return ReportOptions(json=arguments.json, quiet=arguments.quiet, explain=arguments.explain)


def _report(arguments: argparse.Namespace, _: list[str]) -> int:
    from director.answers.report_command import explain_failure, report
    from director.session.files import SERIES, SessionError

    try:
        if (arguments.directory / SERIES).exists():
            from director.running.series import report_series

            report_series(arguments.directory, report_options(arguments))
        else:
            report(arguments.directory, report_options(arguments))
    except Exception as error:
        return fail(explain_failure(error), 2 if isinstance(error, SessionError) else 1)
    return 0


def _recover(arguments: argparse.Namespace, _: list[str]) -> int:
    from director.answers.report_command import explain_failure
    from director.session.files import SERIES, SessionError
    from director.session.recover import recover, recover_series

    try:
        finish = recover_series if (arguments.directory / SERIES).exists() else recover
        finish(arguments.directory, report_options(arguments))
    except Exception as error:
        return fail(explain_failure(error), 2 if isinstance(error, SessionError) else 1)
    return 0
