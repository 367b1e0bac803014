"""Result logs of MLPerf Training, `result_*.txt`: the MLLOG lines that decide what a run scores."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

from director.mlperf.training.log_text import Unread, blocks, parse
from director.phases.sources.mllog import TOKEN, Entry


@dataclass
class ResultLog:
    """One result log. `entries` hold the wanted keys, in the order of the file; `lines` counts all MLLOG lines."""

    path: Path
    entries: list[Entry] = field(default_factory=list)
    unread: Unread = field(default_factory=Unread)
    lines: int = 0

    def run_ms(self) -> tuple[float | None, float | None]:
        """Times of run_start and run_stop: the last of each up to where both are known, as in the official code."""
        start = stop = None
        for entry in self.entries:
            if entry.key == "run_start":
                start = entry.time_ms
            elif entry.key == "run_stop":
                stop = entry.time_ms
            if start is not None and stop is not None:
                break
        return start, stop


def read_result_log(path: Path, wanted: Container[str]) -> ResultLog:
    """Read the entries whose key is wanted.

    Raises:
        UnreadableLog: it is no log at all.
    """
    log = ResultLog(path)
    for first_line, block in blocks(path, log.unread):
        at = block.find(TOKEN)
        while at >= 0:
            end = block.index(b"\n", at)
            entry = parse(block[at:end])
            if isinstance(entry, Entry):
                log.lines += 1
                if entry.key in wanted:
                    log.entries.append(entry)
            elif entry is not None:
                log.unread.add(first_line + block.count(b"\n", 0, at), entry)
            at = block.find(TOKEN, end)
    return log
