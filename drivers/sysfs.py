"""Files of the kernel that hold one number or one line, read without believing everything that they say."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from drivers.contract import DeviceLost, Row, Status

_MOST_DIGITS = 20  # of 2^64 − 1
_READ_BYTES = 32  # more than any 64-bit number takes: what fills it is no number


def read_text(path: Path) -> str | None:
    """The words in a small file of the kernel, without the line end; None where they cannot be had."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    return raw.decode("utf-8", errors="replace").strip()


def parse_integer(raw: bytes) -> int | None:
    """The decimal integer that `raw` is, at most 64 bits of it; None for anything else.

    Narrower than int(), which also takes "1_000", "+5" and the digits of every script.
    """
    text = raw.rstrip()
    if text.isdigit() or (text.startswith(b"-") and text[1:].isdigit()):
        return int(text) if len(text) <= _MOST_DIGITS + (text[:1] == b"-") else None
    return None


def read_integer(path: Path) -> int | None:
    """The integer in a small file of the kernel; None where there is none."""
    text = read_text(path)
    return None if text is None else parse_integer(text.encode())


class Counting(Protocol):
    """Something open that gives one integer at a time."""

    place: str  # for messages: a path, an event
    trouble: str  # why the last answer counted as MISSING
    take: Callable[[], bytes]  # asks; raises OSError

    def judge(self, raw: bytes) -> tuple[int, Status]: ...

    def close(self) -> None: ...


class NumberFile:
    """A file that holds one integer, opened once and read many times.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, lowest: int, highest: int) -> None:
        self.place = str(path)
        self.trouble = ""
        self.lowest = lowest
        self.highest = highest
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.take: Callable[[], bytes] = partial(os.pread, self._descriptor, _READ_BYTES, 0)

    def judge(self, raw: bytes) -> tuple[int, Status]:
        """The number and NEW; else MISSING where nothing came, INVALID where it is no number in the range."""
        if not raw:
            self.trouble = "the file is empty"
            return 0, Status.MISSING
        value = parse_integer(raw)
        if value is None or not self.lowest <= value <= self.highest:
            return 0, Status.INVALID
        return value, Status.NEW

    def close(self) -> None:
        os.close(self._descriptor)


# What several sources answered, and between which two instants in nanoseconds they did.
Taken = tuple[int, int, Sequence["bytes | OSError"]]


def row_of(taken: Taken, values: Sequence[float | int], statuses: Sequence[Status]) -> Row:
    """A row of these values for the middle of the reading."""
    begin_ns, end_ns, _ = taken
    marks = bytes(statuses) if any(statuses) else None  # Status.NEW is 0
    return Row((begin_ns + end_ns) // 2, end_ns - begin_ns, values, marks)


class Together:
    """Sources that are read together."""

    def __init__(self, sources: Sequence[Counting], clock_ns: Callable[[], int]) -> None:
        self._sources = tuple(sources)
        self._takes = [source.take for source in sources]
        self._clock_ns = clock_ns

    def take(self) -> Taken:
        """Ask each source once, in order."""
        begin_ns = self._clock_ns()
        raws: Sequence[bytes | OSError]
        try:
            raws = [take() for take in self._takes]
        except OSError:
            raws = [_try(take) for take in self._takes]
        return begin_ns, self._clock_ns(), raws

    def judge(self, taken: Taken) -> tuple[list[int], list[Status]]:
        """What each source said.

        Raises:
            DeviceLost: not one of them gave anything.
        """
        values: list[int] = []
        statuses: list[Status] = []
        found = 0
        for source, raw in zip(self._sources, taken[2], strict=True):
            if isinstance(raw, OSError):
                source.trouble = str(raw.strerror)
                value, status = 0, Status.MISSING
            else:
                value, status = source.judge(raw)
            values.append(value)
            statuses.append(status)
            found += status is not Status.MISSING
        if not found:
            first = self._sources[0]
            raise DeviceLost(
                f"none of {len(self._sources)} sources can be read any more; {first.place}: {first.trouble}"
            )
        return values, statuses

    def close(self) -> None:
        """Close every source."""
        for source in self._sources:
            source.close()


def _try(take: Callable[[], bytes]) -> bytes | OSError:
    try:
        return take()
    except OSError as error:
        return error
