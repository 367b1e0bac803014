"""Phases that the workload marked itself: reads the files that `power_agent.marks` writes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from director.phases.sources import Problems
from power_agent.mark_file import MARKS_VERSION
from power_agent.messages import MarkEvent

_LONGEST_LINE = 1 << 20  # bytes; a mark takes at most a tenth of it


class _Header(msgspec.Struct, tag_field="op", tag="header"):
    version: int
    pid: int
    boot_id: str = ""
    rank: int | None = None
    lane: str | None = None


class _Begin(msgspec.Struct, tag_field="op", tag="begin"):
    t_ns: int
    name: str
    thread: int
    index: int | None = None
    rank: int | None = None
    work: dict[str, float] = {}
    attributes: dict[str, Any] = {}


class _End(msgspec.Struct, tag_field="op", tag="end"):
    t_ns: int
    name: str
    begin_ns: int | None = None  # of the phase object that ends; None: by name, in this thread
    thread: int | None = None
    index: int | None = None
    rank: int | None = None
    work: dict[str, float] = {}
    attributes: dict[str, Any] = {}
    error: str | None = None


class _Point(msgspec.Struct, tag_field="op", tag="point"):
    t_ns: int
    name: str
    thread: int
    index: int | None = None
    rank: int | None = None
    attributes: dict[str, Any] = {}


class _Lost(msgspec.Struct, tag_field="op", tag="lost"):
    count: int


_decode = msgspec.json.Decoder(_Begin | _End | _Point | _Lost | _Header).decode


def read(directory: Path, problems: Problems, boot_id: str | None = None) -> Iterator[MarkEvent]:
    """Yield the marks of every process that marked, file by file, in the order of writing.

    Args:
        directory: what POWER_AGENT_MARKS named.
        boot_id: of this host; marks of another host or another boot have another clock and are left out.
            None: do not compare.
    """
    seen_pids: dict[int, int] = {}
    for path in sorted(directory.glob("*.marks")):
        try:
            with path.open("rb") as file:
                lines = iter(partial(file.readline, _LONGEST_LINE), b"")
                yield from _File(path, problems, boot_id, seen_pids).read(lines)
        except OSError as error:
            problems.add(str(path), f"cannot be read: {error.strerror}")


class _File:
    def __init__(self, path: Path, problems: Problems, boot_id: str | None, seen_pids: dict[int, int]) -> None:
        self._path = path
        self._name = path.name
        self._problems = problems
        self._boot_id = boot_id
        self._seen_pids = seen_pids
        self._process = ""
        self._rank: int | None = None
        self._fixed_lane: str | None = None
        self._lanes: dict[int | None, str] = {}  # by thread
        self._open: dict[int, tuple[str, str]] = {}  # lane and key, by the instant at which a phase object began

    def read(self, lines: Iterator[bytes]) -> Iterator[MarkEvent]:
        lost = 0
        number = 0
        for line in lines:
            number += 1
            if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
                continue  # the last line of a process that was killed while it wrote
            try:
                mark = _decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if line.strip():
                    self._problems.add(f"{self._path}:{number}", f"is no mark and was left out ({error})")
                if number == 1:
                    return
                continue
            if number == 1:
                if not self._accept_header(mark):
                    return
            elif isinstance(mark, (_Begin, _End, _Point)):
                source = f"{self._name}:{number}"
                if isinstance(mark, _End) and mark.begin_ns is not None and mark.begin_ns not in self._open:
                    yield self._lost_begin(mark, mark.begin_ns, source)
                yield self._event(mark, source)
            elif isinstance(mark, _Lost):
                lost = max(lost, mark.count)
        if lost:
            self._problems.add(str(self._path), f"{lost} marks could not be written; was the disk full?")

    def _accept_header(self, header: object) -> bool:
        if not isinstance(header, _Header):
            self._problems.add(f"{self._path}:1", "is not the header of a marks file; the file was left out")
            return False
        if header.version > MARKS_VERSION:
            text = f"has version {header.version}, and {MARKS_VERSION} is the newest known here; the file was left out"
            self._problems.add(f"{self._path}:1", text)
            return False
        if self._boot_id and header.boot_id and header.boot_id != self._boot_id:
            text = "was written on another host or before a reboot, with another clock; the file was left out"
            self._problems.add(f"{self._path}:1", text)
            return False
        times = self._seen_pids[header.pid] = self._seen_pids.get(header.pid, 0) + 1
        self._process = str(header.pid) if times == 1 else f"{header.pid}({times})"  # a process number came again
        self._rank = header.rank
        if header.lane is not None:
            self._fixed_lane = header.lane if header.rank is None else f"{header.lane}:rank{header.rank}"
        return True

    def _lane(self, thread: int | None) -> str:
        """ "pid:n", where n counts the threads of the process by their first mark; or what the header says."""
        if self._fixed_lane is not None:
            return self._fixed_lane
        lane = self._lanes.get(thread)
        if lane is None:
            lane = self._lanes[thread] = f"{self._process}:{len(self._lanes)}"
        return lane

    def _lost_begin(self, end: _End, begin_ns: int, source: str) -> MarkEvent:
        """A begin that could not be written: its end says when it was."""
        lane, key = self._open[begin_ns] = self._lane(None), f"{self._name}:{begin_ns}"
        return MarkEvent(
            t_ns=begin_ns,
            clock="monotonic",
            op="begin",
            name=end.name,
            key=key,
            lane=lane,
            rank=self._rank,
            source=source,
        )

    def _event(self, mark: _Begin | _End | _Point, source: str) -> MarkEvent:
        attributes = mark.attributes
        work: dict[str, float] = {}
        key = ""
        op: Literal["begin", "end", "point"]
        if isinstance(mark, _Begin):
            op, work = "begin", mark.work
            lane, key = self._open[mark.t_ns] = self._lane(mark.thread), f"{self._name}:{mark.t_ns}"
        elif isinstance(mark, _End):
            op, work = "end", mark.work
            if mark.begin_ns is None:
                lane = self._lane(mark.thread)
            else:
                lane, key = self._open.pop(mark.begin_ns)
            if mark.error is not None:
                attributes = {**attributes, "error": mark.error}
        else:
            op, lane = "point", self._lane(mark.thread)
        return MarkEvent(
            t_ns=mark.t_ns,
            clock="monotonic",
            op=op,
            name=mark.name,
            index=mark.index,
            key=key,
            lane=lane,
            rank=self._rank if mark.rank is None else mark.rank,
            work=work,
            attributes=attributes,
            source=source,
        )
