"""The files of one power session, and its two JSON descriptions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from director.mlperf.text_blocks import NoLog, text_blocks

CLIENT = Path("power/client.json")
SERVER = Path("power/server.json")
_MOST_JSON_BYTES = 1 << 26
_ANALYZER = re.compile(r"spl_analyzer_(\d{1,4})\.txt")


def read_description(path: Path) -> dict[str, Any]:
    """`client.json` or `server.json`.

    Raises:
        NoLog: it cannot be read, or holds no JSON object.
    """
    parts, size = [], 0
    for block in text_blocks(path):
        parts.append(block.text)
        size += len(block.text)
        if size > _MOST_JSON_BYTES:
            raise NoLog(path, "is too long for a description of a session")
    try:
        found = json.loads(b"".join(parts).decode("utf-8"))  # takes NaN, as the official code does
    except (ValueError, RecursionError) as error:
        raise NoLog(path, f"holds no JSON: {error}") from error
    if not isinstance(found, dict):
        raise NoLog(path, "holds JSON, but no object")
    return found


def names_of_submitter(session: Path) -> dict[str, str]:
    """Official names of benchmarks by what a submitter in the open division calls them; {} where nothing says.

    Raises:
        NoLog: the submitter's `model_mapping.json` cannot be read.
    """
    above = session.resolve().parents
    file = next((folder / "model_mapping.json" for folder in above if folder.parent.name == "open"), None)
    if file is None or not file.exists():
        return {}
    return {name: meant for name, meant in read_description(file).items() if isinstance(meant, str)}


def analyzer_logs(run: Path) -> list[Path]:
    """Sample logs of single analyzers in a run's folder, in order of their numbers; [] with one analyzer."""
    try:
        found = [(int(match[1]), path) for path in run.iterdir() if (match := _ANALYZER.fullmatch(path.name))]
    except OSError:
        return []
    return [path for _, path in sorted(found)]
