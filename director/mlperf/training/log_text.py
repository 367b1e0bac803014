"""Bytes of logs that others wrote, in blocks of whole lines, and what one MLLOG line says.

Lines end at \\n, \\r\\n or \\r, and what counts is the text after the last ":::MLLOG " of a line, as in the official
parser (mlcommons/logging, compliance_checker/mlp_parser). Logs are Latin-1 or UTF-8; what matters here is ASCII.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from director.phases.sources.log_lines import finite
from director.phases.sources.mllog import TOKEN, Entry

BLOCK_BYTES = 1 << 19  # what is made of it stays in the cache: three times as fast as 4 MiB
_LONGEST_LINE_BYTES = 1 << 24
_MOST_NAMED = 20
_LFS = b"version https://git-lfs.github.com/spec/"
_LATEST_MS = 1e13  # since the epoch: the year 2286
_decode = msgspec.json.Decoder(Entry).decode


class UnreadableLog(Exception):
    """A file that is no log at all: why, and what to do."""


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
        UnreadableLog: the file cannot be opened or read, or only points to a file in Git LFS.
    """
    number = 1
    try:
        # A FIFO would keep us waiting for its writer. Opening through `open` costs a fifth of reading a short log.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise UnreadableLog(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableLog("is no regular file")
        at_once = min(BLOCK_BYTES, max(status.st_size, 1 << 12))
        whole = rest = b""
        while data := os.read(file, at_once):
            if number == 1 and not rest and data.startswith(_LFS):
                raise UnreadableLog("is a Git LFS pointer, not the log; fetch it with `git lfs pull`")
            end = data.rfind(b"\n") + 1
            if not end:
                rest += data
                if len(rest) > _LONGEST_LINE_BYTES:
                    unread.add(number, f"line is longer than {len(rest) >> 20} MiB; it was left out")
                    number, rest = number + 1, _after_line(file)
                continue
            number += whole.count(b"\n")
            whole = _unix(rest + data[:end] if rest else data[:end])
            rest = data[end:]
            yield number, whole
        if rest:
            yield number + whole.count(b"\n"), _unix(rest + b"\n")
    except OSError as error:
        raise UnreadableLog(f"cannot be read: {error.strerror}") from None
    finally:
        os.close(file)


def _unix(block: bytes) -> bytes:
    """A \\r before \\n stays: it is white space to JSON. One on its own ends a line, as under the bars of tqdm."""
    if b"\r" not in block:
        return block
    text = np.frombuffer(block, dtype=np.uint8)
    if not ((text[:-1] == 13) > (text[1:] == 10)).any():
        return block
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _after_line(file: int) -> bytes:
    """Skip to the end of a line that is too long to be one. Returns what was read after it."""
    while data := os.read(file, BLOCK_BYTES):
        end = data.find(b"\n") + 1
        if end:
            return data[end:]
    return b""


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
        except (ValueError, TypeError, KeyError, RecursionError) as error:
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
