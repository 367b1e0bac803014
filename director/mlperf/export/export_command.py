"""`power-director export`: sessions in the forms that others read, and what the rules' own formula makes of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from director.answers.number_text import figure_text
from director.mlperf.export.inference_folder import (
    NOT_OFFICIAL,
    SOURCES_CHECKS,
    PtdRecord,
    write_inference_folder,
)
from director.mlperf.export.new_folder import ExportRefused, new_folder
from director.mlperf.export.power_description import write_power_description
from director.mlperf.export.tables import Form, write_tables
from director.mlperf.export.training_folder import Conversion, ExportedRun, write_training_folder
from director.mlperf.inference.strict_checks import strict_checks
from director.mlperf.training.run_score import score_run
from director.running.series import load_series
from director.session.files import SERIES


@dataclass(frozen=True)
class ExportOptions:
    """What the user asked for."""

    sessions: Sequence[Path]
    form: str
    output: Path
    rules: str  # the round to score by
    channel: str | None
    conversion: Conversion
    ptd: PtdRecord | None


def export(options: ExportOptions) -> None:
    """Write the folder and say on standard output what is in it.

    Raises:
        ExportRefused: it cannot be exported honestly; nothing is left.
        SessionError: a session is damaged.
        OSError: a file cannot be written.
    """
    sessions = _single_sessions(options.sessions)
    with new_folder(options.output) as folder:
        if options.form == "mlperf-training":
            lines = _training(folder, sessions, options)
        elif options.form == "mlperf-inference":
            lines = _inference(folder, sessions, options)
        else:
            lines = _others(folder, sessions, options)
    sys.stdout.write("\n".join([f"{options.output}: {options.form}", *(f"  {line}" for line in lines)]) + "\n")


def _single_sessions(paths: Sequence[Path]) -> list[Path]:
    """Sessions, with every series replaced by its runs."""
    found: list[Path] = []
    for path in paths:
        if (path / SERIES).exists():
            found += [path / run.directory for run in load_series(path).runs]
        else:
            found.append(path)
    resolved = [path.resolve() for path in found]
    if twice := next((path for n, path in enumerate(resolved) if path in resolved[:n]), None):
        raise ExportRefused(f"{twice} is named twice; every run counts once")
    return found


def _training(folder: Path, sessions: Sequence[Path], options: ExportOptions) -> list[str]:
    runs = write_training_folder(folder, sessions, options.conversion, options.channel)
    lines = []
    for run in runs:
        lines += _training_run(folder, run, options)
    if options.conversion.efficiency is None:
        lines.append("no conversion efficiency: readings count as they are; --conversion-efficiency states one")
    if options.conversion.interconnect_watts is not None:
        lines.append(f"sw_0.txt: interconnect {options.conversion.interconnect_watts:g} W, ESTIMATE as you stated it")
    return lines


def _training_run(folder: Path, run: ExportedRun, options: ExportOptions) -> list[str]:
    """The run by the rules' formula, against our own figure; what its log fails."""
    score = score_run(folder / f"{run.name}.txt", folder / "power" / run.name, (options.rules,))[options.rules]
    official = (
        "no official energy" if score.node_joules is None else f"nodes {figure_text(score.node_joules, None, 'J')}"
    )
    physical = "physical not known"
    if run.physical_joules is not None and score.node_joules is not None:
        difference = score.node_joules / run.physical_joules - 1
        physical = (
            f"physical {figure_text(run.physical_joules, run.expanded_joules, 'J')}, difference {difference:+.3%}"
        )
    lines = [f"{run.name} from {run.session.name}: {official} by the rules; {physical}; {run.readings} readings"]
    lines += [f"  does not count in round {options.rules}: {problem}" for problem in score.problems]
    return lines + [f"  {note}" for note in run.notes]


def _inference(folder: Path, sessions: Sequence[Path], options: ExportOptions) -> list[str]:
    if options.ptd is None:
        raise ExportRefused(
            "an official result needs PTDaemon, and nothing it said is made up: give its log with --ptd-log and its "
            "command line with --ptd-command"
        )
    version, results = write_inference_folder(folder, sessions, options.ptd, options.channel)
    passed = sum(result.outcome != "FAIL" for result in results)
    statement = [
        NOT_OFFICIAL,
        f"Of the official checks of round {version.name}, {passed} of {len(results)} pass. These fail, as they must: "
        f"{', '.join(SOURCES_CHECKS)}.",
        "Volts, amperes and power factors are not in the sessions and stand as -1.",
        "A submission needs a measurement by the official scripts.",
    ]
    warned = [f"{result.name}: {result.text}" for result in results if result.outcome == "WARN"]
    strict = [f"{r.name}: {r.outcome}: {r.text}" for r in strict_checks(folder, version) if r.outcome != "pass"]
    lines = [*statement, *(f"warning: {text}" for text in warned), *(f"strict: {text}" for text in strict)]
    (folder / "EXPORT.md").write_text("# About this folder\n\n" + "\n\n".join(lines) + "\n", encoding="utf-8")
    return lines


def _others(folder: Path, sessions: Sequence[Path], options: ExportOptions) -> list[str]:
    if len({path.resolve().name for path in sessions}) < len(sessions):
        raise ExportRefused("two sessions have one name; export them one by one")
    lines = []
    for session in sessions:
        own = folder / session.resolve().name
        if options.form == "power-description":
            own.mkdir()
            lines.append(str(write_power_description(own, session).relative_to(folder)))
        else:
            form: Form = "csv" if options.form == "csv" else "parquet"
            lines += [f"{own.name}/{name}" for name in write_tables(own, session, form)]
    return lines
