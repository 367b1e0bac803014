"""The command line of `power-director audit`."""

from __future__ import annotations

import argparse
from pathlib import Path

from director.commands.parser import Commands, fail

EXAMPLES = """\
examples:
  power-director audit training_results_v4.1/Dell
  power-director audit --html audit.html inference_results_v4.1/closed/acme
  power-director audit --json - PATH | jq '.audited[].findings[] | select(.severity == "error")'

PATH may be a whole results repository, a submission, a system, a benchmark's
folder, or one inference session. docs/mlperf/audit.md lists all rules.

Exit status: 0, no error was found (there may be warnings); 1, errors; 2, there
is nothing to audit, or wrong usage.
"""


def add(commands: Commands) -> None:
    """Add the command `audit`."""
    text = "what is wrong with published MLPerf power results, with evidence for each finding"
    parser = commands.add("audit", help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=EXAMPLES)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="where results lie")
    parser.add_argument("--json", metavar="FILE", help="write all findings as JSON; -: standard output")
    parser.add_argument("--html", metavar="FILE", help="write a page that opens offline")
    parser.set_defaults(act=_audit)


def _audit(arguments: argparse.Namespace, _: list[str]) -> int:
    from director.mlperf.audit.audit_command import AuditFailed, audit

    try:
        return audit(arguments.paths, arguments.json, arguments.html)
    except AuditFailed as error:
        return fail(str(error), 2)
