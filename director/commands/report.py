"""The command lines of `power-director report` and `recover`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from director.commands.parser import Commands, WrongUsage, fail
from director.commands.values import positive

if TYPE_CHECKING:
    from director.running.run_options import ReportOptions

REPORT_EXAMPLES = """\
examples:
  power-director report --explain power-sessions/20260102T030405Z-train
  power-director report --quiet --json - series | jq .metrics
  power-director report --format md power-sessions/20260102T030405Z-train > report.md
  power-director report --format csv session | python -c \
    'import pandas, sys; print(pandas.read_csv(sys.stdin).groupby("kind").joules.sum())'
  power-director report --plots figures --plot-format png session
  power-director report on-64-nodes --against on-8-nodes
  power-director report --interconnect rack1/outlet7 session
  power-director report --interconnect-estimate 1350 session

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
    report = commands.add("report", help=text, epilog=REPORT_EXAMPLES)
    report.add_argument("directory", type=Path, metavar="DIR", help="a session, or a series of --repeat")
    report.set_defaults(act=_report)
    add_report_options(report)
    _add_formats(report)
    _add_questions(report)

    text = "finish a session that a crash, a kill or a power cut left"
    recover = commands.add("recover", help=text, epilog=RECOVER_EXAMPLES)
    recover.add_argument("directory", type=Path, metavar="DIR", help="the session, or a series of --repeat")
    recover.set_defaults(act=_recover)
    add_report_options(recover)


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how results are shown."""
    group = parser.add_argument_group("report")
    group.add_argument("--json", metavar="FILE", help="write the results as JSON; -: standard output, at the end")
    group.add_argument("--quiet", action="store_true", help="no table; warnings only")
    group.add_argument("--explain", action="store_true", help="where each U comes from, and what other methods give")


def _add_formats(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("formats")
    text = "table: on standard error (the default); the others: on standard output, without the table"
    group.add_argument("--format", choices=("table", "md", "json", "csv", "html"), default="table", help=text)
    group.add_argument("--output", metavar="FILE", help="write what --format says to a file; -: standard output")
    group.add_argument("--plots", type=Path, metavar="DIR", help="draw each plot into a file there; needs matplotlib")
    group.add_argument("--plot-format", choices=("svg", "png"), help="default: svg")


def _add_questions(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several machines")
    text = "a session of the same on fewer ranks or hosts: speed-up, parallel efficiency, energy for the same work"
    group.add_argument("--against", type=Path, metavar="DIR", help=text)
    text = "this meter, which is read on another host, measures HOST: what HOST measures itself is a part; repeatable"
    group.add_argument("--measures", action="append", default=[], type=_measures, metavar="HOST/DEVICE=HOST", help=text)
    interconnect = group.add_mutually_exclusive_group()
    text = "this device, or all of this host, measures switches: a row of its own, and in the total; repeatable"
    interconnect.add_argument("--interconnect", action="append", default=[], metavar="HOST[/DEVICE]", help=text)
    text = "an ESTIMATE of all switches, as MLPerf Training takes it: highest power by their makers × share in use"
    interconnect.add_argument("--interconnect-estimate", type=positive, metavar="W", help=text)


def _measures(text: str) -> tuple[str, str]:
    device, equals, host = text.partition("=")
    if not (equals and host and "/" in device):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST/DEVICE=HOST, such as meters/wall=node1")
    return device, host


def report_options(arguments: argparse.Namespace) -> ReportOptions:
    """How results are to be shown."""
    from director.running.run_options import ReportOptions

    return ReportOptions(json=arguments.json, quiet=arguments.quiet, explain=arguments.explain)


def _report(arguments: argparse.Namespace, _: list[str]) -> int:
    from dataclasses import replace
    from importlib.util import find_spec

    _check_formats(arguments)
    if arguments.plots is not None and find_spec("matplotlib") is None:
        return fail("plots are drawn by matplotlib, which is not installed: pip install 'matplotlib>=3.8'", 1)

    from director.answers.questions import Questions
    from director.answers.report_command import explain_failure
    from director.report_files.files import Wanted, write_report
    from director.session.files import SessionError

    table = arguments.format == "table"
    questions = Questions(
        arguments.against,
        tuple(arguments.interconnect),
        arguments.interconnect_estimate,
        tuple(arguments.measures),
    )
    options = replace(
        report_options(arguments),
        quiet=arguments.quiet or not table,
        page_required=arguments.format == "html",
        questions=questions,
    )
    wanted = Wanted(arguments.format, arguments.output or "-", arguments.plots, arguments.plot_format or "svg")
    try:
        write_report(arguments.directory, options, wanted)
    except Exception as error:
        return fail(explain_failure(error), 2 if isinstance(error, SessionError) else 1)
    return 0


def _check_formats(arguments: argparse.Namespace) -> None:
    """Refuse options that contradict each other."""
    table = arguments.format == "table"
    if arguments.output is not None and table:
        raise WrongUsage("--output needs one of --format md, json, csv and html; the table goes to standard error")
    if arguments.explain and not table:
        raise WrongUsage("--explain is a part of the table; all that it tells is in --format json")
    if arguments.json == "-" and not table and arguments.output in (None, "-"):
        raise WrongUsage(f"--json - and --format {arguments.format} both go to standard output; name a file for one")
    if arguments.plot_format is not None and arguments.plots is None:
        raise WrongUsage("--plot-format needs --plots DIR")


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
