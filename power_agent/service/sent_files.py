"""The files of a folder that others may write to, as they may be sent: no link is followed, no device opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MAX_DEPTH: Final = 4  # folders and the file's own name: see wire.messages.HostFile
MOST_LOOKED_AT: Final = 20_000  # names, each time
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class SentFile:
    """A file as it was found; it can be opened until the next one is asked for."""

    name: str  # below the folder, with /
    size: int
    uid: int
    _folder: int
    _leaf: str

    def read(self, offset: int, count: int) -> bytes:
        """Bytes of it.

        Raises:
            OSError: it is gone, may not be read, or is no file of its own any more.
        """
        # O_NONBLOCK: whoever put a FIFO in its place must not stop us.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._leaf, flags, dir_fd=self._folder)
        try:
            if not _is_plain(os.fstat(descriptor)):
                raise PermissionError(0, "it is not a plain file with one name")
            return os.pread(descriptor, count, offset)
        finally:
            os.close(descriptor)


def sent_files(
    folder: Path,
    *,
    known: Collection[str] = (),
    most: int = MOST_LOOKED_AT,
    on_more: Callable[[], None] = lambda: None,
) -> Iterator[SentFile]:
    """The plain files below the folder, those of each folder in the order of their names; none where it is a link.

    Args:
        folder: it may not be there.
        known: names in it that are looked for first, however many others there are.
        most: names to look at, for a user may make millions.
        on_more: hears that there were more.
    """
    with suppress(OSError):
        descriptor = os.open(folder, _FOLDER)
        try:
            yield from _Walk(most, on_more).files(descriptor, "", known)
        finally:
            os.close(descriptor)


class _Walk:
    def __init__(self, most: int, on_more: Callable[[], None]) -> None:
        self._left = most
        self._on_more = on_more

    def files(self, descriptor: int, before: str, known: Collection[str] = ()) -> Iterator[SentFile]:
        folders = []
        for name in sorted(self._names(descriptor, known)):
            try:
                found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except OSError:
                continue  # it went away meanwhile
            if _is_plain(found):
                yield SentFile(before + name, found.st_size, found.st_uid, descriptor, name)
            elif stat.S_ISDIR(found.st_mode):
                folders.append(name)
        if before.count("/") + 2 > MAX_DEPTH:
            return  # what lies deeper could not be sent
        for name in folders:
            with suppress(OSError):
                below = os.open(name, _FOLDER, dir_fd=descriptor)
                try:
                    yield from self.files(below, f"{before}{name}/")
                finally:
                    os.close(below)

    def _names(self, descriptor: int, known: Collection[str]) -> set[str]:
        names = {name for name in known if "/" not in name}
        with os.scandir(descriptor) as entries:
            for entry in entries:
                if self._left <= 0:
                    self._on_more()
                    break
                self._left -= 1
                names.add(entry.name)
        return names


def _is_plain(found: os.stat_result) -> bool:
    # A second name would let a user send what he may link to and not read.
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
