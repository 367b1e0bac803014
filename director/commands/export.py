"""The command line of `power-director export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from director.commands.parser import Commands, WrongUsage, fail
from director.commands.values import positive
from power_agent.option_values import number

FORMATS = ("mlperf-training", "mlperf-inference", "csv", "parquet", "power-description")
_ONLY_FOR = {
    "conversion_efficiency": "mlperf-training",
    "interconnect_watts": "mlperf-training",
    "rules": "mlperf-training",
    "ptd_log": "mlperf-inference",
    "ptd_command": "mlperf-inference",
}

EXAMPLES = """\
examples:
  power-director export series --format mlperf-training \\
    --conversion-efficiency 0.94 --output results/my-system/llama2_70b_lora
  power-director export ranging testing --format mlperf-inference \\
    --ptd-log ptd.log --ptd-command 'ptd -l ptd.log -p 8888 8 /dev/ttyUSB0' \\
    --output performance
  power-director export session --format csv --output tables

What cannot be exported honestly (estimates, missing readings, too few of them)
is refused, and nothing is left. An existing folder is never overwritten.
Exit status: 0; 1, refused, or it cannot be read or written; 2, no session, or
wrong usage.
"""


def add(commands: Commands) -> None:
    """Add the command `export`."""
    text = "write sessions as MLPerf folders, tables, or a description of the system"
    parser = commands.add("export", help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=EXAMPLES)
    help_text = "a session, or a series of --repeat, whose runs are meant; mlperf-inference: ranging, then testing"
    parser.add_argument("sessions", type=Path, nargs="+", metavar="SESSION", help=help_text)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the new folder")
    parser.add_argument("--channel", metavar="NAME", help="which channel, where a meter has several of power")
    training = parser.add_argument_group("mlperf-training")
    training.add_argument(
        "--conversion-efficiency",
        type=_efficiency,
        metavar="SHARE",
        help="of the power supplies, AC to DC, as documented; none is assumed",
    )
    training.add_argument(
        "--interconnect-watts", type=positive, metavar="W", help="estimate of all switches, for sw_0.txt"
    )
    training.add_argument("--rules", metavar="ROUND", help="score as in this round; default: the newest")
    inference = parser.add_argument_group("mlperf-inference")
    inference.add_argument("--ptd-log", type=Path, metavar="FILE", help="PTDaemon's log of both stages, its clock UTC")
    inference.add_argument("--ptd-command", metavar="WORDS", help="the command line that PTDaemon was started with")
    parser.set_defaults(act=_export)


def _efficiency(text: str) -> float:
    return number(text, lambda value: 0 < value <= 1, "a share above 0 and at most 1, such as 0.94")


def _export(arguments: argparse.Namespace, _: list[str]) -> int:
    for name, form in _ONLY_FOR.items():
        if getattr(arguments, name) is not None and arguments.format != form:
            raise WrongUsage(f"--{name.replace('_', '-')} is only for --format {form}")
    if arguments.channel is not None and not arguments.format.startswith("mlperf-"):
        raise WrongUsage("--channel is only for MLPerf folders; tables and descriptions hold all channels")
    if (arguments.ptd_log is None) != (arguments.ptd_command is None):
        raise WrongUsage("--ptd-log and --ptd-command go together")

    from director.answers.report_command import explain_failure
    from director.mlperf.export.export_command import ExportOptions, export
    from director.mlperf.export.inference_folder import PtdRecord
    from director.mlperf.export.new_folder import ExportRefused
    from director.mlperf.export.training_folder import Conversion
    from director.mlperf.training.compliance_rules import ROUNDS
    from director.session.files import SessionError

    rules = arguments.rules or ROUNDS[-1]
    if rules not in ROUNDS:
        raise WrongUsage(f"--rules {rules} is no round; there are {', '.join(ROUNDS)}")
    options = ExportOptions(
        sessions=arguments.sessions,
        form=arguments.format,
        output=arguments.output,
        rules=rules,
        channel=arguments.channel,
        conversion=Conversion(arguments.conversion_efficiency, arguments.interconnect_watts),
        ptd=None if arguments.ptd_log is None else PtdRecord(arguments.ptd_log, arguments.ptd_command),
    )
    try:
        export(options)
    except ExportRefused as error:
        return fail(str(error), 1)
    except Exception as error:
        return fail(explain_failure(error), 2 if isinstance(error, SessionError) else 1)
    return 0
