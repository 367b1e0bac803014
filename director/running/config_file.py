"""A run's options from a TOML file: every option of the command line by its own name, turned into its arguments."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

Shape = Literal["value", "flag", "switch", "optional", "comma list", "list", "table"]


class ConfigError(Exception):
    """What is wrong in a configuration file, with its name and key. Its text is for the user."""


def read_config(path: Path, shapes: Mapping[str, Shape]) -> list[tuple[str, list[str]]]:
    """The file's keys in order, each with the arguments that say the same on the command line.

    Args:
        path: the TOML file.
        shapes: the known options, without the leading dashes, and what a value of each looks like.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or holds a key or a kind of value that no option has.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text in UTF-8: {error}") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
    arguments = []
    for key, value in content.items():
        if key not in shapes:
            close = difflib.get_close_matches(key, shapes, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(shapes))}"
            raise ConfigError(f"{path}: unknown key {key!r}: {hint}")
        arguments.append((key, _arguments(path, key, value, shapes[key])))
    return arguments


def _arguments(path: Path, key: str, value: object, shape: Shape) -> list[str]:
    option = f"--{key}"
    if shape in ("flag", "optional") and isinstance(value, bool):
        return [option] if value else []
    if shape == "switch" and isinstance(value, bool):
        return [option if value else f"--no-{key}"]
    if shape == "table" and isinstance(value, dict):
        return [f"{option}={name}={_text(path, key, item)}" for name, item in _flat(value).items()]
    if shape in ("comma list", "list") and isinstance(value, list):
        texts = [_text(path, key, item) for item in value]
        return [f"{option}={','.join(texts)}"] if shape == "comma list" else [f"{option}={text}" for text in texts]
    if shape in ("flag", "switch", "table"):
        wanted = "true or false" if shape != "table" else f"a table, such as [{key}]"
        raise ConfigError(f"{path}: {key} must be {wanted}, not {value!r}")
    return [f"{option}={_text(path, key, value)}"]


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested tables by dotted name: TOML reads `nvml.power = 20` as a table in a table."""
    flat: dict[str, object] = {}
    for name, value in table.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


def _text(path: Path, key: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigError(f"{path}: {key} must be text or a number, not {value!r}")
    return str(value)
