"""`power-director score`: find results under paths, score them on all cores, print tables, write JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

from rich.console import Console

from director.mlperf.finding import Unreadable, find
from director.mlperf.scoring import Kind, Score, all_kinds, kind_of
from director.mlperf.workers import Bar, Workers


class ScoreFailed(Exception):
    """The text for the user, and the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class ScoreOptions:
    """What the user asked for."""

    paths: Sequence[Path]
    rules: str | None = None
    json: str | None = None  # file name; "-": standard output
    csv: str | None = None


@dataclass
class _Waiting:
    """Something found, and its jobs."""

    found: Any
    kind: Kind
    futures: list[Future[Any]] = field(default_factory=list)


def score(options: ScoreOptions) -> int:
    """Returns the exit status: 0; 1 where something under the paths could not be read.

    Raises:
        ScoreFailed: there is nothing to score, or an output cannot be written.
    """
    kinds = all_kinds()
    if options.rules is not None and not any(options.rules in kind.rounds for kind in kinds):
        known = sorted({name for kind in kinds for name in kind.rounds})
        raise ScoreFailed(f"--rules {options.rules} is no round; there are {', '.join(known)}", 2)
    unreadable: list[Unreadable] = []
    scores: dict[int, tuple[Kind, list[Score]]] = {}
    with ExitStack() as stack:
        outputs = [stack.enter_context(_Output(name, form, kinds)) for name, form in _outputs(options)]
        for kind, one in _scores(options, unreadable):
            for output in outputs:
                output.add(one)
            one.shorten()
            scores.setdefault(id(kind), (kind, []))[1].append(one)
        if not scores:
            why = "".join(f"\n  {item.path} {item.why}" for item in unreadable)
            raise ScoreFailed(f"nothing to score under {', '.join(map(str, options.paths))}{why}")
        to_stdout = "-" in (options.json, options.csv)
        console = Console(stderr=to_stdout, highlight=False, markup=False, width=_width(to_stdout))
        for kind, found in scores.values():
            kind.show(found, console)
        for item in unreadable:
            print(f"power-director: {item.path} {item.why}", file=sys.stderr)
        for output in outputs:
            output.finish()
    return 1 if unreadable else 0


def _width(to_stderr: bool) -> int | None:
    """A file or pipe takes whole lines; a terminal its own width."""
    return None if (sys.stderr if to_stderr else sys.stdout).isatty() else 200


def _scores(options: ScoreOptions, unreadable: list[Unreadable]) -> Iterator[tuple[Kind, Score]]:
    """Scores in the order of the paths."""
    waiting: deque[_Waiting] = deque()
    with Workers() as workers, Bar("scoring", "runs") as bar:
        for found in find(options.paths):
            kind = kind_of(type(found))
            if kind is None:
                unreadable.append(
                    found if isinstance(found, Unreadable) else Unreadable(found.path, "cannot be scored yet")
                )
                continue
            if options.rules is not None and options.rules not in kind.rounds:
                unreadable.append(Unreadable(found.path, f"has no rules {options.rules}; left out"))
                continue
            item = _Waiting(found, kind)
            waiting.append(item)
            jobs = kind.jobs(found, options.rules)
            bar.more(len(jobs))
            item.futures += [bar.watch(workers.submit(job)) for job in jobs]
            while waiting and all(future.done() for future in waiting[0].futures):
                yield _combined(waiting.popleft(), options)
        while waiting:
            yield _combined(waiting.popleft(), options)


def _combined(item: _Waiting, options: ScoreOptions) -> tuple[Kind, Score]:
    try:
        outcomes = [future.result() for future in item.futures]
    except BrokenProcessPool:
        raise ScoreFailed(
            f"a process that scored {item.found.path} was killed; where memory is short, score less at a time"
        ) from None
    return item.kind, item.kind.combine(item.found, outcomes, options.rules)


def _outputs(options: ScoreOptions) -> list[tuple[str, str]]:
    wanted = ((options.json, "json"), (options.csv, "csv"))
    return [(name, form) for name, form in wanted if name is not None]


class _Output:
    """JSON or CSV, in a temporary file until all scores are in it: memory does not grow, no half file is left."""

    def __init__(self, name: str, form: str, kinds: Sequence[Kind]) -> None:
        self._name, self._form = name, form
        self._file: TextIO = io.TextIOWrapper(TemporaryFile(), encoding="utf-8", newline="")  # noqa: SIM115 (closed by __exit__)
        self._count = 0
        columns = list(dict.fromkeys(column for kind in kinds for column in kind.columns))
        self._rows = csv.DictWriter(self._file, columns, restval="")

    def __enter__(self) -> _Output:
        if self._form == "csv":
            self._rows.writeheader()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, one: Score) -> None:
        if self._form == "csv":
            self._rows.writerows({key: _cell(value) for key, value in row.items()} for row in one.to_rows())
        else:
            self._file.write("[\n" if not self._count else ",\n")
            json.dump(one.to_json(), self._file, allow_nan=False)
        self._count += 1

    def finish(self) -> None:
        """Write all to where the user wants it.

        Raises:
            ScoreFailed: that is not possible.
        """
        if self._form == "json":
            self._file.write("\n]\n")
        self._file.seek(0)
        try:
            if self._name == "-":
                shutil.copyfileobj(self._file, sys.stdout)
                sys.stdout.flush()
            else:
                with Path(self._name).open("w", encoding="utf-8", newline="") as target:
                    shutil.copyfileobj(self._file, target)
        except OSError as error:
            raise ScoreFailed(f"{self._name} cannot be written: {error.strerror}") from None


def _cell(value: object) -> object:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else value
