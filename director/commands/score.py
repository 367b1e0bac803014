"""The command line of `power-director score`."""

from __future__ import annotations

import argparse
from pathlib import Path

from director.commands.parser import Commands, fail

EXAMPLES = """\
examples:
  power-director score training_results_v4.1/Dell
  power-director score --rules 5.0 --json - results/my-system/bert | jq '.[0].official_joules'
  power-director score --csv scores.csv training_results_v5.0 training_results_v5.1

PATH may be a whole results repository, a submission, a system, a benchmark's
folder, or one inference session. Rules, where --rules does not say: those of
the round that a folder names, or the newest that the runs comply with.

Exit status: 0; 1, something under PATH was left out, or nothing was found;
2, wrong usage.
"""


def add(commands: Commands) -> None:
    """Add the command `score`."""
    text = "official MLPerf scores of time and energy, and the physical energy beside them"
    parser = commands.add("score", help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=EXAMPLES)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="where results lie")
    parser.add_argument("--rules", metavar="ROUND", help="score by the rules of this round, such as 5.0")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON; -: standard output")
    parser.add_argument("--csv", metavar="FILE", help="write a row for each run and benchmark; -: standard output")
    parser.set_defaults(act=_score)


def _score(arguments: argparse.Namespace, _: list[str]) -> int:
    from director.mlperf.score_command import ScoreFailed, ScoreOptions, score

    try:
        return score(ScoreOptions(arguments.paths, arguments.rules, arguments.json, arguments.csv))
    except ScoreFailed as error:
        return fail(str(error), error.status)
