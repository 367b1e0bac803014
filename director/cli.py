"""The command `power-director`: measures a command, and reports what was measured.

Only the command line is read here and in `director.commands`; what a command needs is imported when it runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from director.commands import (
    audit,
    characterize,
    check,
    completion,
    export,
    keys,
    qualify,
    report,
    run,
    score,
    serve,
    session,
)
from director.commands.parser import Commands, Parser, WrongUsage, fail
from power_agent.config_folder import NoHome

EXAMPLES = """\
examples:
  power-director run -- python train.py        measure a command
  power-director run --help                    all that can be chosen
  power-director report power-sessions/DIR     show a session again
  eval "$(power-director completion bash)"     let the Tab key complete words

What can be measured here is told by: power-agent devices
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the job's exit code; without a job 0, or 1 (failed), 2 (wrong usage), 130 (Ctrl-C)."""
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    own, command = words[:split], words[split + 1 :]
    try:
        _check_text(own)
        arguments = make_parser().parse_args(own, argparse.Namespace(words=own))
        if command and not arguments.takes_command:
            raise WrongUsage(f"{arguments.command} takes no command after --")
        status: int = arguments.act(arguments, command)
        return status
    except WrongUsage as error:
        return fail(f"{error}\nTry `power-director --help` or `power-director COMMAND --help`.", 2)
    except NoHome as error:
        return fail(f"{error}: name a folder with --keys", 1)
    except KeyboardInterrupt:
        return 130


def _check_text(words: Sequence[str]) -> None:
    """Options come to stand in JSON files. The command itself may hold any bytes."""
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise WrongUsage(f"{word!r} holds bytes that are no UTF-8; give it another name")


def make_parser() -> Parser:
    """The command line of all commands."""
    description = "Measure the energy of machine-learning work."
    parser = Parser(prog="power-director", description=description, epilog=EXAMPLES)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = Commands(parser)
    for command in (run, report, score, audit, check, export, qualify, characterize, serve, session, keys, completion):
        command.add(commands)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: that costs more than the rest of the start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('ml-power-agent')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
