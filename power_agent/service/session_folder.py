"""What an agent keeps on its disk of one session: enough for another agent process to go on with it, or hand it over.

`session.json` says what was asked for; the file `running` is there while the session is sampled, and goes without
needing space on a full disk; HOST.sqlite is the spool; what is in `logs/` is handed over with it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from power_agent.process_watch import start_time
from power_agent.spool import SpoolReader
from power_agent.wire.messages import HostName, SamplerChoices, SessionName, SessionRequest, Stage, WorkloadEvent

RECORD_FILE, RUNNING_FILE, LOG_FILE = "session.json", "running", "agent.log"
MAX_LOG_BYTES = 1 << 20
UNFINISHED = ".new-"  # no session has such a name


class ProcessId(msgspec.Struct, frozen=True, kw_only=True):
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: str  # ticks since boot

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """The process that has this number now."""
        return cls(pid=pid, started=(start_time(pid) or b"").decode("ascii"))

    def is_gone(self) -> bool:
        """Whether it has ended."""
        return (start_time(self.pid) or b"").decode("ascii") != self.started or not self.started


class JobRecord(msgspec.Struct, kw_only=True):
    """The job for which somebody on this host asked for a session."""

    request: SessionRequest
    uid: int
    runner: ProcessId  # who asked
    work: ProcessId | None = None  # the job itself
    events: list[WorkloadEvent] = []
    stop: bool = False  # somebody asked for the end, or nobody is there to do so


class SessionRecord(msgspec.Struct, kw_only=True):
    """`session.json`."""

    session: SessionName
    host: HostName
    stage: Stage
    boot_id: str
    marks: str  # folder
    choices: SamplerChoices = SamplerChoices()
    local: bool = False  # begun without a director
    job: JobRecord | None = None


class SessionFolder:
    """One session's folder."""

    def __init__(self, path: Path, record: SessionRecord) -> None:
        self.path = path
        self.record = record
        self._lock = threading.Lock()

    @classmethod
    def create(cls, state: Path, record: SessionRecord) -> SessionFolder:
        """Make it, durable before anything is sampled.

        Raises:
            OSError: it is there already, or the disk is full.
        """
        final = state / record.session
        folder = cls(state / f"{UNFINISHED}{record.session}", record)
        shutil.rmtree(folder.path, ignore_errors=True)  # of one who died just here
        try:
            folder.path.mkdir(mode=0o700)
            folder.logs.mkdir()
            (folder.path / RUNNING_FILE).touch()
            folder.store()
            folder.path.rename(final)
        except OSError:
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
        folder.path = final
        _sync(state)
        return folder

    @property
    def spool(self) -> Path:
        """The readings."""
        return self.path / f"{self.record.host}.sqlite"

    @property
    def logs(self) -> Path:
        """Files that are handed over."""
        return self.path / "logs"

    @property
    def is_running(self) -> bool:
        """Whether it was being sampled when somebody last saw to it."""
        return (self.path / RUNNING_FILE).exists()

    def store(self) -> None:
        """Write the record, whole or not at all.

        Raises:
            OSError: the disk is full or fails.
        """
        part = self.path / f"{RECORD_FILE}.part"
        with self._lock:
            with part.open("wb") as file:
                file.write(msgspec.json.encode(self.record))
                file.flush()
                os.fsync(file.fileno())
            part.rename(self.path / RECORD_FILE)
            _sync(self.path)

    def end(self) -> None:
        """It is not sampled any more."""
        with suppress(OSError):
            (self.path / RUNNING_FILE).unlink(missing_ok=True)

    def note(self, text: str) -> None:
        """Add a line to the log that is handed over."""
        path = self.logs / LOG_FILE
        with suppress(OSError):
            if not path.exists() or path.stat().st_size < MAX_LOG_BYTES:
                stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                with path.open("a", encoding="utf-8") as file:
                    file.write(f"{stamp} {time.monotonic_ns()} {text}\n")

    def recorded_until_ns(self) -> int | None:
        """How far the spool came, on CLOCK_MONOTONIC; None: there is none yet.

        Raises:
            SpoolDamaged: nobody can go on in it.
        """
        if not self.spool.exists() or self._discard_unmade_spool():
            return None
        reader = SpoolReader(self.spool)
        try:
            last = reader.last_clock()
            return last.monotonic_ns if last is not None else 0
        finally:
            reader.close()

    def delete(self) -> None:
        """Remove all of it, the record last."""
        for path in sorted(self.path.glob("*")):
            if path.name != RECORD_FILE:
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.rmtree(self.path, ignore_errors=True)

    def _discard_unmade_spool(self) -> bool:
        """Remove a spool whose sampler died before it held anything: nobody was ever sent any of it."""
        try:
            database = sqlite3.connect(f"{self.spool.resolve().as_uri()}?mode=ro", uri=True)
            try:
                if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    return False
            finally:
                database.close()
        except sqlite3.Error:
            return False
        for suffix in ("", "-wal", "-shm"):
            self.spool.with_name(self.spool.name + suffix).unlink(missing_ok=True)
        return True


def find_sessions(state: Path) -> Iterator[SessionFolder | str]:
    """What earlier agents left; of a folder that cannot be read, what is wrong with it."""
    for path in sorted(state.glob("*")):
        if path.name.startswith(".") or path.is_symlink() or not path.is_dir():
            continue
        try:
            record = msgspec.json.decode((path / RECORD_FILE).read_bytes(), type=SessionRecord)
            if record.session != path.name:
                raise ValueError(f"it is the record of {record.session}")
            yield SessionFolder(path, record)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            yield f"{path} is left alone: {RECORD_FILE} cannot be read: {error}"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
