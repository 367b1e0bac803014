"""What a meter was set to before we changed it, so that it can be put back: at the end, or after we were killed.

The record lies in a file until the meter is as it was. Whoever opens the same meter next finds it there.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

import msgspec

STATE_DIRECTORY = "ml-power-agent/meters"


class KeptSettings:
    """Commands that put a meter back, by what they put back. What is kept first stays."""

    def __init__(self, identity: str) -> None:
        """Begin with what an earlier owner of this meter left behind, if it did."""
        self._path = _directory() / (re.sub(r"[^\w.-]+", "_", identity)[:100] + ".json")
        self.commands: dict[str, list[str]] = {}
        self.inherited = False
        with suppress(OSError, msgspec.DecodeError):
            if not _is_ours(self._path.parent):
                return
            self.commands = msgspec.json.decode(self._path.read_bytes(), type=dict[str, list[str]])
            self.inherited = bool(self.commands)

    def keep(self, what: str, commands: list[str]) -> None:
        """Note how to put one setting back, unless it is noted already."""
        if what not in self.commands:
            self.commands[what] = commands
            with suppress(OSError):  # a full disk costs no measurement; the end of this process still puts it back
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if not _is_ours(self._path.parent):
                    return
                unfinished = self._path.with_suffix(f".{os.getpid()}")
                unfinished.write_bytes(msgspec.json.encode(self.commands))
                unfinished.replace(self._path)

    def forget(self) -> None:
        """The meter is as it was."""
        self.commands.clear()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def _directory() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or os.environ.get("HOME", "") + "/.local/state"
    return Path(base if base.startswith("/") else f"/var/tmp/user-{os.getuid()}") / STATE_DIRECTORY


def _is_ours(directory: Path) -> bool:
    """Whether nobody else can have written in it, and so have a meter told what they like."""
    try:
        of = directory.stat()
    except OSError:
        return False
    return of.st_uid == os.getuid() and not of.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
