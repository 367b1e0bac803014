"""Shell completion for our commands: scripts for bash, zsh and fish, made from the same parser that reads the words."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

EXAMPLES = """\
to complete words with the Tab key from now on:
  bash:  echo 'eval "$(power-agent completion bash)"' >> ~/.bashrc
  zsh:   echo 'eval "$(power-agent completion zsh)"' >> ~/.zshrc    (after compinit)
  fish:  power-agent completion fish > ~/.config/fish/completions/power-agent.fish
"""
SHELLS = ("bash", "zsh", "fish")

# What follows -- is a command of the user's own, and is completed as the shell would complete it alone.
_OTHER_COMMANDS = {
    "bash": """
_NAME() {
  local i
  for (( i = 1; i < COMP_CWORD; i++ )); do
    if [[ ${COMP_WORDS[i]} == -- ]]; then
      if declare -F _command_offset >/dev/null; then
        _command_offset $(( i + 1 ))
      elif (( COMP_CWORD == i + 1 )); then
        mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
      else
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
      fi
      return
    fi
  done
  _shtab_NAME
}
complete -o bashdefault -F _NAME PROG
""",
    "zsh": """
_NAME() {
  local place=${words[(i)--]}
  if (( place < CURRENT )); then
    words=("${(@)words[place+1,-1]}")
    (( CURRENT -= place ))
    _normal
  else
    _shtab_NAME "$@"
  fi
}
compdef _NAME PROG
""",
    "fish": """
function _NAME_command
  set -l words (commandline -opc)
  set -l place (contains -i -- -- $words)
  complete -C (string join ' ' -- $words[(math $place + 1)..] (commandline -ct))
end
complete -c PROG -n 'contains -- -- (commandline -opc)' -f -a '(_NAME_command)'
""",
}


class NoCompletion(Exception):
    """The scripts cannot be made: why, and what to do."""


def script(parser: argparse.ArgumentParser, shell: str, *, takes_command: bool) -> str:
    """The completion script of a command.

    Args:
        parser: of the whole command, with its name in `prog`. It is changed and not fit to parse with afterwards.
        shell: one of SHELLS.
        takes_command: whether another command may follow after --.

    Raises:
        NoCompletion: the library that makes them is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise NoCompletion("the Python package shtab is not installed: pip install shtab") from error
    for action in _actions(parser):
        _tell_values(action, shtab)
    text: str = shtab.complete(parser, shell)
    if takes_command:
        text += _OTHER_COMMANDS[shell].replace("NAME", parser.prog.replace("-", "_")).replace("PROG", parser.prog)
    return text


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action


def _tell_values(action: Any, shtab: Any) -> None:
    """What an option's value can be is told by what its help calls it."""
    if action.metavar in ("FILE", "PATH"):
        action.complete = shtab.FILE
    elif action.metavar == "DIR":
        action.complete = shtab.DIRECTORY
    elif {"--driver", "--drivers"} & set(action.option_strings):
        from importlib.metadata import entry_points

        from drivers.discovery import BUILT_IN, ENTRY_POINT_GROUP

        action.choices = sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))})
