"""What the user asks of a run: every option of `power-director run`, checked as far as text alone allows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from director.answers.questions import NO_QUESTIONS, Questions
from director.session.manifest import Factors


class UsageError(Exception):
    """The user asked for something that cannot be: what, and what to do. Nothing was run."""


@dataclass(frozen=True)
class ReportOptions:
    """How results are shown."""

    json: str | None = None  # a file, "-" for standard output
    quiet: bool = False
    explain: bool = False
    page_required: bool = False  # without the page the report has failed
    questions: Questions = NO_QUESTIONS


@dataclass(frozen=True)
class RunOptions:
    """One run, or a series of equal ones."""

    argv: list[str]  # empty: nothing is run, a replayed trace alone is the session
    output: Path | None = None
    label: str = ""
    drivers: list[str] | None = None
    rates_hz: dict[str, float] = field(default_factory=dict)
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    root: Path = Path("/")
    idle_s: float = 0.0
    repeat: int = 1
    mllog: str | None = None
    loadgen: str | None = None
    phase_patterns: list[str] = field(default_factory=list)  # NAME=REGEX
    phase_log: str | None = None
    replay: Path | None = None
    replay_speed: float = 1.0
    factors: Factors = field(default_factory=Factors)
    use_characteristics: bool = True  # what was found out about channels before
    live: bool | None = None  # figures meanwhile; None: only where they cannot disturb the job's output
    report: ReportOptions = ReportOptions()
