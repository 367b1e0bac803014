"""Logs that others wrote, in blocks of whole lines, and what one MLLOG line says.

Of a line counts the text after the last ":::MLLOG ", as in the official parser (mlcommons/logging,
compliance_checker/mlp_parser). Logs are Latin-1 or UTF-8; what matters here is ASCII.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from director.mlperf.text_blocks import text_blocks
from director.phases.sources.log_lines import finite
from director.phases.sources.mllog import TOKEN, Entry

BLOCK_BYTES = 1 << 19  # what is made of it stays in the cache: three times as fast as 4 MiB
_MOST_NAMED = 20
_LATEST_MS = 1e13  # since the epoch: the year 2286
_decode = msgspec.json.Decoder(Entry).decode


@dataclass
class Unread:
    """Lines of a file that could not be read: how many, and the first twenty as (line number, why)."""

    count: int = 0
    named: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, why: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.named) < _MOST_NAMED:
            self.named.append((line, why))


def blocks(path: Path, unread: Unread) -> Iterator[tuple[int, bytes]]:
    """Yield the number of the first line of each block, and the block: whole lines, each ended by \\n.

    Raises:
        NoLog: see `text_blocks`; an empty file has no block.
    """
    for block in text_blocks(path, BLOCK_BYTES, may_be_empty=True):
        if block.cut_line is not None:
            unread.add(block.cut_line, f"line is longer than {len(block.text) >> 20} MiB; it was left out")
        else:
            yield block.first_line, block.text if block.text.endswith(b"\n") else block.text + b"\n"


def parse(line: bytes) -> Entry | str | None:
    """What a line says; None where it is no MLLOG line; why where it cannot be read.

    The JSON may hold NaN and Infinity, and a time in quotes, as with the official parser.
    """
    _, token, text = line.rpartition(TOKEN)
    if not token:
        return None
    try:
        entry = _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            entry = _lenient(json.loads(text.decode("latin-1").strip()))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            return f"is no valid MLLOG line ({_short(error)})"
    if not abs(entry.time_ms) < _LATEST_MS:  # true for NaN, too
        return f"has the impossible time_ms {entry.time_ms:g}"
    return entry


def _lenient(content: Any) -> Entry:
    key = content["key"]
    if not isinstance(key, str):
        raise TypeError("key is no text")
    return Entry(key, float(content["time_ms"]), content.get("value"), content.get("metadata"))


def _short(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return " ".join(str(error).split())[:100] or type(error).__name__


def number(entry: Entry) -> float | None:
    """The value of an entry as a finite number; None for anything else."""
    return finite(entry.value)
