"""A session's directory: its manifest read and written whole, and who is at work in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from director.session.manifest import SCHEMA_VERSION, Manifest
from director.session.manifest_check import find_nonsense

MANIFEST = "manifest.json"
SPOOL = "spool"  # what the measuring processes write; gone once the traces are durable
SERIES = "series.json"
_RESERVE = f"{SPOOL}/reserve"
_RESERVE_BYTES = 1 << 17  # a manifest before it knows of its traces takes a few kB; file systems count in blocks


class SessionError(Exception):
    """A session directory that cannot be used: what is wrong, where, and what to do. Its text is for the user."""


def spool_path(session: Path, host: str) -> Path:
    """The spool of a host."""
    return session / SPOOL / f"{host}.sqlite"


class _Version(msgspec.Struct):
    schema_version: int


def load_manifest(session: Path) -> Manifest:
    """Read and validate `manifest.json`.

    Raises:
        SessionError: there is none, it is damaged, or a newer version of this program wrote it.
    """
    path = session / MANIFEST
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        if (session / SERIES).exists():
            raise SessionError(f"{session} is a series of runs: name one of them, such as {session}/run-001") from error
        raise SessionError(f"{session} is not a session directory: it holds no {MANIFEST}") from error
    except OSError as error:
        raise SessionError(f"{path} cannot be read: {error.strerror}") from error
    try:
        version = msgspec.json.decode(raw, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise SessionError(
                f"{path} was written by a newer version of this program (schema {version}, this one knows "
                f"{SCHEMA_VERSION}): update ml-power-agent"
            )
        manifest = msgspec.json.decode(raw, type=Manifest)
        nonsense = find_nonsense(manifest)
        if nonsense:
            raise msgspec.ValidationError(nonsense)
        return manifest
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SessionError(
            f"{path} is not the manifest of a session, or is damaged: {error}. Put back a copy of it; the readings "
            "under traces/ and spool/ are not touched"
        ) from error


def lost_files(session: Path, manifest: Manifest) -> list[str]:
    """Which raw files of a finished session are not there any more, in plain words."""
    lost = [name for name in manifest.checksums if not (session / name).is_file()]
    return [f"{session / name} is not there any more; what it told is missing here" for name in lost]


def store_manifest(session: Path, manifest: Manifest) -> None:
    """Replace `manifest.json` so that a crash leaves the old one or the new one, never half of one."""
    write_durably(session / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n")


def reserve_space(session: Path) -> None:
    """Keep room for a last manifest: how the job ended must find its place on a disk that the job has filled."""
    (session / _RESERVE).write_bytes(bytes(_RESERVE_BYTES))


def give_up_reserve(session: Path) -> bool:
    """Free that room; False where it was freed before."""
    try:
        (session / _RESERVE).unlink()
    except OSError:
        return False
    return True


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that appears under its name whole and on disk, or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def hold(session: Path) -> Iterator[None]:
    """Keep other directors out of a session while this one works in it; the kernel lets go when we die.

    Raises:
        SessionError: another director is at work there.
    """
    descriptor = os.open(session, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SessionError(
                f"another power-director is still at work in {session}: wait until it has ended"
            ) from error
        except OSError:
            pass  # a file system without locks, as some over the network: go on without
        yield
    finally:
        os.close(descriptor)
