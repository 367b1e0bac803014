"""Two small real workloads to measure: training to a target accuracy, and inference under MLPerf's LoadGen."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

TARGET_ACCURACY = 0.97  # share of the test digits read right
MAX_EPOCHS = 80  # of training, before it gives up


class DemoError(Exception):
    """What the user can put right; its text says what is wrong and what to do."""


def require(*modules: str) -> None:
    """Check that the demos' optional packages are installed, without importing them.

    Raises:
        DemoError: one or more are missing.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise DemoError(f"needs {', '.join(missing)}; install with: pip install 'ml-power-agent[demo]'")


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number
