"""Lines of a log that somebody else wrote, and that may be no log at all."""

from __future__ import annotations

import math
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


def finite(value: object) -> float | None:
    """A number of a log as a finite float; None for anything else, true and false too."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
