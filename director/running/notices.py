"""What the director says to the person at the terminal: on standard error, because standard output is the job's."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """Print a line; a terminal that is gone must not stop the work."""
    with contextlib.suppress(OSError, ValueError):
        print(f"power-director: {text}", file=sys.stderr, flush=True)
