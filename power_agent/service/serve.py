"""The command `power-agent serve`: record on this host for a director, and hand over."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys

from power_agent.fleet_extra import not_installed
from power_agent.mark_file import say
from power_agent.service.agent_options import add_agent_options

EXAMPLES = """\
examples:
  power-agent serve --director tcp://10.0.0.5:5570
  power-agent serve --director 10.0.0.5 --driver nvml --rate nvml=20 --state /var/lib/power-agent

It needs no director to be there: what is recorded waits in --state until one takes it. Ctrl-C or SIGTERM ends it;
started again, it goes on with the sessions that are not over. Away from this machine it needs keys: power-agent enroll.
"""


def add_options(serve: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_agent_options(serve)
    # For the agent that `power-agent run` starts: end with the standard input, once no job is measured any more.
    serve.add_argument("--while-open", action="store_true", help=argparse.SUPPRESS)


def serve(arguments: argparse.Namespace) -> int:
    """Run the command; returns its exit status."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whoever started us may hold its own signals back
    try:
        from power_agent.config_folder import NoHome
        from power_agent.service.agent import Agent, StateProblem
        from power_agent.service.agent_options import agent_options
        from power_agent.service.run_folder import RunFolderProblem
        from power_agent.wire.keys import KeyProblem
        from power_agent.wire.sockets import AddressProblem
    except ModuleNotFoundError as error:
        say(not_installed(error))
        return 1
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        options = agent_options(arguments)
        agent = Agent(options, say)
    except NoHome as problem:
        say(f"{problem}: name folders with --state and --keys")
        return 2
    except (ValueError, AddressProblem) as error:
        say(str(error))
        return 2
    except (KeyProblem, StateProblem, RunFolderProblem) as problem:
        say(str(problem))
        return 1
    say(f"serving as {options.host} for {options.director}; recordings in {options.state}, marks in {options.run_dir}")

    def is_over(has_jobs: bool) -> bool:
        if asked:
            return True
        return bool(arguments.while_open) and not has_jobs and _ended(sys.stdin.fileno())

    try:
        agent.serve(is_over)
    except OSError as error:
        say(f"{error.strerror or error} ({error.filename or 'no file'})")
        return 1
    return 0


def _ended(descriptor: int) -> bool:
    """Whether nothing will be written into this pipe any more."""
    if not select.select([descriptor], [], [], 0)[0]:
        return False
    return not os.read(descriptor, 1)
