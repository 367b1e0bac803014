"""What all commands share: the argument parser, wrong usage and failure as a text for the user."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn


class WrongUsage(Exception):
    """Wrong usage: the text for the user."""


class Parser(argparse.ArgumentParser):
    """Raises WrongUsage where argparse would exit."""

    def __init__(self, **options: Any) -> None:
        # A shortened option would change its meaning when another option comes that begins alike.
        super().__init__(**options, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise WrongUsage(message)


class Commands:
    """Where a command adds itself with `add`."""

    def __init__(self, parser: Parser) -> None:
        self._actions = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(self, name: str, **options: Any) -> Parser:
        """A parser for a new command; it sets the default `act`: (arguments, words after --) → exit status.

        Where it also sets the default `takes_command`, words after -- are welcome. `help` describes it where nothing
        else does.
        """
        options.setdefault("description", f"{options['help'][:1].upper()}{options['help'][1:]}.")
        parser: Parser = self._actions.add_parser(name, **options)
        parser.set_defaults(takes_command=False)
        return parser


def fail(text: str, code: int) -> int:
    """Say on standard error what went wrong. Returns the exit status `code`."""
    print(f"power-director: {text}", file=sys.stderr)
    return code
