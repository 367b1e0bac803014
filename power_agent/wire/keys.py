"""CURVE keys in files: a secret of one's own, and the public keys of those one trusts. Keys are written as hex digits.

An agent's folder holds `agent.secret` and `director.json`; a director's holds `director.secret` and `agents/NAME.key`.
Secrets never leave their machine: each side is told the other's public key.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from power_agent.wire.messages import HostName

KEY_BYTES: Final = 32
_host_name: msgspec.msgpack.Decoder[HostName] = msgspec.msgpack.Decoder(HostName)


class KeyProblem(Exception):
    """A key or its file cannot be used: what, where, and what to do."""


@dataclass(frozen=True)
class KeyPair:
    """One's own keys, 32 bytes each. The secret is not shown by repr."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public.hex()})"


class DirectorPin(msgspec.Struct, frozen=True, kw_only=True):
    """`director.json`: where the director is, and its public key in hex digits."""

    address: str
    key: str


def parse_key(text: str) -> bytes:
    """The 32 bytes of a public key that is written as 64 hex digits.

    Raises:
        KeyProblem: it is not that.
    """
    text = text.strip()
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise KeyProblem("a public key is 64 hex digits, as `power-director keys show` prints it")
    return bytes.fromhex(text)


def make_secret(path: Path) -> KeyPair:
    """Draw new keys, and keep the secret in a file that its owner alone may read.

    Raises:
        KeyProblem: there is a file already, or it cannot be written.
    """
    import zmq
    from zmq.utils import z85

    public, secret = (z85.decode(key) for key in zmq.curve_keypair())
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secret.hex() + "\n")
                file.flush()
                os.fsync(file.fileno())  # the director may be told of its public key at once
        except OSError:
            path.unlink(missing_ok=True)  # half a key would be in the way of the next one
            raise
    except FileExistsError:
        raise KeyProblem(f"{path} is there already; whoever trusts that key would not know a new one") from None
    except OSError as error:
        raise KeyProblem(f"{path} cannot be written: {error.strerror}") from error
    return KeyPair(public, secret)


def load_secret(path: Path) -> KeyPair:
    """Read a secret that `make_secret` wrote.

    Raises:
        KeyProblem: it is not there, damaged, or others may read it.
    """
    import zmq
    from zmq.utils import z85

    try:
        if path.stat().st_mode & 0o077:
            raise KeyProblem(f"{path} may be read by others than its owner: chmod 600 {path}")
        secret = parse_key(path.read_text("ascii"))
    except (OSError, UnicodeDecodeError) as error:
        raise KeyProblem(f"{path} cannot be read: {getattr(error, 'strerror', 'it is no text')}") from error
    except KeyProblem as problem:
        if "64 hex" in str(problem):
            raise KeyProblem(f"{path} holds no key; it is damaged") from None
        raise
    return KeyPair(z85.decode(zmq.curve_public(z85.encode(secret))), secret)


def write_pin(folder: Path, address: str, key: bytes) -> None:
    """Trust this director from now on.

    Raises:
        OSError: the folder cannot be written.
    """
    pin = msgspec.json.encode(DirectorPin(address=address, key=key.hex()))
    (folder / "director.json").write_bytes(pin + b"\n")


def load_pin(folder: Path) -> DirectorPin:
    """The director that this agent was enrolled with.

    Raises:
        KeyProblem: none, or the file is damaged.
    """
    path = folder / "director.json"
    try:
        pin = msgspec.json.decode(path.read_bytes(), type=DirectorPin)
        parse_key(pin.key)
        return pin
    except FileNotFoundError:
        text = "this agent is not enrolled: power-agent enroll --director HOST:PORT --key KEY"
        raise KeyProblem(f"{path} is not there; {text}") from None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, KeyProblem) as error:
        raise KeyProblem(f"{path} cannot be read: {error}; enrol this agent again") from error


class Keyring:
    """The public keys that a director trusts, one file per agent: `NAME.key`. Re-read when the folder changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stamp: tuple[int, ...] = ()
        self._names: dict[bytes, str] = {}

    def names(self) -> dict[bytes, str]:
        """Names of agents by their public keys of 32 bytes. A file that holds no key counts as none."""
        try:
            stat = self._folder.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
        except OSError:
            return {}
        if stamp != self._stamp:
            names: dict[bytes, str] = {}
            for path in sorted(self._folder.glob("*.key")):
                try:
                    names[parse_key(path.read_text("ascii"))] = path.stem
                except (OSError, UnicodeDecodeError, KeyProblem):
                    continue
            self._names, self._stamp = names, stamp
        return self._names

    def add(self, name: str, key: bytes) -> None:
        """Trust the agent `name` with this key.

        Raises:
            KeyProblem: the name cannot be used, has another key, or the key belongs to another name.
            OSError: the folder cannot be written.
        """
        try:
            _host_name.decode(msgspec.msgpack.encode(name))
        except msgspec.ValidationError:
            raise KeyProblem(f"{name!r} is no name of an agent: up to 63 letters, digits and . _ -") from None
        names = self.names()
        if names.get(key, name) != name:
            raise KeyProblem(f"this key belongs to {names[key]}; each agent needs one of its own")
        if name in names.values() and key not in names:
            raise KeyProblem(f"{name} has another key: power-director keys remove {name}, if it is to have this one")
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Beside the folder, which changes once: of two changes within a tick a director that looks may see the first.
        part = self._folder.with_name(f"{self._folder.name}.{name}.part")
        part.write_text(key.hex() + "\n")
        part.rename(self._folder / f"{name}.key")
        self._stamp = ()

    def remove(self, name: str) -> bool:
        """Trust it no more; False where it was not known."""
        if name not in self.names().values():
            return False
        (self._folder / f"{name}.key").unlink(missing_ok=True)
        self._stamp = ()
        return True
