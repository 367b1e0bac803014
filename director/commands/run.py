"""The command line of `power-director run`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from director.commands.device_options import add_device_options
from director.commands.fleet_options import add_fleet_options
from director.commands.parser import Commands, Parser, WrongUsage, fail
from director.commands.report import add_report_options, report_options
from director.commands.serve import add_sessions_option
from director.commands.values import count, not_negative, positive, seconds
from power_agent.option_values import merged
from power_agent.stages import add_stage_option

if TYPE_CHECKING:
    from director.running.config_file import Shape
    from director.running.run_options import RunOptions

EXAMPLES = """\
examples:
  power-director run -- python train.py
  power-director run --idle 30 --repeat 5 --label resnet -- python train.py --epochs 1
  power-director run --rate nvml=20 --rate rapl=100 --mllog results.log -- ./run_and_time.sh
  power-director run --set estimate.peak_watts=280 --explain -- python train.py
  power-director run --loadgen build/logs --json result.json -- python main.py --scenario Offline
  power-director run --phase-pattern 'epoch=^Epoch (?P<index>\\d+)' -- python train.py
  power-director run --replay spl.txt --loadgen mlperf_log_detail.txt
  power-director run --hosts node1,node2 -- mpirun -H node1,node2 ./train.sh

--rate, --set and --phase-pattern may be given more than once.
The job keeps its terminal, its standard streams, its signals and its exit status.
The report goes to standard error.
"""


def add(commands: Commands) -> None:
    """Add the command `run`."""
    run = commands.add(
        "run",
        usage="power-director run [options] -- CMD [ARGUMENT ...]",
        help="run a command and measure it",
        description="Run a command, measure power and energy meanwhile, and report each phase's energy.",
        epilog=EXAMPLES,
    )
    option = run.add_argument
    option("--config", type=Path, metavar="FILE", help="options from a TOML file; the command line wins")
    option("--output", type=Path, metavar="DIR", help="session directory (default: ./power-sessions/TIME-NAME)")
    option("--label", default="", metavar="TEXT", help="a name for the report")
    add_device_options(run)
    option("--root", type=Path, default=Path("/"), metavar="DIR", help="where /sys, /proc and /dev are, such as /host")
    option(
        "--idle",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="measure idle power before and after the job",
    )
    option(
        "--live",
        action=argparse.BooleanOptionalAction,
        help="figures meanwhile, in the title of a terminal that the job writes to (default: on the terminal, where "
        "the job writes to files only)",
    )
    option("--repeat", type=count, default=1, metavar="N", help="run and measure N times; stops where a run fails")
    phases = run.add_argument_group("phases, besides the marks that the job makes itself")
    option = phases.add_argument
    option("--mllog", nargs="?", const="-", metavar="FILE", help="MLPerf MLLOG lines (default and -: standard output)")
    option("--loadgen", metavar="PATH", help="MLPerf LoadGen detail log, or its folder; may appear during the run")
    option(
        "--phase-pattern",
        type=_pattern,
        action="append",
        default=[],
        metavar="NAME=REGEX",
        help="a phase begins at each line that matches; may be given more than once",
    )
    option("--phase-log", metavar="FILE", help="where --phase-pattern looks (default: standard output)")
    replay = run.add_argument_group("replay")
    replay.add_argument("--replay", type=Path, metavar="FILE", help="a recorded trace to measure; CMD may be left out")
    replay.add_argument("--replay-speed", type=positive, default=1.0, metavar="X", help="times as fast as recorded")
    fleet = run.add_argument_group("other machines, through `power-director serve` on this one")
    add_fleet_options(fleet)
    add_stage_option(fleet)
    add_sessions_option(fleet)
    factors = run.add_argument_group("cost and carbon; nothing is assumed")
    factors.add_argument("--cost-per-kwh", type=not_negative, metavar="X", help="price of a kWh")
    factors.add_argument("--currency", default="", metavar="CODE", help="its currency, such as EUR")
    factors.add_argument("--carbon-g-per-kwh", type=not_negative, metavar="X", help="grams of CO2e per kWh")
    add_report_options(run)
    run.set_defaults(act=_run, takes_command=True)


def _pattern(text: str) -> tuple[str, bool]:
    """The pattern, and whether its lines tell their own time."""
    from power_agent.workload import deaf_threads

    with deaf_threads():  # of numpy
        from director.phases.sources.line_pattern import parse_pattern
    try:
        groups = parse_pattern(text).regex.groupindex.keys()
    except (ValueError, OverflowError, RecursionError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text, bool({"time_s", "time_ms"} & groups)


def _with_config(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments again, after those of the configuration file: what comes later wins."""
    if arguments.config is None:
        return arguments
    from director.running.config_file import ConfigError, read_config

    from_file: list[str] = []
    try:
        for key, words in read_config(arguments.config, _config_shapes()):
            try:
                _parse(["run", *words])
            except WrongUsage as error:
                raise ConfigError(f"{arguments.config}: {key}: {error}") from error
            from_file += words
    except ConfigError as error:
        raise WrongUsage(str(error)) from error
    place = arguments.words.index("run") + 1
    return _parse([*arguments.words[:place], *from_file, *arguments.words[place:]])


def _parse(words: list[str]) -> argparse.Namespace:
    parser = Parser()
    add(Commands(parser))
    return parser.parse_args(words)


def _config_shapes() -> dict[str, Shape]:
    return {
        **dict.fromkeys(("output", "label", "root", "idle", "repeat", "loadgen", "phase-log", "replay"), "value"),
        **dict.fromkeys(("replay-speed", "cost-per-kwh", "currency", "carbon-g-per-kwh", "json"), "value"),
        **dict.fromkeys(("quiet", "explain"), "flag"),
        "live": "switch",
        **dict.fromkeys(("run-dir", "sessions"), "value"),
        **dict.fromkeys(("rate", "set", "ranges"), "table"),
        **dict.fromkeys(("drivers", "hosts"), "comma list"),
        **dict.fromkeys(("phase-pattern", "stage"), "list"),
        "mllog": "optional",
    }


def _run(arguments: argparse.Namespace, command: list[str]) -> int:
    from director.running.run_options import UsageError
    from power_agent.workload import CannotStart, leave_like

    arguments = _with_config(arguments)
    try:
        options = _run_options(arguments, command)
        if arguments.hosts is not None:
            from director.commands.fleet_run import run_on_hosts

            return run_on_hosts(arguments, options)
        if arguments.ranges:
            raise WrongUsage("--ranges is for meters of other machines, with --hosts; here it is --set")
        if arguments.stage:
            raise WrongUsage("--stage is for meters of other machines, with --hosts")
        if options.repeat > 1:
            from director.running.series import run_series

            return leave_like(run_series(options))
        from director.running.run_command import default_directory, run_once

        return leave_like(run_once(options, options.output or default_directory(options)).status)
    except UsageError as error:
        return fail(f"{error}. The job was not started", 2)
    except CannotStart as error:
        return fail(f"{error}", error.exit_code)
    except OSError as error:
        return fail(f"{error.strerror or error} ({error.filename or 'no file'}). The job was not started", 1)


def _run_options(arguments: argparse.Namespace, command: list[str]) -> RunOptions:
    from director.running.run_options import RunOptions
    from director.session.manifest import Factors

    if not command and arguments.replay is None:
        raise WrongUsage("no command: put it after --, as in: power-director run --idle 10 -- python train.py")
    if not command and arguments.repeat > 1:
        raise WrongUsage("--repeat needs a command after --")
    if arguments.phase_log is not None:
        _check_phase_log(arguments.phase_pattern)
    _check_drivers(arguments)
    _check_json(arguments.json)
    return RunOptions(
        argv=command,
        output=arguments.output,
        label=arguments.label,
        drivers=arguments.drivers,
        rates_hz=dict(arguments.rate),
        settings=merged(arguments.set),
        root=arguments.root,
        idle_s=arguments.idle,
        repeat=arguments.repeat,
        mllog=arguments.mllog,
        loadgen=arguments.loadgen,
        phase_patterns=[text for text, _ in arguments.phase_pattern],
        phase_log=arguments.phase_log,
        replay=arguments.replay,
        replay_speed=arguments.replay_speed,
        live=False if arguments.quiet and arguments.live is None else arguments.live,
        factors=Factors(
            cost_per_kwh=arguments.cost_per_kwh,
            currency=arguments.currency,
            carbon_g_per_kwh=arguments.carbon_g_per_kwh,
        ),
        report=report_options(arguments),
    )


def _check_drivers(arguments: argparse.Namespace) -> None:
    """A driver's name that is mistyped must not cost a day of measuring."""
    named = [*(arguments.drivers or []), *(name.partition(".")[0] for name, _ in arguments.rate)]
    named += [driver for driver, _, _ in arguments.set]
    if not named:
        return
    from drivers.discovery import find_unknown

    unknown = find_unknown(named)
    if unknown is not None:
        raise WrongUsage(f"{unknown.reason}; {unknown.fix}")


def _check_phase_log(patterns: list[tuple[str, bool]]) -> None:
    if not patterns:
        raise WrongUsage("--phase-log needs a --phase-pattern to look for in it")
    for pattern, has_time in patterns:
        if not has_time:
            raise WrongUsage(
                f"--phase-pattern {pattern!r} needs a group time_s or time_ms: nobody sees when lines come to a file. "
                "Without --phase-log the lines of standard output are stamped as they come"
            )


def _check_json(target: str | None) -> None:
    if target is None or target == "-":
        return
    path = Path(target)
    writable = os.access(path, os.W_OK) if path.exists() else os.access(path.parent, os.W_OK)
    if path.is_dir() or not writable:
        raise WrongUsage(f"--json {target}: cannot be written; name a file in a directory that is there and writable")
