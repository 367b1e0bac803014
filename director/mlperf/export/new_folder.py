"""A folder that appears under its name whole, or not at all, and never in the place of another."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


class ExportRefused(Exception):
    """What cannot be exported, why, and what to do: the text for the user."""


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write into; it becomes `path` at the end, and vanishes where anything is raised.

    Raises:
        ExportRefused: `path` is there already, or is being written.
    """
    if os.path.lexists(path):
        raise ExportRefused(f"{path} is there already, and nothing is ever overwritten: give --output another name")
    part = path.with_name(f"{path.name}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
    except FileExistsError:
        raise ExportRefused(f"{part} is there: another export is at work, or was cut off; then remove it") from None
    try:
        yield part
        if os.path.lexists(path):
            raise ExportRefused(f"{path} was made by another program meanwhile: give --output another name")
        part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
