"""Lines of a log that somebody else wrote, and that may be no log at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO


def cut_lines(file: BinaryIO, longest_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Every line with the offset of its first byte. Of a longer line only the first `longest_bytes` come."""
    offset = 0
    while line := file.readline(longest_bytes):
        start, offset = offset, offset + len(line)
        yield start, line
        while not line.endswith(b"\n") and (line := file.readline(longest_bytes)):
            offset += len(line)
