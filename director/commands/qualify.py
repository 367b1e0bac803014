"""The command line of `power-director qualify`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from director.commands.device_options import add_device_options
from director.commands.parser import Commands, WrongUsage, fail
from director.commands.values import not_negative, positive, seconds
from power_agent.option_values import merged

if TYPE_CHECKING:
    from director.mlperf.qualify.live import LiveTest
    from director.mlperf.qualify.meter_test import Level

LOADS = 2
SETTLE_S = 30.0
EXAMPLES = """\
examples:
  power-director qualify pdu.csv spl.txt --level idle=30 --level half=400 \\
    --level full=800 --plot qualification.svg --json qualification.json
  power-director qualify session session --channel NAME \\
    --reference-channel NAME --level idle --level half --level full
  power-director qualify --load half='./load 50' --load full='./load 100' \\
    --channel NAME --reference-channel NAME --output session --plot q.png

From traces: a session, a CSV file or PTDaemon's spl.txt. A level is a phase of
a session, or NAME=SECONDS after both traces have begun; its first five minutes
count.
Live, with --load: both meters are recorded while the system idles, and then
bears each load for the time to settle and five minutes. A load must last until
it is stopped.
Exit status: 0, the meter qualifies; 1, it does not; 2, the test cannot be made,
or wrong usage.
"""


def add(commands: Commands) -> None:
    """Add the command `qualify`."""
    text = "test a meter against a reference as the rules of MLPerf Training ask"
    parser = commands.add("qualify", help=text, epilog=EXAMPLES)
    parser.add_argument("meter", nargs="?", type=Path, metavar="METER", help="trace of the meter to be tested")
    parser.add_argument(
        "reference", nargs="?", type=Path, metavar="REFERENCE", help="trace of the reference; may be the same"
    )
    parser.add_argument("--channel", metavar="NAME", help="of the meter, where its trace has several of power")
    parser.add_argument("--reference-channel", metavar="NAME", help="of the reference")
    help_text = "idle, and two loads: a phase, or NAME=SECONDS; three times"
    parser.add_argument("--level", action="append", default=[], type=_level, metavar="LEVEL", help=help_text)
    parser.add_argument("--limit", type=positive, metavar="PERCENT", help="allowed difference; default: 5")
    help_text = "draw both meters and the differences, into .svg or .png; needs matplotlib"
    parser.add_argument("--plot", type=_plot, metavar="FILE", help=help_text)
    parser.add_argument(
        "--json", metavar="FILE", help="write everything as JSON; -: standard output, without the table"
    )
    live = parser.add_argument_group("live")
    help_text = "a load and the command that makes it; twice, the smaller first"
    live.add_argument("--load", action="append", default=[], type=_load, metavar="NAME=CMD", help=help_text)
    help_text = f"before each level is measured; default: {SETTLE_S:g}"
    live.add_argument("--settle", type=seconds, metavar="SECONDS", help=help_text)
    live.add_argument("--output", type=Path, metavar="DIR", help="session directory (default: as with run)")
    add_device_options(live)
    parser.set_defaults(act=_qualify)


def _level(text: str) -> tuple[str, float | None]:
    name, equals, after = text.rpartition("=") if "=" in text else (text, "", "")
    return name, not_negative(after) if equals else None


def _load(text: str) -> tuple[str, str]:
    name, _, command = text.partition("=")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{command!r} is no command: {error}") from error
    if not (name and words):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=CMD, such as half='./load 50'")
    return name, command


def _plot(text: str) -> Path:
    if not text.endswith((".svg", ".png")):
        raise argparse.ArgumentTypeError(f"{text!r} ends neither in .svg nor in .png")
    return Path(text)


def _qualify(arguments: argparse.Namespace, _: list[str]) -> int:
    from importlib.util import find_spec

    from director.mlperf.qualify.meter_test import LIMIT_PERCENT, QualifyRefused, qualify
    from director.mlperf.qualify.outcome import show

    _check(arguments)
    if arguments.plot is not None and find_spec("matplotlib") is None:
        return fail("plots are drawn by matplotlib, which is not installed: pip install 'matplotlib>=3.8'", 2)
    try:
        if arguments.load:
            test = _live_test(arguments)
            status, traces = _record(test)
            if status is not None:
                return status
            levels = test.levels
        else:
            traces, levels = (arguments.meter, arguments.reference), _levels(arguments)
        channels = (arguments.channel, arguments.reference_channel)
        found = qualify(traces, channels, levels, arguments.limit or LIMIT_PERCENT)
        show(found, arguments.json, arguments.plot)
    except QualifyRefused as error:
        return fail(str(error), 2)
    return 0 if found.passes else 1


def _check(arguments: argparse.Namespace) -> None:
    """Refuse options that contradict each other."""
    if not arguments.load:
        if arguments.meter is None or arguments.reference is None:
            raise WrongUsage("name two traces, METER and REFERENCE; or, to test live, --load twice")
        for name in ("settle", "output", "drivers", "rate", "set"):
            if getattr(arguments, name) not in (None, []):
                raise WrongUsage(f"--{name} is only for a live test, with --load")
        return
    if arguments.meter is not None or arguments.level:
        raise WrongUsage("--load tests live; traces and --level are for what was recorded")
    names = [name for name, _ in arguments.load]
    if len(set(names)) != LOADS or len(names) != LOADS or "idle" in names:
        raise WrongUsage(f"the rules ask for idle, which is not named, and {LOADS} loads of different names")
    if arguments.channel is None or arguments.reference_channel is None:
        raise WrongUsage("a live test needs --channel and --reference-channel; `power-agent devices` lists channels")
    if arguments.channel == arguments.reference_channel:
        raise WrongUsage(f"{arguments.channel} cannot be its own reference")


def _levels(arguments: argparse.Namespace) -> list[Level]:
    from director.mlperf.qualify.meter_test import Level

    return [Level(name, after) for name, after in arguments.level]


def _live_test(arguments: argparse.Namespace) -> LiveTest:
    from director.mlperf.qualify.live import LiveTest

    return LiveTest(
        loads=arguments.load,
        channels=(arguments.channel, arguments.reference_channel),
        settle_s=SETTLE_S if arguments.settle is None else arguments.settle,
        output=arguments.output,
        drivers=arguments.drivers,
        rates_hz=dict(arguments.rate),
        settings=merged(arguments.set),
    )


def _record(test: LiveTest) -> tuple[int | None, tuple[Path, Path]]:
    """The session twice; and the exit status where there is nothing to compare."""
    from director.mlperf.qualify.live import record
    from director.running.run_options import UsageError
    from power_agent.workload import CannotStart, check_program, leave_like

    nowhere = Path(), Path()
    try:
        for _, command in test.loads:
            check_program(shlex.split(command)[0])
        session, outcome = record(test)
    except (UsageError, CannotStart) as error:
        return fail(str(error), 2), nowhere
    except OSError as error:
        return fail(f"{error.strerror or error} ({error.filename or 'no file'}). Nothing was run", 2), nowhere
    if outcome.interrupted:
        return leave_like(outcome.status), nowhere
    if outcome.status or outcome.summary is None:
        return fail(f"the test was not made; what was measured is in {session}", 2), nowhere
    return None, (session, session)
