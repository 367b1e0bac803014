"""The command line of `power-director keys`: whom this director trusts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from director.commands.parser import Commands, fail
from power_agent.fleet_extra import not_installed

if TYPE_CHECKING:
    from power_agent.wire.keys import Keyring

SECRET = "director.secret"
AGENTS = "agents"
EXAMPLES = """\
examples, to enrol an agent:
  power-director keys init                 once; prints what to run on each agent
  power-agent enroll --director HOST:PORT --key KEY     there; prints the next line
  power-director keys add node7 KEY        here

  power-director keys show                 this director's public key
  power-director keys list
  power-director keys remove node7

Secret keys stay in files that their owner alone may read. A running director
sees each change at once.
"""


def add(commands: Commands) -> None:
    """Add the command `keys`."""
    text = "say which agents this director trusts"
    keys = commands.add("keys", help=text, epilog=EXAMPLES)
    what = "init: make this director's own; show: its public key; add NAME KEY; list; remove NAME"
    keys.add_argument("do", choices=("init", "show", "add", "list", "remove"), metavar="ACTION", help=what)
    keys.add_argument("name", nargs="?", metavar="NAME", help="of the agent: the name of its host")
    keys.add_argument("key", nargs="?", metavar="KEY", help="public key of the agent, 64 hex digits")
    keys.add_argument("--keys", type=Path, metavar="DIR", help="where the keys are; default: ~/.config/power-agent")
    keys.set_defaults(act=_keys)


def _keys(arguments: argparse.Namespace, _: list[str]) -> int:
    from director.commands.parser import WrongUsage

    words = {"add": 2, "remove": 1}.get(arguments.do, 0)
    given = sum(word is not None for word in (arguments.name, arguments.key))
    if given != words:
        wanted = {2: " NAME KEY", 1: " NAME", 0: ""}[words]
        raise WrongUsage(f"keys {arguments.do} is called as: power-director keys {arguments.do}{wanted}")
    try:
        from power_agent.config_folder import default_folder
        from power_agent.wire.keys import KeyProblem, Keyring
    except ModuleNotFoundError as error:
        return fail(not_installed(error), 1)
    folder = arguments.keys or default_folder()
    try:
        return _act(arguments, folder, Keyring(folder / AGENTS))
    except KeyProblem as problem:
        return fail(str(problem), 1)
    except ModuleNotFoundError as error:
        return fail(not_installed(error), 1)
    except OSError as error:
        return fail(f"{error.filename or folder} cannot be written: {error.strerror}", 1)


def _act(arguments: argparse.Namespace, folder: Path, keyring: Keyring) -> int:
    from director.running.notices import say
    from power_agent.wire.keys import load_secret, make_secret, parse_key

    if arguments.do == "init":
        key = make_secret(folder / SECRET).public.hex()
        print(f"made {folder / SECRET}. On each agent: power-agent enroll --director HOST:PORT --key {key}")
    elif arguments.do == "show":
        if not (folder / SECRET).exists():
            return fail(f"there is no key in {folder} yet: power-director keys init", 1)
        print(load_secret(folder / SECRET).public.hex())
    elif arguments.do == "add":
        keyring.add(arguments.name, parse_key(arguments.key))
        print(f"{arguments.name} is trusted from now on")
    elif arguments.do == "list":
        if not keyring.names():
            say(f"{folder / AGENTS} holds no agent's key yet: power-director keys add NAME KEY")
        for key_bytes, name in sorted(keyring.names().items(), key=lambda item: item[1]):
            print(f"{name}  {key_bytes.hex()}")
    elif not keyring.remove(arguments.name):
        return fail(f"there is no agent {arguments.name}; power-director keys list tells which there are", 1)
    else:
        print(f"{arguments.name} is not trusted any more")
    return 0
