"""The command `power-agent run`: run a command on this host, measured by a director's session."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from power_agent.mark_file import say
from power_agent.option_values import host_names
from power_agent.service.agent_options import add_agent_options, default_state
from power_agent.stages import add_stage_option

if TYPE_CHECKING:
    from power_agent.service.asked_session import AskedSession, AskOptions
    from power_agent.workload import Signals

_P = ParamSpec("_P")

EXAMPLES = """\
examples:
  power-agent run --director 10.0.0.5 -- python train.py
  power-agent run --director 10.0.0.5 --hosts node1,node2 --label resnet -- srun ./train.sh
  power-agent run --director 10.0.0.5 --stage ranging --stage testing -- ./run_loadgen.sh

The job keeps its terminal, its standard streams, its signals and its exit status. Without a director it is run and
recorded all the same, and handed over when one is back. --state, --keys, --driver, --rate, --set and --root are for the
agent that is started for the time of the job, where none serves on this host.
"""


def add_options(run: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    option = run.add_argument
    option("--hosts", type=host_names, default=[], metavar="A,B", help="hosts to measure (default: this one)")
    option("--label", default="", metavar="TEXT", help="a name for the report")
    add_stage_option(run)
    add_agent_options(run)


def run(arguments: argparse.Namespace, command: list[str]) -> int:
    """Run the command; returns its exit status, or ends as it ended."""
    from power_agent.wire.sockets import Address, AddressProblem
    from power_agent.workload import CannotStart, check_program, held_signals, leave_like

    if not command:
        say("no command: put it after --, as in: power-agent run --director 10.0.0.5 -- python train.py")
        return 2
    try:
        address = Address.parse(arguments.director)
        check_program(command[0])
    except AddressProblem as problem:
        say(f"{problem}. The job was not started")
        return 2
    except CannotStart as error:
        say(str(error))
        return error.exit_code
    with held_signals() as signals:
        try:
            status = _run_measured(_ask_options(arguments, str(address)), command, signals)
        except CannotStart as error:
            say(str(error))
            return error.exit_code
    return leave_like(status)


def _run_measured(options: AskOptions, command: list[str], signals: Signals) -> int:
    from power_agent.marks import DIRECTORY_VARIABLE
    from power_agent.service.asked_session import AskedSession

    def interrupted() -> bool:
        signals.take(0)
        return signals.ending is not None

    session = AskedSession(options, command, say)
    try:
        _carefully(session.begin, interrupted)
        if signals.ending is not None:
            say("interrupted before the job was started. Nothing was run")
            status = -signals.ending
        else:
            environment = dict(os.environ)
            if session.measured:
                environment[DIRECTORY_VARIABLE] = str(session.marks)
            status = _run_in_stages(session, command, environment, signals, interrupted)
    finally:
        signals.ending = None  # from here on, whoever asks for the end means us
        _carefully(session.end, interrupted)
        _carefully(session.close, interrupted)
    _show(session)
    return status


def _run_in_stages(
    session: AskedSession,
    command: list[str],
    environment: dict[str, str],
    signals: Signals,
    interrupted: Callable[[], bool],
) -> int:
    """Run the command once per stage; how the last one ended, which is the first that did not end well."""
    from power_agent.workload import Workload

    status = 0
    for number, _ in enumerate(session.stages):
        if number:
            _carefully(session.next_stage, interrupted)
            if signals.ending is not None:
                return -signals.ending
        job = Workload(command, environment, signals)
        _carefully(session.started, job.pid)
        ended = job.wait(lambda: _carefully(session.look))
        status = -ended.signal if ended.signal is not None else ended.exit_code or 0
        _carefully(session.ended, ended.exit_code, ended.signal)
        if status or signals.ending is not None:
            break
    return status


def _carefully(step: Callable[_P, None], *arguments: _P.args, **named: _P.kwargs) -> None:
    """Whatever goes wrong with measuring, the job is run and waited for."""
    try:
        step(*arguments, **named)
    except Exception as error:
        say(f"warning: a mistake of this program: {type(error).__name__}: {error}")


def _show(session: AskedSession) -> None:
    text = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in session.report)
    with suppress(OSError, ValueError):
        print(text, end="" if text.endswith("\n") or not text else "\n", file=sys.stderr, flush=True)
    if text:
        say(f"to read in a browser: {session.name}/report.html among the director's sessions")


def _ask_options(arguments: argparse.Namespace, director: str) -> AskOptions:
    from power_agent.config_folder import NoHome
    from power_agent.service.asked_session import AskOptions

    try:
        state = Path(arguments.state or default_state()).absolute()
    except NoHome:
        state = None  # an agent that serves here needs none of ours
    words = ["--director", director, "--host", arguments.host, "--root", arguments.root]
    words += ["--state", str(state)] if state is not None else []
    words += ["--keys", arguments.keys] if arguments.keys else []
    for name in arguments.driver or []:
        words += ["--driver", name]
    for name, hz in arguments.rate:
        words += ["--rate", f"{name}={hz!r}"]
    for driver, key, value in arguments.set:
        words += ["--set", f"{driver}.{key}={value}"]
    return AskOptions(
        director=director,
        run_dir=Path(arguments.run_dir).absolute(),
        state=state,
        agent_words=words,
        hosts=arguments.hosts,
        label=arguments.label,
        stages=arguments.stage,
    )
