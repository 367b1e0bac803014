"""The command line of `power-director completion`."""

from __future__ import annotations

import argparse

from director.commands.parser import Commands, fail
from power_agent.completion import EXAMPLES, SHELLS, NoCompletion, script


def add(commands: Commands) -> None:
    """Add the command `completion`."""
    text = "print a script that lets a shell complete our words"
    completion = commands.add(
        "completion",
        help=text,
        description=f"{text}.".capitalize(),
        epilog=EXAMPLES.replace("PROG", "power-director"),
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.set_defaults(act=_completion)


def _completion(arguments: argparse.Namespace, _: list[str]) -> int:
    from director.cli import make_parser

    try:
        print(script(make_parser(), arguments.shell, takes_command=True))
    except NoCompletion as error:
        return fail(str(error), 1)
    return 0
