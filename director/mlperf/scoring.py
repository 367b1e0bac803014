"""What `power-director score` asks of each kind of result, and which kinds there are.

A kind scores what `director.mlperf.finding` found: it names the jobs, independent pieces of work that run in several
processes, and combines what they return into one score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol, TypeAlias

from rich.console import Console

from director.mlperf.finding import InferenceSession, TrainingBenchmark

Row: TypeAlias = dict[str, str | float | int | bool | None]


class Job(NamedTuple):
    """A call that other processes can make: a function of a module, and arguments that can be pickled."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    bytes: int = 0  # about how much it reads, for the progress bar


class Score(Protocol):
    """The score of one found thing."""

    def to_json(self) -> dict[str, Any]:
        """Everything, with full precision; the key `kind` says what it is."""

    def to_rows(self) -> list[Row]:
        """For CSV. The column `kind` says what a row is about."""

    def shorten(self) -> None:
        """Forget what only `to_json` shows: many scores are kept until the tables are printed."""


class Kind(Protocol):
    """One kind of result. A module has one as its `KIND`."""

    rounds: Sequence[str]  # what --rules takes
    columns: Sequence[str]  # of `Score.to_rows`

    def jobs(self, found: Any, rules: str | None) -> list[Job]:
        """The work that scoring needs."""

    def combine(self, found: Any, outcomes: Sequence[Any], rules: str | None) -> Score:
        """The score, from what the jobs returned, in their order."""

    def show(self, scores: Sequence[Any], console: Console) -> None:
        """Print tables."""


_MODULES: dict[type, str] = {
    TrainingBenchmark: "director.mlperf.training.scoring",
    InferenceSession: "director.mlperf.inference.scoring",
}
FOUND_TYPES = (TrainingBenchmark, InferenceSession)


def kind_of(found_type: type) -> Kind | None:
    """The kind that scores what was found; None where none does."""
    module = _MODULES.get(found_type)
    if module is None:
        return None
    kind: Kind = import_module(module).KIND
    return kind


def all_kinds() -> list[Kind]:
    """Every kind there is."""
    return [kind for kind in map(kind_of, FOUND_TYPES) if kind is not None]
