"""Where a user's own files are: keys, and what was found out about devices."""

from __future__ import annotations

import os
from pathlib import Path


class NoHome(RuntimeError):
    """This user has no home, as in a container that knows no such user; the text says so."""


def home() -> Path:
    """The user's home.

    Raises:
        NoHome: there is none.
    """
    try:
        return Path.home()
    except RuntimeError:
        raise NoHome(f"user {os.geteuid()} has no home directory, and HOME is not set") from None


def default_folder() -> Path:
    """The folder unless another is named: $XDG_CONFIG_HOME/power-agent, or ~/.config/power-agent.

    Raises:
        NoHome: there is no home to look in.
    """
    base = os.environ.get("XDG_CONFIG_HOME") or str(home() / ".config")
    return Path(base, "power-agent")
