"""User names and passwords from a file that its owner alone may read, or from the environment; never shown anywhere."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from drivers.contract import Unavailable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ENVIRONMENT = "env:"
_MOST_BYTES = 64 << 10


class Credentials:
    """Secrets by name. What prints this sees the names alone."""

    def __init__(self, place: str, secrets: Mapping[str, str]) -> None:
        self.place = place  # for messages
        self._secrets = dict(secrets)

    def __repr__(self) -> str:
        return f"Credentials({self.place!r}: {', '.join(sorted(self._secrets))})"

    def __contains__(self, name: str) -> bool:
        return name in self._secrets

    def get(self, name: str, default: str = "") -> str:
        return self._secrets.get(name, default)

    def need(self, name: str) -> str:
        """The secret of this name.

        Raises:
            Unavailable: it is not given.
        """
        if name not in self._secrets:
            raise Unavailable(f"{self.place} does not give {name!r}", self._fix(name))
        return self._secrets[name]

    def _fix(self, name: str) -> str:
        if self.place.startswith(ENVIRONMENT):
            return f"set the environment variable {self.place.removeprefix(ENVIRONMENT)}_{name.upper()}"
        return f'add a line to that file: {name} = "…"'


def read_credentials(
    driver: str, source: str | None, known: Sequence[str], environment: Mapping[str, str] | None = None
) -> Credentials:
    """From a TOML file of mode 0600, or from `env:PREFIX`: the variables PREFIX_USER, PREFIX_PASSWORD and so on.

    Raises:
        Unavailable: there are none, or others may read them.
    """
    if not source:
        told = ", ".join(f'{name} = "…"' for name in known[:2])
        raise Unavailable(
            "it is not told with which credentials to log in",
            f"write them into a file ({told}), chmod 600 it, and set {driver}.credentials=FILE; "
            f"or set {driver}.credentials=env:PREFIX and the environment variables "
            + ", ".join(f"PREFIX_{name.upper()}" for name in known[:2]),
        )
    if source.startswith(ENVIRONMENT):
        prefix = source.removeprefix(ENVIRONMENT)
        variables = os.environ if environment is None else environment
        found = {
            name: variables[f"{prefix}_{name.upper()}"] for name in known if f"{prefix}_{name.upper()}" in variables
        }
        return Credentials(source, found)
    return Credentials(source, _read_file(Path(source), known))


def _read_file(path: Path, known: Sequence[str]) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read(_MOST_BYTES)
    except OSError as error:
        raise Unavailable(
            f"the credentials in {path} cannot be read: {error.strerror}", "name a file that is there"
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise Unavailable(f"others may read the credentials in {path}", f"chmod 600 {path}; then change the passwords")
    try:
        values: dict[str, str] = tomllib.loads(raw.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):  # whose text may quote what it found
        raise Unavailable(f"{path} is no TOML file", f'write lines such as: {known[0]} = "…"') from None
    for name, value in values.items():
        if name not in known:
            raise Unavailable(f"{path} has a line {name!r} that means nothing", f"use: {', '.join(known)}")
        if not isinstance(value, str):
            raise Unavailable(f"{name} in {path} is no text", f'write it in quotes: {name} = "…"')
    return values
