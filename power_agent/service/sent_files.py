"""The files of a folder that others may write to, as they may be sent: no link is followed, no device opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MAX_DEPTH = 4  # folders and the file's own name: see wire.messages.HostFile


@dataclass(frozen=True)
class SentFile:
    """A file as it was found; it can be opened until the next one is asked for."""

    name: str  # below the folder, with /
    size: int
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


def sent_files(folder: Path) -> Iterator[SentFile]:
    """All plain files below the folder, in the order of their names; none where it is a link or not there."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for root, folders, leaves, descriptor in os.fwalk(folder, follow_symlinks=False):
            below = Path(root).relative_to(folder)
            folders.sort()
            if len(below.parts) + 2 > MAX_DEPTH:
                folders.clear()  # what lies deeper could not be sent
            for leaf in sorted(leaves):
                try:
                    found = os.stat(leaf, dir_fd=descriptor, follow_symlinks=False)
                except OSError:
                    continue  # it went away meanwhile
                if _is_plain(found):
                    yield SentFile((below / leaf).as_posix(), found.st_size, descriptor, leaf)


def _is_plain(found: os.stat_result) -> bool:
    # A second name would let a user send what he may link to and not read.
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1
