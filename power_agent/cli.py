"""The command `power-agent`: what can be measured here, marks from shell scripts, and the service of a host."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from power_agent.completion import EXAMPLES as _COMPLETION_EXAMPLES
from power_agent.completion import SHELLS, NoCompletion, script
from power_agent.mlperf_command import EXAMPLES as _MLPERF_EXAMPLES
from power_agent.mlperf_command import add_options as add_mlperf_options
from power_agent.option_values import merged, setting
from power_agent.service.enroll import EXAMPLES as _ENROLL_EXAMPLES
from power_agent.service.enroll import add_options as add_enroll_options
from power_agent.service.run import EXAMPLES as _RUN_EXAMPLES
from power_agent.service.run import add_options as add_run_options
from power_agent.service.serve import EXAMPLES as _SERVE_EXAMPLES
from power_agent.service.serve import add_options as add_serve_options

_WORK = ("samples", "tokens", "queries", "streams")
_EXAMPLES = """\
examples:
  power-agent devices
  power-agent mark begin epoch --index 3

  power-agent run --director 10.0.0.5 -- python train.py

A command is measured on one machine alone with: power-director run -- CMD
"""
_DEVICES_EXAMPLES = """\
examples:
  power-agent devices
  power-agent devices --driver rapl
  power-agent devices --driver replay --set replay.path=spl.txt
  power-agent devices --json | jq '.drivers[].name'
"""
_MARK_EXAMPLES = """\
examples, in a script that `power-director run` measures:
  power-agent mark begin epoch --index 3
  power-agent mark end epoch --index 3 --samples 60000
  power-agent mark point checkpoint --attribute file=model.pt

Counts and attributes may stand at the begin or at the end. In Python, power_agent.phase does the same and costs less.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: the job's; without a job 0 ok, 2 wrong usage."""
    words = list(sys.argv[1:] if argv is None else argv)
    split = words.index("--") if words[:1] == ["run"] and "--" in words else len(words)
    arguments = _parser().parse_args(words[:split])
    try:
        if arguments.command == "devices":
            return _devices(arguments)
        if arguments.command == "completion":
            return _completion(arguments)
        if arguments.command == "enroll":
            from power_agent.service.enroll import enroll

            return enroll(arguments)
        if arguments.command == "serve":
            from power_agent.service.serve import serve

            return serve(arguments)
        if arguments.command == "run":
            from power_agent.service.run import run

            return run(arguments, words[split + 1 :])
        if arguments.command == "mlperf":
            from power_agent.mlperf_command import measure

            return measure(arguments)
        return _mark(arguments)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. What Python flushes at exit must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _add(commands: Any, name: str, text: str, examples: str, **more: Any) -> argparse.ArgumentParser:
    """A command, described by its help unless otherwise said."""
    more.setdefault("description", f"{text[:1].upper()}{text[1:]}.")
    formatter = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, epilog=examples, formatter_class=formatter, **more
    )
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="power-agent",
        description="See what power and energy can be measured here, mark phases of a workload, and serve a director.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    devices = _add(
        commands,
        "devices",
        "list what can be measured here, and what would make the rest work",
        _DEVICES_EXAMPLES,
        description="List every channel that can be measured here. For each driver that cannot be used:\n"
        "why, and what would change it.",
    )
    devices.add_argument("--json", action="store_true", help="print JSON for programs")
    devices.add_argument(
        "--driver", action="append", metavar="NAME", help="only this driver; may be given more than once"
    )
    devices.add_argument(
        "--set",
        action="append",
        default=[],
        type=setting,
        metavar="DRIVER.KEY=VALUE",
        help="a setting of a driver, such as replay.path=spl.txt; may be given more than once",
    )
    devices.add_argument(
        "--root",
        default="/",
        metavar="DIR",
        help="where /sys, /proc and /dev of the machine are mounted, such as /host in a container",
    )

    mark = _add(
        commands,
        "mark",
        "mark a phase of a workload from a shell script",
        _MARK_EXAMPLES,
        description="Mark where a phase begins or ends, or one instant.\nDoes nothing where no measurement runs.",
    )
    mark.add_argument("op", choices=("begin", "end", "point"), help="a phase begins or ends; or one instant")
    mark.add_argument("name", metavar="NAME", help="name of the phase: epoch, eval, …")
    mark.add_argument("--index", type=int, metavar="N", help="which of the phases of this name")
    for unit in _WORK:
        mark.add_argument(f"--{unit}", type=float, metavar="X", help=f"{unit} that the phase processed")
    mark.add_argument(
        "--attribute",
        action="append",
        default=[],
        type=_attribute,
        metavar="KEY=VALUE",
        help="anything else worth keeping; may be given more than once",
    )
    mark.add_argument("--verbose", action="store_true", help="say so where no measurement runs")

    text = "trust a director on another machine, and print what makes it trust this agent"
    add_enroll_options(_add(commands, "enroll", text, _ENROLL_EXAMPLES))
    text = "record on this host for a director, and hand over"
    add_serve_options(_add(commands, "serve", text, _SERVE_EXAMPLES, allow_abbrev=False))
    text = "run a command here, measured in a session of a director's"
    usage = "power-agent run --director ADDR [options] -- CMD [ARGUMENT ...]"
    add_run_options(_add(commands, "run", text, _RUN_EXAMPLES, usage=usage, allow_abbrev=False))
    text = "measure a workload with an MLPerf Inference power server, as its official client does"
    add_mlperf_options(_add(commands, "mlperf", text, _MLPERF_EXAMPLES))
    completion = _add(
        commands, "completion", "print a script that lets a shell complete our words", _COMPLETION_EXAMPLES
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: that costs more than the rest of the start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('ml-power-agent')}")
        parser.exit()


def _attribute(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _devices(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from drivers.discovery import Opened, open_drivers
    from power_agent import device_table
    from power_agent.characteristics import (
        NOTHING_KNOWN,
        CharacteristicsUnreadable,
        default_file,
        load_characteristics,
    )

    results = open_drivers(arguments.driver, root=Path(arguments.root), settings=merged(arguments.set))
    try:
        known = load_characteristics(default_file())
    except (CharacteristicsUnreadable, RuntimeError) as error:
        print(f"power-agent: {error}", file=sys.stderr)
        known = NOTHING_KNOWN
    try:
        text = device_table.as_json(results, known) if arguments.json else device_table.as_text(results, known)
    finally:
        for result in results:
            if isinstance(result, Opened):
                result.driver.close()
    print(text, flush=True)
    return 0


def _completion(arguments: argparse.Namespace) -> int:
    try:
        print(script(_parser(), arguments.shell, takes_command=True))
    except NoCompletion as error:
        print(f"power-agent: {error}", file=sys.stderr)
        return 1
    return 0


def _mark(arguments: argparse.Namespace) -> int:
    from power_agent.marks import shell_mark

    work = {unit: getattr(arguments, unit) for unit in _WORK if getattr(arguments, unit) is not None}
    try:
        written = shell_mark(arguments.op, arguments.name, arguments.index, work, dict(arguments.attribute))
    except OSError as error:
        # The workload's script goes on: a lost mark is no reason to stop it.
        print(f"power-agent: mark {arguments.name!r} was lost: {error}", file=sys.stderr)
        return 0
    if not written and arguments.verbose:
        print("power-agent: no measurement runs (POWER_AGENT_MARKS is not set); nothing was marked", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
