"""Notices the end of a process that is not our child."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from pathlib import Path


class ProcessWatch:
    """The process that had this id when the watch began; a later one with the same id is not taken for it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._started = start_time(pid)
        self._fd: int | None = None
        with suppress(AttributeError, OSError):  # an old kernel or a sandbox, or the process has gone already
            self._fd = os.pidfd_open(pid)

    def descriptors(self) -> list[int]:
        """What becomes readable when the process ends; empty where only asking `ended` tells."""
        return [] if self._fd is None else [self._fd]

    def ended(self) -> bool:
        """Whether the process has ended, whether its parent has taken notice or not."""
        if self._fd is not None:
            return bool(select.select([self._fd], [], [], 0)[0])
        return self._started is None or start_time(self._pid) != self._started

    def close(self) -> None:
        """Release the descriptor."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def start_time(pid: int) -> bytes | None:
    """When the process started, in the kernel's ticks since boot; None where it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    state, *fields = stat.rpartition(b")")[2].split()  # the command's name before it may hold spaces and brackets
    return None if state in (b"Z", b"X") else fields[18]
