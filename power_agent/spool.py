"""The spool: readings on the disk of the measured machine until a session is made of them.

A SQLite file in WAL mode. The sampler adds one transaction every 0.7 s; when it is killed, what it had in
memory since the last one is lost and nothing else. docs/sampling.md describes the tables.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from power_agent.clock import ClockPair
from power_agent.event_log import LoggedEvent
from power_agent.messages import SPOOL_VERSION, Event, Stream, TickCount
from power_agent.row_format import row_struct

T = TypeVar("T")

SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE streams(id INTEGER PRIMARY KEY, json BLOB NOT NULL);
CREATE TABLE batches(seq INTEGER PRIMARY KEY, stream INTEGER NOT NULL, rows INTEGER NOT NULL, crc32 INTEGER NOT NULL,
                     payload BLOB NOT NULL);
CREATE INDEX batches_by_stream ON batches(stream);
CREATE TABLE clock(monotonic_ns INTEGER PRIMARY KEY, wall_ns INTEGER NOT NULL, bracket_ns INTEGER NOT NULL);
CREATE TABLE ticks(stream INTEGER PRIMARY KEY, json BLOB NOT NULL);
CREATE TABLE events(t_ns INTEGER NOT NULL, level TEXT NOT NULL, source TEXT NOT NULL, text TEXT NOT NULL,
                    count INTEGER NOT NULL, PRIMARY KEY(source, text));
"""
MAX_BATCH_BYTES = 1 << 20  # of rows in one batch: more are written as several
_MAX_WAL_BYTES = 8 << 20
_BUSY_S = 0.5  # to wait at the end for those who read


class SpoolUnwritable(Exception):
    """The spool cannot be written now: why, and what to do. What was to be written is not in it."""


class Batch(NamedTuple):
    """Consecutive rows of one stream, packed."""

    stream: int
    rows: int
    payload: bytes


class NumberedBatch(NamedTuple):
    """A batch as it stands in the spool."""

    seq: int
    stream: int
    rows: int
    crc32: int
    payload: bytes


class SpoolWriter:
    """Adds to a spool. One process and one thread writes."""

    def __init__(self, path: Path, meta: Mapping[str, str], *, resume: bool = False) -> None:
        """Create the file, or, to `resume`, go on in the one that a writer left that died.

        Raises:
            SpoolUnwritable: it cannot be created, or there is one already; or there is none to go on in.
        """
        self.path = path
        try:
            path.open("r+b" if resume else "xb").close()
            # The connection is used by one thread, but the interpreter may close it from another one at its exit.
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
            # NORMAL survives the death of the process with no fsync but at a checkpoint; after a power failure the
            # file is whole, though it may lack what came after the last checkpoint.
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute("PRAGMA wal_autocheckpoint = 1000")  # pages: every 4 MB, one or two a minute
            self._database.execute(f"PRAGMA journal_size_limit = {_MAX_WAL_BYTES}")
            if not resume:
                self._database.executescript(f"BEGIN; {SCHEMA} COMMIT;")
            else:
                self._database.execute("DELETE FROM meta WHERE key = 'finished_ns'")  # not so any more
        except FileExistsError:
            raise SpoolUnwritable(f"{path} is there already; name a new file, so that no readings mix") from None
        except (OSError, sqlite3.Error) as error:
            raise SpoolUnwritable(
                f"cannot {'go on in' if resume else 'create'} {path}: {error}; {advice(error)}"
            ) from error
        self.write(meta={"spool_version": str(SPOOL_VERSION), **meta})

    def write(
        self,
        *,
        streams: Sequence[Stream] = (),
        batches: Sequence[Batch] = (),
        clock: Sequence[ClockPair] = (),
        ticks: Sequence[TickCount] = (),
        events: Sequence[LoggedEvent] = (),
        meta: Mapping[str, str] | None = None,
    ) -> None:
        """Write all of this in one transaction. Ticks, events and meta replace what was there under their keys.

        Raises:
            SpoolUnwritable: nothing of it was written.
        """
        encode = msgspec.json.encode
        execute, execute_many = self._database.execute, self._database.executemany
        try:
            execute("BEGIN IMMEDIATE")
            execute_many("INSERT INTO streams VALUES(?, ?)", [(stream.id, encode(stream)) for stream in streams])
            execute_many(
                "INSERT INTO batches(stream, rows, crc32, payload) VALUES(?, ?, ?, ?)",
                [
                    (part.stream, part.rows, zlib.crc32(part.payload), part.payload)
                    for batch in batches
                    for part in _parts(batch)
                ],
            )
            execute_many("INSERT OR REPLACE INTO clock VALUES(?, ?, ?)", clock)
            execute_many("INSERT OR REPLACE INTO ticks VALUES(?, ?)", [(tick.stream, encode(tick)) for tick in ticks])
            execute_many("INSERT OR REPLACE INTO events VALUES(?, ?, ?, ?, ?)", events)
            execute_many("INSERT OR REPLACE INTO meta VALUES(?, ?)", list((meta or {}).items()))
            execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                execute("ROLLBACK")
            raise SpoolUnwritable(f"cannot write {self.path}: {error}; {advice(error)}") from error

    def close(self) -> None:
        """Bring everything into the one file and close it; on a full disk a part stays in the `-wal` file beside it."""
        with suppress(sqlite3.Error):  # nothing is lost by that: readers look into the -wal file, too
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            # A finished spool is then read without writing anything beside it.
            self._database.execute("PRAGMA journal_mode = DELETE")
        with suppress(sqlite3.Error):
            self._database.close()


def _parts(batch: Batch) -> Iterator[Batch]:
    """The batch, or where it is long, several with some of its rows each."""
    row_size = max(1, len(batch.payload) // max(1, batch.rows))
    most_rows = max(1, MAX_BATCH_BYTES // row_size)
    if batch.rows <= most_rows:
        yield batch
        return
    for first in range(0, batch.rows, most_rows):
        rows = min(most_rows, batch.rows - first)
        yield Batch(batch.stream, rows, batch.payload[first * row_size : (first + rows) * row_size])


class SpoolDamaged(Exception):
    """A spool, or a part of it, cannot be read: what, where, and what to do."""


class SpoolReader:
    """A spool, opened to be read. Also usable while a sampler writes to it."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            SpoolDamaged: it is not there, is not a spool, or was made by another version.
        """
        self.path = path
        self.damaged: dict[int, int] = {}  # by stream: batches that could not be read back
        if not path.is_file():
            raise SpoolDamaged(f"there is no spool at {path}; was the sampler started, and the file not moved?")
        with self._reading("the file"):
            # One thread at a time reads; which one, its owner sees to.
            self._database = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
        try:
            self._look()
        except BaseException:
            self._database.close()
            raise

    def _look(self) -> None:
        with self._reading("the file"):
            try:
                self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.DatabaseError:
                # SQLite refuses a file shorter than its header says, unless it is told that we mean it.
                self._database.execute("PRAGMA writable_schema = ON")
        version = self.meta().get("spool_version")
        if version != str(SPOOL_VERSION):
            text = f"{self.path} is a spool of version {version}; this program reads version {SPOOL_VERSION}"
            raise SpoolDamaged(text)

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def meta(self) -> dict[str, str]:
        """Facts about the recording; docs/sampling.md lists the keys."""
        with self._reading("table meta"):
            return dict(self._database.execute("SELECT key, value FROM meta"))

    def streams(self) -> list[Stream]:
        """The streams, in the order in which they were opened."""
        return self._decoded("streams", "id", Stream)

    def batches(self, stream_id: int) -> Iterator[tuple[int, bytes]]:
        """The rows of a stream, batch by batch in the order of writing: how many, and their bytes.

        A batch that cannot be read or whose checksum is wrong is skipped and counted in `damaged`.
        """
        self.damaged[stream_id] = 0
        row_size = next(row_struct(stream.channels).size for stream in self.streams() if stream.id == stream_id)
        for seq in self._sequence_numbers(stream_id):
            try:
                rows, crc32, payload = self._database.execute(
                    "SELECT rows, crc32, payload FROM batches WHERE seq = ?", (seq,)
                ).fetchone()
                intact = zlib.crc32(payload) == crc32 and rows * row_size == len(payload)
            except (sqlite3.Error, TypeError, OverflowError):  # also: no such row, or columns of a wrong type
                intact = False
            if intact:
                yield rows, payload
            else:
                self.damaged[stream_id] += 1

    def batches_after(self, seq: int, count: int) -> list[NumberedBatch]:
        """Up to `count` batches of all streams with higher numbers than `seq`, in the order of writing, unchecked."""
        with self._reading("table batches"):
            rows = self._database.execute(
                "SELECT seq, stream, rows, crc32, payload FROM batches WHERE seq > ? ORDER BY seq LIMIT ?", (seq, count)
            )
            return [NumberedBatch(*row) for row in rows]

    def clock(self) -> list[ClockPair]:
        """Pairs of the monotonic and the wall clock, in the order of time."""
        return self.clock_after(-(2**63), -1)

    def clock_after(self, monotonic_ns: int, count: int) -> list[ClockPair]:
        """The same, after an instant, and no more than `count` (-1: all)."""
        with self._reading("table clock"):
            rows = self._database.execute(
                "SELECT monotonic_ns, wall_ns, bracket_ns FROM clock WHERE monotonic_ns > ? "
                "ORDER BY monotonic_ns LIMIT ?",
                (monotonic_ns, count),
            )
            return [ClockPair(*row) for row in rows]

    def last_clock(self) -> ClockPair | None:
        """The latest pair: how far the recording came; None: there is none."""
        with self._reading("table clock"):
            row = self._database.execute("SELECT * FROM clock ORDER BY monotonic_ns DESC LIMIT 1").fetchone()
            return ClockPair(*row) if row is not None else None

    def ticks(self) -> list[TickCount]:
        """The ledger of each stream as of the last transaction."""
        return self._decoded("ticks", "stream", TickCount)

    def logged_events(self) -> list[LoggedEvent]:
        """What happened, in the order of time; of something that happened often, its first instant and its count."""
        with self._reading("table events"):
            rows = self._database.execute("SELECT t_ns, level, source, text, count FROM events ORDER BY t_ns")
            return [msgspec.convert(row, LoggedEvent) for row in rows]

    def events(self) -> list[Event]:
        """The same, with the count in the text."""
        events = []
        for t_ns, level, source, text, times in self.logged_events():
            counted = text if times == 1 else f"{text} ({times} times)"
            events.append(Event(t_ns=t_ns, level=level, source=source, text=counted))
        return events

    def _sequence_numbers(self, stream_id: int) -> Iterator[int]:
        last = 0
        while True:
            try:
                found = self._database.execute(
                    "SELECT seq FROM batches WHERE stream = ? AND seq > ? ORDER BY seq LIMIT 1000", (stream_id, last)
                ).fetchall()
            except sqlite3.Error:
                # Batches beyond this point are lost, and nobody knows how many.
                self.damaged[stream_id] += 1
                return
            if not found:
                return
            for (seq,) in found:
                yield seq
            last = found[-1][0]

    def _decoded(self, table: str, order: str, kind: type[T]) -> list[T]:
        with self._reading(f"table {table}"):
            rows = self._database.execute(f"SELECT json FROM {table} ORDER BY {order}").fetchall()
            return [msgspec.json.decode(json, type=kind) for (json,) in rows]

    @contextmanager
    def _reading(self, part: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, msgspec.DecodeError, TypeError, ValueError) as error:
            raise SpoolDamaged(
                f"{self.path}: {part} cannot be read: {error}; the file is damaged or is no spool. "
                "If a copy was cut short, copy it again together with its -wal file"
            ) from error


def advice(error: Exception) -> str:
    """What to do about a spool that cannot be written."""
    text = str(error)
    if "full" in text or "disk I/O" in text or "No space" in text or "too large" in text:
        return "free some space on this disk (or lift its quota or limit); sampling resumes writing by itself"
    if "readonly" in text or "ermission" in text or "unable to open" in text:
        return "choose a directory that this user may write to"
    return "check the disk and its mount"
