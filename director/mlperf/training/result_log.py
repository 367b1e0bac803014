"""Result logs of MLPerf Training, `result_*.txt`: the MLLOG lines that decide what a run scores."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from director.mlperf.training.log_text import Unread, blocks, parse
from director.phases.sources.mllog import TOKEN, Entry

_AFTER_TOKEN = re.compile(TOKEN + rb"([^\n]*)")
_decode_lines = msgspec.json.Decoder(Entry).decode_lines


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
        NoLog: it is no log at all.
    """
    log = ResultLog(path)
    for first_line, block in blocks(path, log.unread):
        texts = _AFTER_TOKEN.findall(block)
        entries: list[Entry] | None = None
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            entries = _decode_lines(b"\n".join(texts))
        if entries is None or len(entries) != len(texts):  # white space alone is no line to msgspec
            entries = _one_by_one(log, first_line, block)
        log.lines += len(entries)
        log.entries += [entry for entry in entries if entry.key in wanted]
    return log


def _one_by_one(log: ResultLog, first_line: int, block: bytes) -> list[Entry]:
    entries = []
    for number, line in enumerate(block.split(b"\n"), start=first_line):
        entry = parse(line)
        if isinstance(entry, Entry):
            entries.append(entry)
        elif entry is not None:
            log.unread.add(number, entry)
    return entries
