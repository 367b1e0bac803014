"""The command line of `power-director qualify`."""

from __future__ import annotations

import argparse
from pathlib import Path

from director.commands.parser import Commands, fail
from director.commands.values import not_negative, positive

EXAMPLES = """\
examples:
  power-director qualify session session --channel NAME \\
    --reference-channel NAME --level idle --level half --level full
  power-director qualify pdu.csv spl.txt --level idle=30 --level half=400 \\
    --level full=800 --json qualification.json

A trace is a session, a CSV file or PTDaemon's spl.txt. A level is a phase of a
session, or NAME=SECONDS after both traces have begun; its first five minutes
count. To test live, record both meters with `power-director run` first.
Exit status: 0, the meter qualifies; 1, it does not; 2, the test cannot be made,
or wrong usage.
"""


def add(commands: Commands) -> None:
    """Add the command `qualify`."""
    text = "test a meter against a reference as the rules of MLPerf Training ask"
    parser = commands.add("qualify", help=text, description=f"{text}.".capitalize(), epilog=EXAMPLES)
    parser.add_argument("meter", type=Path, metavar="METER", help="trace of the meter to be tested")
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help="trace of the reference; may be the same")
    parser.add_argument("--channel", metavar="NAME", help="of the meter, where its trace has several of power")
    parser.add_argument("--reference-channel", metavar="NAME", help="of the reference")
    help_text = "idle, and two loads: a phase, or NAME=SECONDS; three times"
    parser.add_argument("--level", action="append", required=True, type=_level, metavar="LEVEL", help=help_text)
    parser.add_argument("--limit", type=positive, metavar="PERCENT", help="allowed difference; default: 5")
    parser.add_argument(
        "--json", metavar="FILE", help="write everything as JSON; -: standard output, without the table"
    )
    parser.set_defaults(act=_qualify)


def _level(text: str) -> tuple[str, float | None]:
    name, equals, after = text.rpartition("=") if "=" in text else (text, "", "")
    return name, not_negative(after) if equals else None


def _qualify(arguments: argparse.Namespace, _: list[str]) -> int:
    from director.mlperf.qualify import LIMIT_PERCENT, Level, QualifyRefused, qualify
    from director.mlperf.qualify_command import show

    levels = [Level(name, after) for name, after in arguments.level]
    paths = (arguments.meter, arguments.reference)
    channels = (arguments.channel, arguments.reference_channel)
    limit = arguments.limit or LIMIT_PERCENT
    try:
        found = qualify(paths, channels, levels, limit)
        show(found, arguments.json)
    except QualifyRefused as error:
        return fail(str(error), 2)
    return 0 if found.passes else 1
