"""Where a user's own files are: keys, and what was found out about devices."""

from __future__ import annotations

import os
from pathlib import Path


def default_folder() -> Path:
    """The folder unless another is named: $XDG_CONFIG_HOME/power-agent, or ~/.config/power-agent."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base, "power-agent")
