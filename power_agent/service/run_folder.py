"""The folder, the same on all hosts of a cluster, where jobs leave their marks and find the agent's local socket.

It usually lies in /tmp, where others may have been before us: it must be ours, no link, and writable by nobody else.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

SOCKET_FILE = "agent.sock"
MOST_SOCKET_BYTES = 107  # of its path: sun_path in <linux/un.h>, with a zero at its end


class RunFolderProblem(Exception):
    """The folder cannot be used: why, and what to do."""


class RunFolder:
    """Held by one agent, as long as its process lives."""

    def __init__(self, path: Path) -> None:
        """Make the folder, or check the one that is there.

        Raises:
            RunFolderProblem: it is a link, somebody else's, held by another agent, too long a path, or cannot be made.
        """
        self.path = path.absolute()
        if len(os.fsencode(self.socket)) > MOST_SOCKET_BYTES:
            text = f"{path} is too long a path for a socket: name a shorter one with --run-dir"
            raise RunFolderProblem(text)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _make(self.path, 0o755)
            self._descriptor = _open_own(self.path)
        except OSError as error:
            text = f"{path} cannot be used for marks: {error.strerror or error}; name another with --run-dir"
            raise RunFolderProblem(text) from error
        try:
            os.fchmod(self._descriptor, 0o755)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            text = f"another agent serves in {path}: stop it, or give this one a folder of its own with --run-dir"
            raise RunFolderProblem(text) from error

    @property
    def socket(self) -> Path:
        """Where the agent listens to this host's users."""
        return self.path / SOCKET_FILE

    def marks(self, session: str) -> Path:
        """Make the folder that every user's processes may put their marks of this session in.

        Raises:
            OSError: something else is there under that name, or the disk is full.
        """
        path = self.path / session
        _make(path, 0o700)
        descriptor = _open_own(path)
        try:
            os.fchmod(descriptor, 0o1777)  # nobody can remove or replace what others put there
        finally:
            os.close(descriptor)
        return path

    def remove(self, session: str) -> None:
        """Remove a session's marks; what others made such that we cannot stays."""
        shutil.rmtree(self.path / session, ignore_errors=True)

    def close(self) -> None:
        """Let another agent have the folder."""
        self.socket.unlink(missing_ok=True)
        os.close(self._descriptor)


def _make(path: Path, mode: int) -> None:
    with suppress(FileExistsError):  # `_open_own` looks at what it is
        path.mkdir(mode)


def _open_own(path: Path) -> int:
    """A descriptor of a directory that is ours.

    Raises:
        OSError: it is a link, no directory, or somebody else's.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
        os.close(descriptor)
        raise PermissionError(0, f"it belongs to another user (uid {found.st_uid})")
    return descriptor
