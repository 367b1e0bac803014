"""The command line of `power-director serve`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from director.commands.keys import AGENTS, SECRET
from director.commands.parser import Commands, WrongUsage, fail
from director.commands.serve_mlperf import add_mlperf_options, first_of_mlperf, serve_mlperf
from power_agent.fleet_extra import not_installed

if TYPE_CHECKING:
    from power_agent.wire.keys import KeyPair, Keyring

SESSIONS = Path("power-sessions")
LISTEN = "tcp://127.0.0.1:5570"
EXAMPLES = """\
examples:
  power-director serve                                  agents on this machine, without keys
  power-director keys init && power-director serve --listen tcp://0.0.0.0:5570
  power-director serve --sessions /data/power-sessions
  power-director serve --mlperf --ptd 127.0.0.1:8888 --ptd-log ptd.txt    for MLPerf's own client

on each machine to be measured:
  power-agent serve --director tcp://HOST:5570

then, on this machine: power-director run --hosts a,b -- CMD
                       power-director session --help

SIGTERM and Ctrl-C end it in order. Sessions that are running then go on at the next
start, as they do after a crash. Exit status: 0; 1, it cannot listen or write.
"""


def add(commands: Commands) -> None:
    """Add the command `serve`."""
    text = "direct agents on other machines, and keep their sessions"
    serve = commands.add("serve", help=text, epilog=EXAMPLES)
    option = serve.add_argument
    option(
        "--listen",
        metavar="ADDRESS",
        help=f"where agents connect, the first of three ports (default: {LISTEN}); another machine's need keys",
    )
    add_sessions_option(serve)
    option("--keys", type=Path, metavar="DIR", help="where the keys are (default: ~/.config/power-agent)")
    add_mlperf_options(serve)
    serve.set_defaults(act=_serve)


def add_sessions_option(parser: argparse._ActionsContainer) -> None:
    """Add `sessions`: which director is meant, where several serve on a machine."""
    text = f"where the director keeps its sessions (default: ./{SESSIONS})"
    parser.add_argument("--sessions", type=Path, default=SESSIONS, metavar="DIR", help=text)


def _serve(arguments: argparse.Namespace, _: list[str]) -> int:
    if arguments.mlperf:
        return serve_mlperf(arguments)
    if (given := first_of_mlperf(arguments)) is not None:
        raise WrongUsage(f"{given} is for serve --mlperf")
    from director.session.files import SessionError

    try:
        from director.fleet.fleet_session import Bounds
        from director.fleet.serve import ServeOptions, serve
        from director.running.notices import say
        from power_agent.config_folder import default_folder
        from power_agent.wire.keys import KeyProblem
        from power_agent.wire.sockets import Address, AddressProblem
    except ModuleNotFoundError as error:
        return fail(not_installed(error), 1)
    try:
        address = Address.parse(arguments.listen or LISTEN)
        own, keyring = _keys(arguments.keys or default_folder(), needed=arguments.keys is not None)
        serve(ServeOptions(address, arguments.sessions, own, keyring, Bounds()), say)
    except (KeyProblem, AddressProblem, SessionError) as problem:
        return fail(str(problem), 1)
    except OSError as error:
        return fail(f"{error.filename or arguments.sessions} cannot be used: {error.strerror}", 1)
    return 0


def _keys(folder: Path, *, needed: bool) -> tuple[KeyPair | None, Keyring | None]:
    """This director's keys, if it has any."""
    from power_agent.wire.keys import KeyProblem, Keyring, load_secret

    if (folder / SECRET).exists():
        return load_secret(folder / SECRET), Keyring(folder / AGENTS)
    if needed:
        raise KeyProblem(f"there is no key in {folder}: power-director keys init --keys {folder}")
    return None, None
