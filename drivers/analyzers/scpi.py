"""Driver `scpi`: a meter that a TOML file describes. See docs/devices/scpi-generic.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import msgspec

from drivers.analyzers.description import Description
from drivers.analyzers.driver import AnalyzerDriver
from drivers.contract import Unavailable

MAX_BYTES = 1 << 20


class ScpiDriver(AnalyzerDriver):
    """Nothing of the file is ever run: its commands go to the meter, its patterns look at replies."""

    name: ClassVar[str] = "scpi"
    own_settings: ClassVar[tuple[str, ...]] = ("description",)

    @classmethod
    def draft(cls, settings: Mapping[str, str]) -> Description:
        path = settings.get("description")
        if not path:
            raise Unavailable("nobody described the meter", f"set {cls.name}.description=FILE.toml")
        return read_description(Path(path))


def read_description(path: Path) -> Description:
    """The meter that a file describes.

    Raises:
        Unavailable: it cannot be read: where, and why.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Unavailable(f"{path} is larger than {MAX_BYTES} bytes", "give a description of a meter")
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        description = msgspec.convert(table, Description)
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", "check the path") from error
    except (ValueError, RecursionError) as error:  # of TOML, of text, of the description
        raise Unavailable(f"{path} describes no meter: {error}", "see docs/devices/scpi-generic.md") from error
    return description
