"""Processes that compute for a session while the director serves: its results, and what its ranging stage saw."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Protocol

import msgspec

REPORT = "report.txt"
MOST_AT_ONCE = 2
_LONGEST_OUTPUT = 1 << 20


class Work(Protocol):
    """Something that is computed."""

    def poll(self) -> bool | None:
        """None: not yet; whether it went well."""

    def output(self) -> str:
        """What it had to say, when it has ended."""

    def end(self) -> None:
        """End it now, and wait for its end; nothing is lost by that."""


class ChildWork:
    """A module of ours that is run for a session in a process of its own."""

    def __init__(self, module: str, session: Path) -> None:
        """Start it.

        Raises:
            OSError: no process can be had.
        """
        # A pipe that nobody empties would stop it.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(session)],
                stdin=subprocess.DEVNULL,
                stdout=self._file,
                stderr=self._file,
                start_new_session=True,  # a Ctrl-C is meant for the director, which ends this in order
            )
        except BaseException:
            self._file.close()
            raise
        self._output = b""

    def poll(self) -> bool | None:
        """None: not yet; whether it went well."""
        if self._process.poll() is None:
            return None
        if not self._file.closed:
            self._file.seek(0)
            self._output = self._file.read(_LONGEST_OUTPUT)
            self._file.close()
        return self._process.returncode == 0

    def output(self) -> str:
        """What it had to say, when it has ended."""
        return self._output.decode("utf-8", "replace").strip()

    def end(self) -> None:
        """End it now, and wait for its end; nothing is lost by that."""
        self._process.kill()
        self._process.wait()
        self._file.close()


def finish(session: Path) -> Work:
    """Make the traces and results of a session whose state is "ingesting" or later."""
    return ChildWork("director.fleet.finish_session", session)


def find_ranges(session: Path) -> Work:
    """Find what the meters of a session saw at most; its output is read by `parse_ranges`."""
    return ChildWork("director.fleet.ranging", session)


def parse_ranges(text: str) -> dict[str, dict[str, float]]:
    """What `find_ranges` printed; none where that cannot be read."""
    try:
        return msgspec.json.decode(text, type=dict[str, dict[str, float]])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
