"""The job's standard output where phases are read from it: through a relay that copies it and outlives the director."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

from director.session.log_files import STDOUT_ARRIVALS, STDOUT_LOG

_OUTPUT_FLAGS = 1  # place of c_oflag in what tcgetattr answers


class JobStdout:
    """A pipe, or a pseudo-terminal where our own standard output is a terminal, with a relay behind it."""

    def __init__(self, folder: Path) -> None:
        """Start the relay; it writes its copy into `folder`.

        Raises:
            OSError: no pseudo-terminal or no process can be had.
        """
        self._master: int | None = None
        if os.isatty(1):
            relay_end, self.job_end = pty.openpty()
            # The real terminal turns line ends; if this one did, too, the relayed bytes would not be the job's.
            attributes = termios.tcgetattr(self.job_end)
            attributes[_OUTPUT_FLAGS] &= ~termios.OPOST
            termios.tcsetattr(self.job_end, termios.TCSANOW, attributes)
            self._master = relay_end
            self.copy_window_size()
        else:
            relay_end, self.job_end = os.pipe()
        # By its path: `-m` would look for modules in the job's directory first, and that may hold a select.py.
        relay = importlib.util.find_spec("power_agent.relay")
        assert relay is not None and relay.origin is not None
        self._relay = subprocess.Popen(
            [sys.executable, relay.origin, str(folder / STDOUT_LOG), str(folder / STDOUT_ARRIVALS)],
            stdin=relay_end,
            start_new_session=True,  # the terminal's Ctrl-C and hang-up are the job's; its last words must get out
        )
        if self._master is None:
            os.close(relay_end)

    def given(self) -> None:
        """The job has its end now, and only it may hold it open."""
        os.close(self.job_end)

    def copy_window_size(self) -> None:
        """Give the job's terminal the size of ours."""
        if self._master is not None:
            with contextlib.suppress(OSError):
                size = fcntl.ioctl(1, termios.TIOCGWINSZ, bytes(8))
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def finish(self, timeout_s: float) -> bool:
        """Wait until everything is relayed; False where something still writes, or does not read."""
        try:
            self._relay.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True
