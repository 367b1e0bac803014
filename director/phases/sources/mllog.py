"""Phases from MLPerf Training logs: lines `:::MLLOG {json}`, whatever a launcher put before them.

`X_start` and `X_stop` of init, staging, run, epoch, block and eval make phases of the name X; `eval_accuracy` makes
points. Instants are wall time in milliseconds. Which keys exist and what their metadata mean: mlcommons/logging,
`mllog/constants.py` and the rules of its compliance checker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from director.phases.sources import IsEarly, Problems
from director.phases.sources.log_lines import cut_lines, finite
from power_agent.messages import MarkEvent

TOKEN = b":::MLLOG "
_LONGEST_LINE = 1 << 24  # bytes; LoadGen lists its samples in one line
_LATEST_MS = 1e13  # since the epoch: the year 2286
_PHASES = ("init", "staging", "run", "epoch", "block", "eval")
_EDGES = {f"{name}_{edge}": (name, edge == "start") for name in _PHASES for edge in ("start", "stop")}
_INDEX_KEYS = ("epoch_num", "first_epoch_num")
_RUN_KEYS = (  # values that describe the run; they become its attributes
    "submission_benchmark",
    "global_batch_size",
    "gradient_accumulation_steps",
    "train_samples",
    "eval_samples",
    "seed",
)
# What launchers put before a line: srun -l "3: ", Open MPI "[1,3]<stdout>:", torchrun "[rank3]:"; or a host "node03: ".
_RANK_PREFIX = re.compile(r"\s*(?:(\d+)\s*:|\[\d+,(\d+)\]<std(?:out|err)>:|\[rank(\d+)\]:)\s*")
_WORD_PREFIX = re.compile(r"\s*([\w.\[\]-]{1,64})\s*[:|]\s*")


class Entry(msgspec.Struct):
    """One line: `time_ms` is milliseconds since the epoch in training logs."""

    key: str
    time_ms: float
    value: Any = None
    metadata: Any = None


_decode = msgspec.json.Decoder(Entry).decode


def entries(path: Path, problems: Problems) -> Iterator[tuple[int, str, Entry]]:
    """Every MLLOG line of a file: its number, what stood before it, and its content.

    Text before the last ":::MLLOG " of a line is its prefix, as in the official parser.
    """
    try:
        with path.open("rb") as file:
            for number, (_, line) in enumerate(cut_lines(file, _LONGEST_LINE), start=1):
                prefix, token, text = line.rpartition(TOKEN)
                if not token:
                    continue
                entry = _parse(text)
                if entry is None:
                    problems.add(f"{path}:{number}", "is no valid MLLOG line and was left out")
                else:
                    yield number, prefix.decode("latin-1"), entry
    except OSError as error:
        problems.add(str(path), f"cannot be read: {error.strerror}")


def _parse(text: bytes) -> Entry | None:
    """Logs are UTF-8, or Latin-1 where somebody's path has an accent."""
    for candidate in (text, text.decode("latin-1").encode()):
        try:
            entry = _decode(candidate)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        return entry if abs(entry.time_ms) < _LATEST_MS else None  # false for what is not a number, too
    return None


def read(path: Path, problems: Problems, is_early: IsEarly | None = None) -> Iterator[MarkEvent]:
    """Yield the phases and points of a training log, in order of time.

    Args:
        is_early: tells lines of runs before the measured time, which the same log may hold.
    """
    found = [_Line(number, *_who(prefix), entry) for number, prefix, entry in entries(path, problems)]
    at_ns = np.array([line.t_ns for line in found], dtype=np.int64)
    if is_early is not None and found:
        at_ns, early = is_early(at_ns)
        for place in np.flatnonzero(early).tolist():
            found[place] = replace(found[place], early=True)
    found = [found[place] for place in np.argsort(at_ns, kind="stable").tolist()]  # ranks write late
    attributes: dict[str, Any] = {}
    for line in sorted(found, key=lambda line: line.early):
        if line.entry.key in _RUN_KEYS and line.entry.value is not None:
            attributes.setdefault(line.entry.key, line.entry.value)
    return _Pairing(path, attributes).events(found)


@dataclass(frozen=True)
class _Line:
    number: int
    lane: str
    rank: int | None
    entry: Entry
    early: bool = False  # of a run before the measured one

    @property
    def t_ns(self) -> int:
        return round(self.entry.time_ms * 1000) * 1000  # floats hold today's microseconds, not nanoseconds

    @property
    def metadata(self) -> dict[str, Any]:
        return self.entry.metadata if isinstance(self.entry.metadata, dict) else {}

    @property
    def _index_keys(self) -> tuple[str, ...]:
        # A run has no number; at its stop some write how many epochs it took.
        return () if self.entry.key in ("run_start", "run_stop") else _INDEX_KEYS

    @property
    def index(self) -> int | None:
        for key in self._index_keys:
            number = finite(self.metadata.get(key))
            if number is not None and number == int(number):
                return int(number)
        return None

    @property
    def samples_count(self) -> float | None:
        """Training samples processed since the start of the run, up to this line."""
        return finite(self.metadata.get("samples_count"))

    @property
    def attributes(self) -> dict[str, Any]:
        kept = {key: value for key, value in self.metadata.items() if key not in ("file", "lineno", *self._index_keys)}
        return kept if self.entry.value is None else {**kept, "value": self.entry.value}


def _who(prefix: str) -> tuple[str, int | None]:
    """Lane and rank of a line from the text before it; other text, such as a time stamp, says nothing."""
    match = _RANK_PREFIX.fullmatch(prefix)
    if match:
        rank = next(group for group in match.groups() if group is not None)
        if len(rank) < 10:
            return f"rank{int(rank)}", int(rank)
    match = _WORD_PREFIX.fullmatch(prefix)
    return (match[1] if match else "mllog"), None


@dataclass(frozen=True)
class _Open:
    begin: MarkEvent
    samples_count: float | None
    early: bool


class _Pairing:
    """Pairs starts with stops. Several ranks may print the same edge, and one may print the stop of another's start."""

    def __init__(self, path: Path, run_attributes: dict[str, Any]) -> None:
        self._path = path
        self._run_attributes = run_attributes
        self._open: dict[str, dict[tuple[str, int | None], _Open]] = {}  # by phase name, then lane and index
        self._ended: set[tuple[str, int | None]] = set()  # names and indexes
        self._samples_count = 0.0  # the largest so far

    def events(self, lines: Iterable[_Line]) -> Iterator[MarkEvent]:
        for line in lines:
            if not line.early:
                self._samples_count = max(self._samples_count, line.samples_count or 0.0)
            name, is_start = _EDGES.get(line.entry.key, ("", False))
            if line.entry.key == "eval_accuracy":
                yield self._event(line, "point", "eval_accuracy", attributes=line.attributes)
            elif name and is_start:
                self._start(line, name)
            elif name:
                yield from self._stop(line, name)
        for name, opened in self._open.items():
            for phase in opened.values():
                # Often every rank prints the start, and only one the stop.
                if (name, phase.begin.index) not in self._ended:
                    yield phase.begin

    def _start(self, line: _Line, name: str) -> None:
        opened = self._open.setdefault(name, {})
        former = opened.get((line.lane, line.index))
        if former is not None and (line.early or not former.early):
            return  # several processes print into one stream without saying who they are
        attributes = {**self._run_attributes, **line.attributes} if name == "run" else line.attributes
        begin = self._event(line, "begin", name, key=f"{self._path.name}:{line.number}", attributes=attributes)
        opened[line.lane, line.index] = _Open(begin, line.samples_count, line.early)

    def _stop(self, line: _Line, name: str) -> Iterator[MarkEvent]:
        if name not in self._open:  # the log begins in the middle
            yield self._event(line, "end", name, attributes=line.attributes)
            return
        phase = self._take(line, self._open[name])
        if phase is not None:
            if not line.early:
                self._ended.add((name, phase.begin.index))
            yield phase.begin
            work = self._work(line, name, phase)
            yield self._event(line, "end", name, key=phase.begin.key, work=work, attributes=line.attributes)

    def _take(self, line: _Line, opened: dict[tuple[str, int | None], _Open]) -> _Open | None:
        """The open phase that a stop means; None: another process has said the same before.

        That of its lane and index, or else the last of its lane (phases of one name do not nest in MLLOG, and some
        benchmarks number stops unlike starts), or else that of its index in another lane.
        """
        found = opened.get((line.lane, line.index))
        if found is None:
            found = next((phase for phase in reversed(opened.values()) if phase.begin.lane == line.lane), None)
        if found is None:
            found = next((phase for phase in opened.values() if phase.begin.index == line.index), None)
        return None if found is None else opened.pop((found.begin.lane, found.begin.index))

    def _work(self, line: _Line, name: str, phase: _Open) -> dict[str, float]:
        """Training samples of a phase: how far the count went up. An evaluation only repeats it."""
        if name == "run":
            return {"samples": self._samples_count} if self._samples_count > 0 else {}
        if name not in ("epoch", "block") or line.samples_count is None or phase.samples_count is None:
            return {}
        samples = line.samples_count - phase.samples_count
        return {"samples": samples} if samples > 0 else {}  # a count that stands still was not meant as one

    def _event(
        self,
        line: _Line,
        op: Literal["begin", "end", "point"],
        name: str,
        *,
        key: str = "",
        work: dict[str, float] | None = None,
        attributes: dict[str, Any],
    ) -> MarkEvent:
        return MarkEvent(
            t_ns=line.t_ns,
            clock="wall",
            op=op,
            name=name,
            index=line.index,
            key=key,
            lane=line.lane,
            rank=line.rank,
            work=work or {},
            attributes=attributes,
            source=f"{self._path.name}:{line.number}",
        )
