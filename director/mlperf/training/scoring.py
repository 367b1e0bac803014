"""MLPerf Training in `power-director score`: jobs, tables, and rows for machines."""

from __future__ import annotations

import dataclasses
import os.path
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from director.answers.number_text import figure_text
from director.mlperf.difference import Cause, cause_text, plain
from director.mlperf.finding import TrainingBenchmark
from director.mlperf.scoring import Job, Row
from director.mlperf.training.benchmark_score import BenchmarkScore, rounds_to_score, score_benchmark
from director.mlperf.training.compliance_rules import ROUNDS
from director.mlperf.training.run_score import RunScore, score_run

_COLUMNS = (
    *("kind", "submitter", "system", "benchmark", "round", "run", "counts", "why_not", "minutes", "official_joules"),
    *("node_joules", "switch_joules", "is_official", "scaling_factor", "physical_joules", "physical_expanded_joules"),
    *("physical_estimate_joules", "coverage", "difference", "causes", "unread_lines", "path"),
)
_MOST_NOTES = 8  # of a benchmark, in the terminal
_MAY_WRAP = "physical ± U"  # between the figure and its label
_ALARMING = 0.01  # difference; the rules' target for meters is 5 %


class TrainingScore:
    """A `director.mlperf.scoring.Score`."""

    def __init__(self, score: BenchmarkScore) -> None:
        self.score = score

    def to_json(self) -> dict[str, Any]:
        """Figures in joules, minutes and shares; `difference` is official over physical, less 1."""
        score = self.score
        return {
            "kind": "training benchmark",
            "path": str(score.found.path),
            "submitter": score.found.submitter,
            "system": score.found.system,
            "benchmark": score.found.benchmark,
            "round": score.round,
            "round_from": score.round_from,
            "minutes": score.minutes,
            "unscaled_minutes": score.unscaled_minutes,
            "official_joules": score.joules,
            "unscaled_joules": score.unscaled_joules,
            "is_official": score.is_official,
            "scaling_factor": score.scaling_factor,
            "counted": [run.name for run in score.counted],
            "dropped": score.dropped,
            "physical_joules": score.physical_joules,
            "physical_expanded_joules": score.physical_expanded_joules,
            "physical_is_estimate": score.physical_is_estimate,
            "coverage": score.coverage,
            "difference": score.difference,
            "causes": _causes_json(score.causes, score.physical_joules),
            "notes": score.notes,
            "runs": [_run_json(run) for run in score.runs],
        }

    def to_rows(self) -> list[Row]:
        """One row for each run, then one for the benchmark."""
        score = self.score
        named: Row = {
            "submitter": score.found.submitter,
            "system": score.found.system,
            "benchmark": score.found.benchmark,
            "round": score.round,
            "path": str(score.found.path),
        }
        rows: list[Row] = [
            named
            | {
                "kind": "training run",
                "run": run.name,
                "counts": run.name not in score.dropped,
                "why_not": _why_not(score, run),
                "minutes": _minutes(run),
                "official_joules": run.official_joules,
                "node_joules": run.node_joules,
                "switch_joules": run.switch_joules,
                "is_official": run.is_official,
                "physical_joules": run.physical_joules,
                "physical_expanded_joules": run.physical_expanded_joules,
                "physical_estimate_joules": run.physical_estimate_joules,
                "coverage": run.coverage,
                "difference": run.difference,
                "causes": cause_text(run.causes, run.physical_joules),
                "unread_lines": run.unread_lines,
            }
            for run in score.runs
        ]
        rows.append(
            named
            | {
                "kind": "training benchmark",
                "minutes": score.minutes,
                "official_joules": score.joules,
                "is_official": score.is_official,
                "scaling_factor": score.scaling_factor,
                "physical_joules": score.physical_joules,
                "physical_expanded_joules": score.physical_expanded_joules,
                "coverage": score.coverage,
                "difference": score.difference,
                "causes": cause_text(score.causes, score.physical_joules),
                "why_not": "; ".join(score.notes),
                "unread_lines": sum(run.unread_lines for run in score.runs),
            }
        )
        return rows

    def shorten(self) -> None:
        """Tables show no single logs."""
        for run in self.score.runs:
            run.logs = []


class _Training:
    rounds = ROUNDS
    columns = _COLUMNS

    def jobs(self, found: TrainingBenchmark, rules: str | None) -> list[Job]:
        rounds = rounds_to_score(found, rules)
        return [Job(score_run, (file, found.power_dir(file), rounds)) for file in found.result_files]

    def combine(
        self, found: TrainingBenchmark, outcomes: Sequence[dict[str, RunScore]], rules: str | None
    ) -> TrainingScore:
        return TrainingScore(score_benchmark(found, outcomes, rules))

    def show(self, scores: Sequence[TrainingScore], console: Console) -> None:
        for score in scores:
            _show_runs(score.score, console)
        _show_benchmarks([score.score for score in scores], console)


KIND = _Training()


def _run_json(run: RunScore) -> dict[str, Any]:
    content = dataclasses.asdict(run)
    content["causes"] = _causes_json(run.causes, run.physical_joules)
    content["difference"] = run.difference
    content["minutes"] = _minutes(run)
    return content


def _causes_json(causes: Sequence[Cause], physical_joules: float | None) -> list[dict[str, Any]]:
    return [
        {"kind": cause.kind, "joules": cause.joules, "share": cause.joules / physical_joules, "text": cause.text}
        for cause in causes
        if physical_joules
    ]


def _minutes(run: RunScore) -> float | None:
    return run.train_ms / 60 / 1000 if run.train_ms is not None else None


def _why_not(score: BenchmarkScore, run: RunScore) -> str:
    return "; ".join(filter(None, [score.dropped.get(run.name, ""), *run.problems]))


def _show_runs(score: BenchmarkScore, console: Console) -> None:
    found = score.found
    console.print()
    console.print(
        Text(plain(_names(found)), style="bold"), Text(f"  round {score.round} ({score.round_from})", style="dim")
    )
    table = _table("run", "", "minutes", "official", "physical ± U", "difference")
    prefix = _common_prefix([run.name for run in score.runs])
    for run in score.runs:
        dropped = score.dropped.get(run.name, "")
        table.add_row(
            plain(run.name[len(prefix) :]),
            Text(dropped, style="red" if dropped == "fails checks" else "dim"),
            _number(_minutes(run), ".4f"),
            _official(run.official_joules, run.is_official),
            _physical(run.physical_joules, run.physical_expanded_joules, bool(run.physical_estimate_joules)),
            _difference(run.difference),
            style="dim" if dropped else "",
        )
    table.add_section()
    table.add_row(
        "score",
        f"{len(score.counted)} of {len(score.runs)}",
        _number(score.minutes, ".4f"),
        _official(score.joules, score.is_official),
        _physical(score.physical_joules, score.physical_expanded_joules, score.physical_is_estimate),
        _difference(score.difference),
        style="bold",
    )
    console.print(table)
    if score.causes:
        console.print(Text(f"  why: {cause_text(score.causes, score.physical_joules)}"), soft_wrap=True)
    _show_notes(score, console)


def _names(found: TrainingBenchmark) -> str:
    return " · ".join(filter(None, (found.submitter, found.system, found.benchmark))) or str(found.path)


def _show_notes(score: BenchmarkScore, console: Console) -> None:
    notes = list(score.notes)
    notes += [f"{run.name} {problem}" for run in score.runs for problem in run.problems]
    by_note: dict[str, list[str]] = {}
    for run in score.runs:
        for note in run.notes:
            by_note.setdefault(note, []).append(run.name)
    notes += [f"{runs[0] if len(runs) == 1 else f'{len(runs)} runs'}, {note}" for note, runs in by_note.items()]
    if not score.found.has_power:
        notes.append("no folder power: time to train only")
    for note in notes[:_MOST_NOTES]:
        console.print(Text.assemble(("  note: ", "yellow"), plain(note)), soft_wrap=True)
    if len(notes) > _MOST_NOTES:
        console.print(f"  … and {len(notes) - _MOST_NOTES} more notes; --json has all", style="dim")


def _show_benchmarks(scores: Sequence[BenchmarkScore], console: Console) -> None:
    table = _table("benchmark", "round", "runs", "minutes", "official", "physical ± U", "difference")
    for score in scores:
        table.add_row(
            plain(_names(score.found)),
            score.round,
            f"{len(score.counted)}/{len(score.runs)}",
            _number(score.minutes, ".4f"),
            _official(score.joules, score.is_official),
            _physical(score.physical_joules, score.physical_expanded_joules, score.physical_is_estimate),
            _difference(score.difference),
        )
    console.print()
    console.print(Text("MLPerf Training scores", style="bold"))
    console.print(table)
    console.print(
        "official: by the formula of the round, mean of the runs that count, scaled. physical: energy inside "
        "run_start … run_stop, the same runs, not scaled.\nU: k = 2, without the meters' own accuracy, which the logs "
        "do not state.",
        style="dim",
        soft_wrap=True,
    )
    if any(not score.is_official for score in scores):
        console.print(
            "* the official code gives no figure here; this is what the rules define (see notes)", style="dim"
        )
    if any(score.physical_is_estimate for score in scores):
        console.print("ESTIMATE: a part of it was stated, not measured: the interconnect", style="yellow")


def _table(*header: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if number == 0 or not name else "right", overflow="fold")
        if number > 1 and name != _MAY_WRAP:
            table.columns[-1].no_wrap = True
            table.columns[-1].min_width = len(name)
    return table


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _official(joules: float | None, is_official: bool) -> str:
    """Seven digits: official figures have no uncertainty."""
    if joules is None:
        return "–"
    number, _, unit = figure_text(joules, abs(joules) * 2e-6, "J").replace(" ± ", "±").rpartition(" ")
    return f"{number.partition('±')[0]} {unit}{'' if is_official else '*'}"


def _physical(joules: float | None, expanded: float | None, is_estimate: bool) -> Text:
    if joules is None:
        return Text("–")
    return Text.assemble(figure_text(joules, expanded, "J"), (" ESTIMATE", "yellow") if is_estimate else "")


def _difference(share: float | None) -> Text:
    if share is None:
        return Text("–")
    return Text(f"{share:+.2%}", style="bold red" if abs(share) >= _ALARMING else "green")


def _common_prefix(names: Sequence[str]) -> str:
    """What all names begin with, but no digits of a number that differs; "" where a name would be all of it."""
    prefix = os.path.commonprefix(names).rstrip("0123456789") if len(names) > 1 else ""  # noqa: RUF071 (no paths)
    return prefix if all(len(name) > len(prefix) for name in names) else ""
