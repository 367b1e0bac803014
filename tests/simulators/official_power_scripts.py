"""A checkout of mlcommons/power-dev, run unmodified beside ours where POWER_DEV_CHECKOUT names one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

VARIABLE = "POWER_DEV_CHECKOUT"
CHECKOUT = Path(os.environ.get(VARIABLE, "/nonexistent"))

needs_official_scripts = pytest.mark.skipif(
    not (CHECKOUT / "compliance" / "check.py").is_file(),
    reason=f"{VARIABLE} does not name a checkout of https://github.com/mlcommons/power-dev",
)


def environment(**more: str) -> dict[str, str]:
    """That of a process in which the official package is found."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT), **more}


def official(side: str, words: Sequence[str]) -> list[str]:
    """The command that runs the official client or server."""
    return [sys.executable, "-m", f"ptd_client_server.{side}", *words]


def official_outcomes(session: Path) -> dict[str, bool]:
    """Whether each check of the official checker passes."""
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "compliance" / "check.py"), str(session)], capture_output=True, text=True
    )
    found = {}
    for line in done.stderr.splitlines():
        _, mark, text = line.partition(":main:[")
        if mark:
            found[text[3:].strip()] = text[0] == "x"
    return found
