"""Ptys that stand for serial lines: raw, without echo."""

from __future__ import annotations

import os
import termios
from pathlib import Path


def raw_pty(link: Path | None = None) -> tuple[int, int]:
    """The simulator's end and the driver's, which is found at `link`.

    The driver's stays open here, too, so that bytes written before the driver opens it are not lost.
    """
    master, slave = os.openpty()
    mode = termios.tcgetattr(slave)
    mode[0], mode[1], mode[3] = 0, 0, 0
    termios.tcsetattr(slave, termios.TCSANOW, mode)
    if link is not None:
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(slave))
    return master, slave
