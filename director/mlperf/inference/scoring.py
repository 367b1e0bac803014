"""MLPerf Inference in `power-director score`: jobs, tables, and rows for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from director.answers.number_text import figure_text
from director.mlperf.difference import cause_text, plain
from director.mlperf.finding import InferenceSession
from director.mlperf.inference.rules import RULES
from director.mlperf.inference.session_score import SessionScore, score_session
from director.mlperf.scoring import Job, Row

_COLUMNS = (
    *("kind", "submitter", "system", "benchmark", "scenario", "log_scenario", "inferred", "round", "performance_key"),
    *("performance", "performance_unit", "average_watts", "samples", "duration_s", "power_metric", "power_metric_unit"),
    *("efficiency", "efficiency_unit", "efficiency_is_official", "official_joules", "physical_joules"),
    *("physical_expanded_joules", "coverage", "difference", "causes", "official_code_stops", "analyzers"),
    *("unread_lines", "notes", "path"),
)
_MOST_NOTES = 12  # in the terminal, of all sessions
_ALARMING = 0.01  # difference; as for training


class InferenceScore:
    """A `director.mlperf.scoring.Score`."""

    def __init__(self, score: SessionScore) -> None:
        self.score = score

    def to_json(self) -> dict[str, Any]:
        """As in CSV, with notes, problems and causes as lists."""
        score, physical = self.score, self.score.physical
        (row,) = self.to_rows()
        content: dict[str, Any] = dict(row)
        content["notes"] = score.notes
        content["problems"] = score.problems
        content["round_from"] = score.round_from
        content["clock_shift_s"] = score.clock_shift_s
        content["meter_accuracy_from"] = physical.accuracy_from if physical is not None else ""
        content["causes"] = [
            {"joules": cause.joules, "share": cause.joules / joules, "text": cause.text}
            for joules in [score.physical_joules]
            if joules
            for cause in score.causes
        ]
        return content

    def to_rows(self) -> list[Row]:
        """One row. Figures in watts, joules, seconds and the units that stand beside them."""
        score, physical = self.score, self.score.physical
        return [
            {
                "kind": "inference session",
                "submitter": score.found.submitter,
                "system": score.found.system,
                "benchmark": score.found.benchmark,
                "scenario": score.scenario,
                "log_scenario": score.log_scenario,
                "inferred": score.inferred,
                "round": score.round,
                "performance_key": score.performance_key,
                "performance": score.performance,
                "performance_unit": score.performance_unit,
                "average_watts": score.average_watts,
                "samples": score.samples,
                "duration_s": score.duration_s,
                "power_metric": score.power_metric,
                "power_metric_unit": score.power_metric_unit,
                "efficiency": score.efficiency,
                "efficiency_unit": score.efficiency_unit,
                "efficiency_is_official": score.efficiency_is_official,
                "official_joules": score.official_joules,
                "physical_joules": score.physical_joules,
                "physical_expanded_joules": physical.expanded_joules if physical is not None else None,
                "coverage": physical.coverage if physical is not None else None,
                "difference": score.difference,
                "causes": cause_text(score.causes, score.physical_joules),
                "official_code_stops": score.official_code_stops,
                "analyzers": score.analyzers,
                "unread_lines": score.unreadable_lines,
                "notes": "; ".join(score.notes),
                "path": str(score.found.path),
            }
        ]

    def shorten(self) -> None:
        """The notes of a session are as short as its table row."""


class _Inference:
    rounds = tuple(RULES)
    columns = _COLUMNS

    def jobs(self, found: InferenceSession, rules: str | None) -> list[Job]:
        return [Job(score_session, (found, rules))]

    def combine(self, found: InferenceSession, outcomes: Sequence[SessionScore], rules: str | None) -> InferenceScore:
        return InferenceScore(outcomes[0])

    def show(self, scores: Sequence[InferenceScore], console: Console) -> None:
        _show([score.score for score in scores], console)


KIND = _Inference()


def _show(scores: Sequence[SessionScore], console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("session", overflow="fold")
    table.add_column("round")
    for name in ("performance", "power", "efficiency", "physical energy ± U", "coverage", "difference"):
        table.add_column(name, justify="right", overflow="fold")
    for score in scores:
        physical = score.physical
        table.add_row(
            plain(_name(score)),
            score.round,
            _figure(score.performance, score.performance_unit),
            _figure(score.power_metric, score.power_metric_unit, "*" if score.official_code_stops else ""),
            _figure(score.efficiency, score.efficiency_unit, "" if score.efficiency_is_official else "†"),
            figure_text(physical.joules, physical.expanded_joules, "J") if physical and physical.joules else "–",
            f"{physical.coverage:.1%}" if physical else "–",
            _difference(score.difference),
        )
    console.print()
    console.print(Text("MLPerf Inference power", style="bold"))
    console.print(table)
    _show_notes(scores, console)
    console.print(
        "performance, power, efficiency: by the formulas of the round. physical energy: inside power_begin … "
        "power_end; U: k = 2.\ndifference: official average watts × duration over it, less 1.",
        style="dim",
        soft_wrap=True,
    )
    if any(score.official_code_stops for score in scores):
        console.print(
            "* the official code gives no number here; this is what its formula gives without that line", style="dim"
        )
    if any(score.efficiency is not None and not score.efficiency_is_official for score in scores):
        console.print("† the official code of this round prints no efficiency; performance per watt", style="dim")


def _show_notes(scores: Sequence[SessionScore], console: Console) -> None:
    notes: list[str] = []
    for score in scores:
        own = []
        if score.difference is not None and abs(score.difference) >= _ALARMING / 10:
            own.append(f"why {score.difference:+.2%}: {cause_text(score.causes, score.physical_joules)}")
        if score.official_code_stops:
            own.append(f"the official code stops: {score.official_code_stops}")
        own += [*score.notes, *score.problems]
        notes += [f"{_name(score)}: {text}" for text in own]
    for note in notes[:_MOST_NOTES]:
        console.print(Text.assemble(("  note: ", "yellow"), plain(note)), soft_wrap=True)
    if len(notes) > _MOST_NOTES:
        console.print(f"  … and {len(notes) - _MOST_NOTES} more notes; --json has all", style="dim")


def _name(score: SessionScore) -> str:
    found = score.found
    scenario = f"{score.scenario} (from {score.log_scenario})" if score.inferred else score.scenario
    names = [name for name in (found.submitter, found.system, found.benchmark) if name] or [found.path.name]
    return " · ".join([*names, scenario])


def _figure(value: float | None, unit: str, mark: str = "") -> str:
    """Seven digits: official figures have no uncertainty."""
    return "–" if value is None else f"{value:.7g} {unit}{mark}"


def _difference(share: float | None) -> Text:
    if share is None:
        return Text("–")
    return Text(f"{share:+.3%}", style="bold red" if abs(share) >= _ALARMING else "green")
