"""The command line of `power-director completion`."""

from __future__ import annotations

import argparse

from director.commands.parser import Commands, fail

SHELLS = ("bash", "zsh", "fish")  # here again, because to import them costs more than the rest of the start
EXAMPLES = """\
to complete words with the Tab key from now on:
  bash:  echo 'eval "$(power-director completion bash)"' >> ~/.bashrc
  zsh:   echo 'eval "$(power-director completion zsh)"' >> ~/.zshrc    (after compinit)
  fish:  power-director completion fish > ~/.config/fish/completions/power-director.fish
"""


def add(commands: Commands) -> None:
    """Add the command `completion`."""
    text = "print a script that lets a shell complete our words"
    completion = commands.add("completion", help=text, epilog=EXAMPLES)
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    completion.set_defaults(act=_completion)


def _completion(arguments: argparse.Namespace, _: list[str]) -> int:
    from director.cli import make_parser
    from power_agent.completion import NoCompletion, script

    try:
        print(script(make_parser(), arguments.shell, takes_command=True))
    except NoCompletion as error:
        return fail(str(error), 1)
    return 0
