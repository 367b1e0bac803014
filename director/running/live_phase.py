"""The phase that a workload is in, from the marks that it has just written."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

MOST_FILES = 1024  # of more processes nothing is told
MOST_BYTES = 16 << 10  # read in one look; of a workload that marks more in a second, only the newest are read
MOST_OPEN = 64  # phases of one thread


class _Mark(msgspec.Struct):
    op: str
    name: str = ""
    t_ns: int = 0
    thread: int | None = None
    begin_ns: int | None = None
    index: int | None = None
    lane: str | None = None


_decode = msgspec.json.Decoder(_Mark).decode


class LivePhase:
    """Follows the mark files of a session. Nothing raises; a look costs the same however many marks there are."""

    def __init__(self, marks: Path) -> None:
        self._marks = marks
        self._offsets: dict[str, int] = {}
        self._lanes: dict[str, str] = {}  # by file: of those whose marks belong to phases of other files, too
        self._open: dict[tuple[str, int | None], list[_Mark]] = {}  # by file or lane and thread, outermost first

    def look(self) -> str:
        """`epoch 3 › eval`: the innermost phase that began last, and what it lies in; empty where none is open."""
        left = MOST_BYTES
        fresh: list[tuple[str, _Mark]] = []
        for name, size in self._sizes():
            if size > self._offsets.get(name, 0) and left > 0:
                left -= self._read(name, size, left, fresh)
        # A shell's marks come from a process, and so from a file, each; headers tell no time and come first.
        for name, mark in sorted(fresh, key=lambda found: found[1].t_ns):
            self._take(name, mark)
        stacks = [stack for stack in self._open.values() if stack]
        if not stacks:
            return ""
        newest = max(stacks, key=lambda stack: stack[-1].t_ns)
        return " › ".join(_title(mark) for mark in newest[-2:])

    def _sizes(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        try:
            with os.scandir(self._marks) as entries:
                for entry in entries:
                    if entry.name.endswith(".marks"):
                        found.append((entry.name, entry.stat().st_size))
                    if len(found) > MOST_FILES:
                        self._open.clear()
                        return []
        except OSError:
            pass
        return found

    def _read(self, name: str, size: int, most: int, fresh: list[tuple[str, _Mark]]) -> int:
        begin = self._offsets.get(name, 0)
        skipped = size - begin > most
        try:
            with (self._marks / name).open("rb") as file:
                file.seek(max(begin, size - most))
                content = file.read(most)
        except OSError:
            return 0
        whole = content[: content.rfind(b"\n") + 1]
        self._offsets[name] = max(begin, size - most) + (len(whole) or (len(content) if skipped else 0))
        lines = whole.splitlines()
        if skipped:  # what ended in between is not known, and the first line is a part of one
            lines = lines[1:]
            for key in [key for key in self._open if key[0] == name]:
                del self._open[key]
        for line in lines:
            try:
                fresh.append((name, _decode(line)))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
        return len(content)

    def _take(self, file: str, mark: _Mark) -> None:
        lane = self._lanes.get(file)
        where, thread = (file, mark.thread) if lane is None else (lane, None)
        if mark.op == "header" and mark.lane is not None:
            self._lanes[file] = mark.lane
        elif mark.op == "begin":
            stack = self._open.setdefault((where, thread), [])
            stack.append(mark)
            del stack[:-MOST_OPEN]
        elif mark.op == "end":
            # An end that names the instant of its begin may come from another thread.
            for key in [(where, thread)] if mark.begin_ns is None else [k for k in self._open if k[0] == where]:
                stack = self._open.get(key, [])
                place = next((i for i in reversed(range(len(stack))) if _ends(mark, stack[i])), None)
                if place is not None:
                    del stack[place]
                    return


def _ends(end: _Mark, begin: _Mark) -> bool:
    if end.begin_ns is not None:
        return end.begin_ns == begin.t_ns
    return end.name == begin.name and (end.index is None or begin.index is None or end.index == begin.index)


def _title(mark: _Mark) -> str:
    return mark.name if mark.index is None else f"{mark.name} {mark.index}"
