"""Log files of any size in blocks of whole lines, in bounded memory.

Lines end as in Python's text files: at LF, CR LF or CR. Blocks come with LF or CR LF.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK_BYTES = 1 << 22
LONGEST_LINE_BYTES = 1 << 24  # LoadGen lists its samples in one line; what is longer is cut off here
_LONE_CR = re.compile(rb"\r(?!\n)")
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


@dataclass(frozen=True)
class Block:
    """Consecutive whole lines."""

    first_line: int  # its number, from 1
    text: bytes
    cut_line: int | None = None  # number of a line that was too long; the block holds its beginning


def text_blocks(path: Path) -> Iterator[Block]:
    """Yield a log's blocks, in order.

    Raises:
        NoLog: the file is missing, cannot be read, is empty, no regular file, or stands for a file kept elsewhere.
    """
    try:
        # A FIFO would keep us waiting for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise NoLog(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from error
    with io.FileIO(descriptor) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NoLog(path, "is no regular file")
        try:
            yield from _lines(path, _chunks(file, os.fstat(descriptor).st_size))
        except OSError as error:
            raise NoLog(path, f"cannot be read: {error.strerror}") from error


def _chunks(file: io.FileIO, size: int) -> Iterator[bytes]:
    """The bytes of a file. Asks for no more than there should be: memory for a block costs more than a small log."""
    while chunk := file.read(min(BLOCK_BYTES, max(size, 0) + 1)):
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
    elif number == 1 and not uncounted:
        raise NoLog(path, "is empty")


def _lines_in(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")))


def _end_of_line(chunk: bytes) -> tuple[bytes, bytes, bytes]:
    lf, cr = chunk.partition(b"\n"), chunk.partition(b"\r")
    return lf if len(lf[0]) <= len(cr[0]) + 1 else cr


def _without_lone_cr(text: bytes) -> bytes:
    if b"\r" not in text or not _LONE_CR.search(text):
        return text
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _refuse_pointer(path: Path, head: bytes) -> None:
    for beginning, kind, command in _POINTERS:
        if head.startswith(beginning):
            raise NoLog(path, f"is only a pointer of {kind}: the log itself was not fetched; run: {command}")
