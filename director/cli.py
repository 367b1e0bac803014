"""The command `power-director`: measures a command, and reports what was measured.

Only the command line is read here; what a command needs is imported when it runs.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from director import help_text

if TYPE_CHECKING:
    from director.running.config_file import Shape
    from director.running.run_options import ReportOptions, RunOptions


class _Wrong(Exception):
    """Wrong usage: the text for the user."""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # A shortened option would change its meaning when another option comes that begins alike.
        super().__init__(**options, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise _Wrong(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the job's exit code; without a job 0, or 1 (failed), 2 (wrong usage), 130 (Ctrl-C)."""
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if "--" in words else len(words)
    own, command = words[:split], words[split + 1 :]
    try:
        _check_text(own)
        arguments = _parser().parse_args(own)
        if command and arguments.command != "run":
            raise _Wrong(f"{arguments.command} takes no command after --")
        if arguments.command == "run":
            return _run(_with_config(arguments, own), command)
        return _report(arguments) if arguments.command == "report" else _recover(arguments)
    except _Wrong as error:
        return _fail(f"{error}\nTry `power-director --help` or `power-director run --help`.", 2)
    except KeyboardInterrupt:
        return 130


def _check_text(words: Sequence[str]) -> None:
    """Options come to stand in JSON files. The command itself may hold any bytes."""
    for word in words:
        if any("\ud800" <= character <= "\udfff" for character in word):
            raise _Wrong(f"{word!r} holds bytes that are no UTF-8; give it another name")


def _parser() -> _Parser:
    description = "Measure the energy of machine-learning work."
    parser = _Parser(prog="power-director", description=description, epilog=help_text.COMMANDS)
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_run(commands)

    text = "compute a session's results anew from its raw files, and show them"
    report = commands.add_parser("report", help=text, description=f"{text}.".capitalize(), epilog=help_text.REPORT)
    report.add_argument("directory", type=Path, metavar="DIR", help="a session, or a series of --repeat")
    _add_report_options(report)

    text = "finish a session that a crash, a kill or a power cut left"
    recover = commands.add_parser("recover", help=text, description=f"{text}.".capitalize(), epilog=help_text.RECOVER)
    recover.add_argument("directory", type=Path, metavar="DIR", help="the session")
    _add_report_options(recover)
    return parser


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> None:
    run = commands.add_parser(
        "run",
        usage="power-director run [options] -- CMD [ARGUMENT ...]",
        help="run a command and measure it",
        description="Run a command, measure power and energy meanwhile, and report each phase's energy.",
        epilog=help_text.RUN,
    )
    add = run.add_argument
    add("--config", type=Path, metavar="FILE", help="options from a TOML file; the command line wins")
    add("--output", type=Path, metavar="DIR", help="session directory (default: ./power-sessions/TIME-NAME)")
    add("--label", default="", metavar="TEXT", help="a name for the report")
    add("--drivers", type=_names, metavar="A,B", help="only these drivers (default: all that work here)")
    add("--rate", type=_rate, action="append", default=[], metavar="DRIVER[.GROUP]=HZ", help="readings per second")
    add("--set", type=_setting, action="append", default=[], metavar="DRIVER.KEY=VALUE", help="a setting of a driver")
    add("--root", type=Path, default=Path("/"), metavar="DIR", help="where /sys, /proc and /dev are, such as /host")
    add("--idle", type=_seconds, default=0.0, metavar="SECONDS", help="measure idle power before and after the job")
    add("--repeat", type=_count, default=1, metavar="N", help="run and measure N times; stops where a run fails")
    phases = run.add_argument_group("phases, besides the marks that the job makes itself")
    add = phases.add_argument
    add("--mllog", nargs="?", const="-", metavar="FILE", help="MLPerf MLLOG lines (default and -: standard output)")
    add("--loadgen", metavar="PATH", help="MLPerf LoadGen detail log, or its folder; may appear during the run")
    add(
        "--phase-pattern",
        type=_pattern,
        action="append",
        default=[],
        metavar="NAME=REGEX",
        help="a phase begins at each line that matches; may be given more than once",
    )
    add("--phase-log", metavar="FILE", help="where --phase-pattern looks (default: standard output)")
    replay = run.add_argument_group("replay")
    replay.add_argument("--replay", type=Path, metavar="FILE", help="a recorded trace to measure; CMD may be left out")
    replay.add_argument("--replay-speed", type=_positive, default=1.0, metavar="X", help="times as fast as recorded")
    factors = run.add_argument_group("cost and carbon; nothing is assumed")
    factors.add_argument("--cost-per-kwh", type=_not_negative, metavar="X", help="price of a kWh")
    factors.add_argument("--currency", default="", metavar="CODE", help="its currency, such as EUR")
    factors.add_argument("--carbon-g-per-kwh", type=_not_negative, metavar="X", help="grams of CO2e per kWh")
    _add_report_options(run)


def _add_report_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("report")
    group.add_argument("--json", metavar="FILE", help="write the results as JSON; -: standard output, at the end")
    group.add_argument("--quiet", action="store_true", help="no table; warnings only")
    group.add_argument("--explain", action="store_true", help="where each U comes from, and what other methods give")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: that costs more than the rest of the start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('ml-power-agent')}")
        parser.exit()


# Values


def _number(text: str, accepts: Callable[[float], bool], wanted: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and accepts(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return value


def _positive(text: str) -> float:
    return _number(text, lambda value: value > 0, "a number above 0")


def _not_negative(text: str) -> float:
    return _number(text, lambda value: value >= 0, "a number, 0 or more")


def _seconds(text: str) -> float:
    return _number(text, lambda value: 0 <= value <= 86_400, "a number of seconds, 0 to 86400")


def _count(text: str) -> int:
    return int(_number(text, lambda value: value == int(value) and 1 <= value <= 999, "a whole number, 1 to 999"))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("names no driver; `power-agent devices` lists them")
    return names


def _rate(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not DRIVER[.GROUP]=HZ, such as nvml=20")
    return name, _number(value, lambda hz: hz > 0, "a rate in Hz above 0")


def _setting(text: str) -> tuple[str, str, str]:
    name, equals, value = text.partition("=")
    driver, dot, key = name.partition(".")
    if not (equals and dot and driver and key):
        raise argparse.ArgumentTypeError(f"{text!r} is not DRIVER.KEY=VALUE, such as estimate.idle_watts=40")
    return driver, key, value


def _pattern(text: str) -> tuple[str, bool]:
    """The pattern, and whether its lines tell their own time."""
    from director.running.workload import deaf_threads

    with deaf_threads():  # of numpy
        from director.phases.sources.line_pattern import parse_pattern
    try:
        groups = parse_pattern(text).regex.groupindex.keys()
    except (ValueError, OverflowError, RecursionError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text, bool({"time_s", "time_ms"} & groups)


# Commands


def _with_config(arguments: argparse.Namespace, own: list[str]) -> argparse.Namespace:
    """The arguments again, after those of the configuration file: what comes later wins."""
    if arguments.config is None:
        return arguments
    from director.running.config_file import ConfigError, read_config

    from_file: list[str] = []
    try:
        for key, words in read_config(arguments.config, _config_shapes()):
            try:
                _parser().parse_args(["run", *words])
            except _Wrong as error:
                raise ConfigError(f"{arguments.config}: {key}: {error}") from error
            from_file += words
    except ConfigError as error:
        raise _Wrong(str(error)) from error
    place = own.index("run") + 1
    return _parser().parse_args([*own[:place], *from_file, *own[place:]])


def _config_shapes() -> dict[str, Shape]:
    return {
        **dict.fromkeys(("output", "label", "root", "idle", "repeat", "loadgen", "phase-log", "replay"), "value"),
        **dict.fromkeys(("replay-speed", "cost-per-kwh", "currency", "carbon-g-per-kwh", "json"), "value"),
        **dict.fromkeys(("quiet", "explain"), "flag"),
        **dict.fromkeys(("rate", "set"), "table"),
        "drivers": "comma list",
        "phase-pattern": "list",
        "mllog": "optional",
    }


def _run(arguments: argparse.Namespace, command: list[str]) -> int:
    from director.running.run_options import UsageError
    from director.running.workload import CannotStart, leave_like

    try:
        options = _run_options(arguments, command)
        if options.repeat > 1:
            from director.running.series import run_series

            return leave_like(run_series(options))
        from director.running.run_command import default_directory, run_once

        return leave_like(run_once(options, options.output or default_directory(options)).status)
    except UsageError as error:
        return _fail(f"{error}. The job was not started", 2)
    except CannotStart as error:
        return _fail(f"{error}", error.exit_code)
    except OSError as error:
        return _fail(f"{error.strerror or error} ({error.filename or 'no file'}). The job was not started", 1)


def _run_options(arguments: argparse.Namespace, command: list[str]) -> RunOptions:
    from director.running.run_options import RunOptions
    from director.session.manifest import Factors

    if not command and arguments.replay is None:
        raise _Wrong("no command: put it after --, as in: power-director run --idle 10 -- python train.py")
    if not command and arguments.repeat > 1:
        raise _Wrong("--repeat needs a command after --")
    if arguments.phase_log is not None:
        _check_phase_log(arguments.phase_pattern)
    _check_drivers(arguments)
    _check_json(arguments.json)
    settings: dict[str, dict[str, str]] = {}
    for driver, key, value in arguments.set:
        settings.setdefault(driver, {})[key] = value
    return RunOptions(
        argv=command,
        output=arguments.output,
        label=arguments.label,
        drivers=arguments.drivers,
        rates_hz=dict(arguments.rate),
        settings=settings,
        root=arguments.root,
        idle_s=arguments.idle,
        repeat=arguments.repeat,
        mllog=arguments.mllog,
        loadgen=arguments.loadgen,
        phase_patterns=[text for text, _ in arguments.phase_pattern],
        phase_log=arguments.phase_log,
        replay=arguments.replay,
        replay_speed=arguments.replay_speed,
        factors=Factors(
            cost_per_kwh=arguments.cost_per_kwh,
            currency=arguments.currency,
            carbon_g_per_kwh=arguments.carbon_g_per_kwh,
        ),
        report=_report_options(arguments),
    )


def _check_drivers(arguments: argparse.Namespace) -> None:
    """A driver's name that is mistyped must not cost a day of measuring."""
    named = [*(arguments.drivers or []), *(name.partition(".")[0] for name, _ in arguments.rate)]
    named += [driver for driver, _, _ in arguments.set]
    if not named:
        return
    import difflib
    from importlib.metadata import entry_points

    from drivers.discovery import BUILT_IN, ENTRY_POINT_GROUP

    known = [*BUILT_IN, *(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))]
    for name in named:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise _Wrong(f"there is no driver {name!r}; {hint}known: {', '.join(sorted(known))}")


def _check_phase_log(patterns: list[tuple[str, bool]]) -> None:
    if not patterns:
        raise _Wrong("--phase-log needs a --phase-pattern to look for in it")
    for pattern, has_time in patterns:
        if not has_time:
            raise _Wrong(
                f"--phase-pattern {pattern!r} needs a group time_s or time_ms: nobody sees when lines come to a file. "
                "Without --phase-log the lines of standard output are stamped as they come"
            )


def _check_json(target: str | None) -> None:
    if target is None or target == "-":
        return
    path = Path(target)
    writable = os.access(path, os.W_OK) if path.exists() else os.access(path.parent, os.W_OK)
    if path.is_dir() or not writable:
        raise _Wrong(f"--json {target}: cannot be written; name a file in a directory that is there and writable")


def _report_options(arguments: argparse.Namespace) -> ReportOptions:
    from director.running.run_options import ReportOptions

    return ReportOptions(json=arguments.json, quiet=arguments.quiet, explain=arguments.explain)


def _report(arguments: argparse.Namespace) -> int:
    from director.answers.report_command import explain_failure, report
    from director.session.files import SERIES, SessionError

    try:
        if (arguments.directory / SERIES).exists():
            from director.running.series import report_series

            report_series(arguments.directory, _report_options(arguments))
        else:
            report(arguments.directory, _report_options(arguments))
    except Exception as error:
        return _fail(explain_failure(error), 2 if isinstance(error, SessionError) else 1)
    return 0


def _recover(arguments: argparse.Namespace) -> int:
    from director.answers.report_command import explain_failure
    from director.session.files import SessionError
    from director.session.recover import recover

    try:
        recover(arguments.directory, _report_options(arguments))
    except Exception as error:
        return _fail(explain_failure(error), 2 if isinstance(error, SessionError) else 1)
    return 0


def _fail(text: str, code: int) -> int:
    print(f"power-director: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
