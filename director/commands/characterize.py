"""The command line of `power-director characterize`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from director.commands.parser import Commands, WrongUsage, fail
from director.commands.values import count, positive
from power_agent.option_values import merged, setting

if TYPE_CHECKING:
    from director.characterize.session_channels import Characterisation

LEAST_CYCLES = 3
EXAMPLES = """\
examples:
  power-director characterize rapl
  power-director characterize hwmon --rate 5 --period 20
  power-director characterize nvml --rate 100 -- ./gpu-burn 100000
  power-director characterize power-sessions/20260714T101500Z-characterize-rapl

A load is switched on and off at random instants, and the device's update period,
averaging window, delay and noise are those that explain its readings best. Where
its driver does not know them, later measurements use what is stored.

Without CMD the load is one busy process per CPU. CMD must last until it is
stopped; SIGSTOP and SIGCONT switch it. A SESSION of this command is computed
again. docs/how-to/characterize.md tells what to look out for.

Exit status: 0, at least one channel was told; 1, none; 2, it could not be tried,
or wrong usage.
"""


def add(commands: Commands) -> None:
    """Add the command `characterize`."""
    text = "find out a device's update period, averaging window, delay and noise"
    parser = commands.add(
        "characterize",
        usage="power-director characterize [options] DEVICE [-- CMD [ARGUMENT ...]]",
        help=text,
        description=f"{text[0].upper()}{text[1:]}, from its response to a load.",
        epilog=EXAMPLES,
    )
    option = parser.add_argument
    option("device", metavar="DEVICE", help="a driver, DRIVER or DRIVER:INSTANCE; or a session of this command")
    option("--channel", action="append", metavar="NAME", help="only this channel; may be given more than once")
    help_text = "a setting of the driver; may be given more than once"
    option("--set", type=setting, action="append", default=[], metavar="DRIVER.KEY=VALUE", help=help_text)
    option("--rate", type=positive, metavar="HZ", help="readings per second (default: 20, or the device's highest)")
    help_text = "of a cycle, on average (default: 10); several times what the device averages over"
    option("--period", type=positive, metavar="SECONDS", help=help_text)
    option("--cycles", type=count, metavar="N", help="how often the load goes on and off (default: 12)")
    option("--output", type=Path, metavar="DIR", help="session directory (default: as with run)")
    option("--no-store", action="store_true", help="show only; later measurements do not use it")
    option("--json", metavar="FILE", help="write everything as JSON; -: standard output")
    parser.set_defaults(act=_characterize, takes_command=True)


def _characterize(arguments: argparse.Namespace, command: list[str]) -> int:
    from director.characterize.outcome import show, write_json
    from director.characterize.session_channels import read_session
    from director.session.files import SessionError

    try:
        if _is_session(arguments, command):
            found = read_session(Path(arguments.device), None, arguments.channel)
        else:
            status, session = _record(arguments, command)
            if status is not None:
                return status
            found = read_session(session, arguments.device, arguments.channel)
    except SessionError as error:
        return fail(str(error), 2)
    show(found)
    status = 0 if found.to_store() else 1
    if arguments.json is not None:
        try:
            write_json(found, arguments.json)
        except OSError as error:
            status = fail(f"{arguments.json} cannot be written: {error.strerror}", 1)
    return status if arguments.no_store else _store(found) or status


def _is_session(arguments: argparse.Namespace, command: list[str]) -> bool:
    from drivers.discovery import find_unknown

    unknown = find_unknown([arguments.device])
    if not Path(arguments.device).is_dir() or (unknown is None and "/" not in arguments.device):
        if unknown is not None:
            raise WrongUsage(f"{unknown.reason}, and no such session; {unknown.fix}")
        if arguments.cycles is not None and arguments.cycles < LEAST_CYCLES:
            raise WrongUsage(f"{arguments.cycles} cycles tell nothing; --cycles {LEAST_CYCLES} is the least")
        return False
    given = [name for name in ("rate", "period", "cycles", "output") if getattr(arguments, name) is not None]
    if given or arguments.set or command:
        raise WrongUsage("a session was measured already: of the options, only --channel, --no-store and --json apply")
    return True


def _record(arguments: argparse.Namespace, command: list[str]) -> tuple[int | None, Path]:
    """The session; and the exit status where it tells nothing."""
    from director.characterize.characterize_command import DEFAULT_HZ, Wanted, record
    from director.running.notices import say
    from director.running.run_options import UsageError
    from power_agent.workload import CannotStart, check_program, leave_like

    wanted = Wanted(
        device=arguments.device,
        load=command,
        channels=arguments.channel,
        rate_hz=arguments.rate or DEFAULT_HZ,
        period_s=arguments.period or Wanted.period_s,
        cycles=arguments.cycles or Wanted.cycles,
        output=arguments.output,
        settings=merged(arguments.set),
    )
    try:
        if command:
            check_program(command[0])
        session, outcome = record(wanted)
    except (UsageError, CannotStart) as error:
        return fail(str(error), 2), Path()
    except OSError as error:
        return fail(f"{error.strerror or error} ({error.filename or 'no file'}). Nothing was run", 2), Path()
    if outcome.interrupted:
        say(f"interrupted; what was measured until then is in {session}")
        return leave_like(outcome.status), session
    if outcome.status or outcome.summary is None:
        return fail(f"the load did not run to its end; what was measured is in {session}", 2), session
    return None, session


def _store(found: Characterisation) -> int:
    from director.running.notices import say
    from power_agent.characteristics import CharacteristicsUnreadable, default_file, store_characteristics

    stored = found.to_store()
    if not stored:
        return 0
    try:
        path = default_file()
        store_characteristics(path, stored)
    except (CharacteristicsUnreadable, RuntimeError) as error:
        return fail(f"{error}. Nothing was stored", 1)
    except OSError as error:
        return fail(f"{error.filename or 'the file'} cannot be written: {error.strerror}. Nothing was stored", 1)
    say(f"stored for later measurements in {path}")
    return 0
