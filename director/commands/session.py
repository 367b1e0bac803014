"""The command line of `power-director session`: a measurement around anything, between its start and its stop."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from director.commands.device_options import add_device_options
from director.commands.fleet_options import add_fleet_options, choices
from director.commands.parser import Commands, WrongUsage, fail
from director.commands.report import add_report_options, report_options
from director.commands.serve import add_sessions_option
from power_agent.fleet_extra import not_installed

if TYPE_CHECKING:
    from collections.abc import Callable

    from director.fleet.local_socket import DirectorClient
    from power_agent.wire.messages import SessionAnswer, SessionRequest

PATIENCE_S = 30.0
EXAMPLES = """\
examples, while `power-director serve` is at work on this machine:
  name=$(power-director session start --hosts node1,node2 --label resnet)
  export POWER_AGENT_MARKS=/tmp/power-agent/$name       for the marks of jobs, if any
  srun ./train.sh
  power-director session stop $name

  power-director session list
  power-director session state $name

with a stage in which power meters learn which ranges they need, as in MLPerf:
  name=$(power-director session start --stage ranging)
  ./run.sh; power-director session next $name
  ./run.sh; power-director session stop $name

The name goes to standard output, all else to standard error.
Exit status: 0; 1, no director answers, it refuses, or there are no results.
"""
ACTIONS = ("start", "next", "stop", "state", "list")


def add(commands: Commands) -> None:
    """Add the command `session`."""
    text = "start and stop measuring the machines of a fleet, around anything"
    session = commands.add(
        "session",
        usage="power-director session start [options] | next NAME | stop NAME [options] | state NAME | list",
        help=text,
        epilog=EXAMPLES,
    )
    what = "start: prints the name of the session; next: go on from ranging to testing; stop: prints the results; state"
    session.add_argument("do", choices=ACTIONS, metavar="ACTION", help=f"{what}; list")
    session.add_argument("name", nargs="?", metavar="NAME", help="of the session; `session start` prints it")
    add_sessions_option(session)
    start = session.add_argument_group("start")
    add_fleet_options(start)
    start.add_argument("--label", default="", metavar="TEXT", help="a name for the report")
    text = "ranging: begin with a ranging stage, which `session next` ends (default: testing alone)"
    start.add_argument("--stage", choices=("ranging", "testing"), default="testing", help=text)
    add_device_options(start)
    add_report_options(session)
    session.set_defaults(act=_session)


def _session(arguments: argparse.Namespace, _: list[str]) -> int:
    wants_name = arguments.do in ("next", "stop", "state")
    if wants_name != (arguments.name is not None):
        name = " NAME" if wants_name else ""
        raise WrongUsage(f"session {arguments.do} is called as: power-director session {arguments.do}{name}")
    if arguments.do == "list":
        from director.fleet.session_list import print_sessions

        return print_sessions(arguments.sessions)
    try:
        from director.fleet.local_socket import DirectorClient, NoDirector
    except ModuleNotFoundError as error:
        return fail(not_installed(error), 1)
    request = _request(arguments)
    try:
        client = DirectorClient(arguments.sessions)
    except NoDirector as problem:
        return fail(str(problem), 1)
    try:
        return _ask(arguments, client, request)
    finally:
        client.close()


def _request(arguments: argparse.Namespace) -> SessionRequest:
    import msgspec

    from director.fleet.local_socket import new_request
    from power_agent.wire.messages import SessionRequest

    facts = {"request": new_request(), "want": arguments.do, "session": arguments.name}
    if arguments.do == "start":
        stages = ["ranging", "testing"] if arguments.stage == "ranging" else ["testing"]
        facts |= {"hosts": arguments.hosts or [], "label": arguments.label, "stages": stages}
        facts["choices"] = choices(arguments)
    try:
        return msgspec.convert(facts, SessionRequest)
    except msgspec.ValidationError as error:
        if "$.session" in str(error):
            raise WrongUsage(f"{arguments.name!r} is no name of a session: `power-director session list`") from error
        raise WrongUsage(f"the director would not take this: {error}") from error


def _ask(arguments: argparse.Namespace, client: DirectorClient, request: SessionRequest) -> int:
    from director.fleet.local_socket import hosts_to_sample

    is_done: dict[str, Callable[[SessionAnswer], bool]] = {
        "start": lambda answer: answer.state != "preparing",
        "next": lambda answer: answer.state != "preparing" and answer.stage == "testing",
        "stop": lambda answer: answer.state == "complete",
        "state": lambda answer: True,
    }
    awaited = hosts_to_sample(request.hosts) if arguments.do == "start" else ""
    answer = client.follow(request, is_done[arguments.do], PATIENCE_S, waiting_for=awaited)
    if answer is None:
        return fail(f"the director that serves {arguments.sessions} does not answer; ask again when it is back", 1)
    if answer.state == "refused":
        return fail(answer.reason, 1)
    return _show(arguments, answer)


def _show(arguments: argparse.Namespace, answer: SessionAnswer) -> int:
    from director.running.fleet_marks import MarksProblem, close_marks, open_marks
    from director.running.fleet_run import show_results
    from director.running.notices import say
    from director.session.files import SessionError, load_manifest

    assert answer.session is not None
    session = arguments.sessions / answer.session
    if arguments.do == "stop":
        close_marks(answer.session, arguments.run_dir)
        return 0 if show_results(session, answer, report_options(arguments)) else 1
    if arguments.do == "start":
        try:
            fleet = load_manifest(session).fleet
            assert fleet is not None
            open_marks(session, answer.session, fleet, arguments.run_dir)
        except (MarksProblem, SessionError) as problem:
            say(f"warning: {problem}")
        print(answer.session)
        say(f"measuring into {session}; for marks: export POWER_AGENT_MARKS={arguments.run_dir / answer.session}")
    elif arguments.do == "state":
        print(f"{answer.session} {answer.state} {answer.stage}")
    else:
        say(f"{answer.session}: {answer.state}, {answer.stage}")
    for warning in answer.warnings:
        say(f"warning: {warning}")
    return 0
