"""Log files of any size in blocks of whole lines, in bounded memory.

Lines end as in Python's text files: at LF, CR LF or CR. Blocks come with LF or CR LF.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK_BYTES = 1 << 22
LONGEST_LINE_BYTES = 1 << 24  # LoadGen lists its samples in one line; what is longer is cut off here
_LF, _CR = 10, 13
_POINTERS = (
    (b"version https://git-lfs.github.com/spec/", "Git LFS", "git lfs pull"),
    (b"/annex/objects/", "git-annex", "git annex get"),
)


class NoLog(Exception):
    """A file that holds nothing to read: which, and why."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} {why}")
        self.path = path
        self.why = why


@dataclass
class Block:
    """Consecutive whole lines."""

    first_line: int  # its number, from 1
    text: bytes
    cut_line: int | None = None  # number of a line that was too long; the block holds its beginning


def text_blocks(path: Path, at_once: int | None = None, *, may_be_empty: bool = False) -> Iterator[Block]:
    """Yield a log's blocks, in order.

    Args:
        path: of the log.
        at_once: bytes that are read at once; None: `BLOCK_BYTES`.
        may_be_empty: an empty file has no block.

    Raises:
        NoLog: the file is missing, cannot be read, is empty, no regular file, or stands for a file kept elsewhere.
    """
    try:
        # A FIFO would keep us waiting for its writer. Opening through `open` costs a fifth of reading a short log.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise NoLog(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise NoLog(path, "is no regular file")
        is_empty = True
        for block in _lines(path, _chunks(file, at_once or BLOCK_BYTES, status.st_size)):
            is_empty = False
            yield block
        if is_empty and not may_be_empty:
            raise NoLog(path, "is empty")
    except OSError as error:
        raise NoLog(path, f"cannot be read: {error.strerror}") from error
    finally:
        os.close(file)


def _chunks(file: int, at_once: int, size: int) -> Iterator[bytes]:
    """The bytes of a file. Asks for no more than there should be: memory for a block costs more than a small log."""
    while chunk := os.read(file, min(at_once, max(size, 0) + 1)):
        size -= len(chunk)
        yield chunk


def _lines(path: Path, chunks: Iterator[bytes]) -> Iterator[Block]:
    number, uncounted = 1, b""
    rest = b""
    dropping = False  # inside a line that was too long
    for at, chunk in enumerate(chunks):
        if at == 0:
            _refuse_pointer(path, chunk)
        if dropping:
            _, found, chunk = _end_of_line(chunk)
            dropping = not found
        text = rest + chunk
        whole = text.rfind(b"\n") + 1
        if not whole:  # a CR at the very end may belong to a LF that comes next
            whole = text.rfind(b"\r", 0, -1) + 1
        number, uncounted = number + _lines_in(uncounted), b""
        if not whole and len(text) > LONGEST_LINE_BYTES:
            yield Block(number, text, cut_line=number)
            number, rest, dropping = number + 1, b"", True
            continue
        rest = text[whole:]
        if whole:
            uncounted = _without_lone_cr(text[:whole])
            yield Block(number, uncounted)
    if rest:
        yield Block(number + _lines_in(uncounted), _without_lone_cr(rest))


def _lines_in(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == _LF))


def _end_of_line(chunk: bytes) -> tuple[bytes, bytes, bytes]:
    lf, cr = chunk.partition(b"\n"), chunk.partition(b"\r")
    return lf if len(lf[0]) <= len(cr[0]) + 1 else cr


def _without_lone_cr(text: bytes) -> bytes:
    """Lines that end at a CR alone, as under the bars of tqdm, end at a LF instead."""
    if b"\r" not in text:
        return text
    each = np.frombuffer(text, dtype=np.uint8)
    if not ((each[:-1] == _CR) > (each[1:] == _LF)).any() and each[-1] != _CR:
        return text
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _refuse_pointer(path: Path, head: bytes) -> None:
    for beginning, kind, command in _POINTERS:
        if head.startswith(beginning):
            raise NoLog(path, f"is only a pointer of {kind}: the log itself was not fetched; run: {command}")
