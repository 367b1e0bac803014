"""Files of the kernel that hold one number or one line, read without believing everything that they say."""

from __future__ import annotations

import os
from collections.abc import Sequence
from operator import ge, le
from pathlib import Path
from typing import Protocol

from drivers.contract import DeviceLost, Status

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
    digits = text[1:] if text.startswith(b"-") else text
    if not digits.isdigit() or len(digits) > _MOST_DIGITS:
        return None
    return int(text)


def read_integer(path: Path) -> int | None:
    """The integer in a small file of the kernel; None where there is none."""
    text = read_text(path)
    return None if text is None else parse_integer(text.encode())


class Counting(Protocol):
    """Something open that gives one integer at a time."""

    place: str  # for messages: a path, an event
    trouble: str  # why the last read gave MISSING

    def read(self) -> tuple[int, Status]: ...

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
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> tuple[int, Status]:
        """The number and NEW; else MISSING where nothing came, INVALID where it is no number in the range."""
        try:
            raw = os.pread(self.descriptor, _READ_BYTES, 0)
        except OSError as error:
            self.trouble = str(error.strerror)
            return 0, Status.MISSING
        if not raw:
            self.trouble = "the file is empty"
            return 0, Status.MISSING
        value = parse_integer(raw)
        if value is None or not self.lowest <= value <= self.highest:
            return 0, Status.INVALID
        return value, Status.NEW

    def close(self) -> None:
        os.close(self.descriptor)


class NumberBlock:
    """Several number files read in one go, which at fast rates costs half of one after the other."""

    def __init__(self, files: Sequence[NumberFile]) -> None:
        self._descriptors = [file.descriptor for file in files]
        self._lowest = [file.lowest for file in files]
        self._highest = [file.highest for file in files]

    def __call__(self) -> list[int] | None:
        """Every number, in order; None where anything but plain success came: then ask one by one."""
        try:
            raws = [os.pread(descriptor, _READ_BYTES, 0) for descriptor in self._descriptors]
            values = [int(raw) for raw in raws]
        except (OSError, ValueError):
            return None
        if not b"".join(raws).replace(b"\n", b"").isdigit():  # int() takes more than the kernel writes
            return None
        plain = all(map(le, self._lowest, values)) and all(map(ge, self._highest, values))
        return values if plain else None


def read_together(sources: Sequence[Counting]) -> tuple[list[int], list[Status]]:
    """Read each source once, in order.

    Raises:
        DeviceLost: not one of them gave anything.
    """
    values: list[int] = []
    statuses: list[Status] = []
    for source in sources:
        value, status = source.read()
        values.append(value)
        statuses.append(status)
    if all(status is Status.MISSING for status in statuses):
        first = sources[0]
        raise DeviceLost(f"none of {len(sources)} sources can be read any more; {first.place}: {first.trouble}")
    return values, statuses
