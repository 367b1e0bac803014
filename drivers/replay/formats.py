"""Recognises the format of a recorded trace and opens it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from drivers.contract import Unavailable
from drivers.replay.csv_trace import open_csv
from drivers.replay.session_trace import open_session
from drivers.replay.spl_trace import open_spl
from drivers.replay.trace import Trace, numbered_lines


def open_trace(path: Path, settings: Mapping[str, str]) -> Trace:
    """Recognise the format of a trace, or take the one that `format` names, and open it.

    Raises:
        Unavailable: it cannot be read: which file, which line, why.
    """
    openers = {"spl": open_spl, "csv": open_csv, "session": open_session}
    name = settings.get("format", "auto")
    if name not in ("auto", *openers):
        raise Unavailable(f"there is no trace format {name!r}", f"use one of: auto, {', '.join(openers)}")
    try:
        if name == "auto":
            name = _recognise(path)
        return openers[name](path, settings)
    except OSError as error:
        raise Unavailable(f"the trace cannot be read: {error}", "check replay.path") from error


def _recognise(path: Path) -> str:
    if path.is_dir():
        return "session"
    _, line = next(numbered_lines(path), (0, b""))
    return "spl" if line.startswith(b"Time,") and b",Watts," in line else "csv"
