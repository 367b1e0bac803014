"""The command line of `power-director check`."""

from __future__ import annotations

import argparse
from pathlib import Path

from director.commands.parser import Commands, fail

EXAMPLES = """\
examples:
  power-director check results/my-system/resnet50/Offline/performance
  power-director check --rules 4.1 --json - SESSION | jq '.strict'

SESSION is the folder with power, ranging and run_1 of one MLPerf Inference
power measurement, or one above it. The first list gives the checks of the
official checker, with its names and outcomes; the second, strict, those that
the rules mean. Rules, where --rules does not say: those that accept the
session's version of PTDaemon, or the round that a folder names, or the newest.

Exit status: 0, no check fails (there may be warnings); 1, a check fails,
official or strict; 2, there is no session, or wrong usage.
"""


def add(commands: Commands) -> None:
    """Add the command `check`."""
    text = "the official checks of an MLPerf Inference power session, and those that the rules mean"
    parser = commands.add("check", help=text, epilog=EXAMPLES)
    parser.add_argument("session", type=Path, metavar="SESSION", help="its folder")
    parser.add_argument("--rules", metavar="ROUND", help="check as in this round: 1.0, 2.0 … 6.1")
    parser.add_argument("--json", metavar="FILE", help="write all outcomes as JSON; -: standard output")
    parser.set_defaults(act=_check)


def _check(arguments: argparse.Namespace, _: list[str]) -> int:
    from director.mlperf.inference.check_session import CheckFailed, check_session

    try:
        return check_session(arguments.session, arguments.rules, arguments.json)
    except CheckFailed as error:
        return fail(str(error), 2)
