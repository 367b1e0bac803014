"""One host's part of a session at the director: a copy of its spool under the same batch numbers, and of its files.

The spool's format is that of `power_agent.spool`, so that a session made over the network is read as any other. One
more table, `files`, says how much of each file is durable.
"""

from __future__ import annotations

import os
import re
import sqlite3
import zlib
from collections.abc import Mapping
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import msgspec

from director.session.files import spool_path, sync_directory
from power_agent.messages import SPOOL_VERSION, Stream, TickCount
from power_agent.row_format import row_struct
from power_agent.spool import MAX_BATCH_BYTES, SCHEMA, SpoolDamaged, SpoolReader
from power_agent.wire.frames import MAX_CHUNK_BYTES
from power_agent.wire.messages import BatchFrame, FileChunk, HandOver, StreamsDeclared, TablesUpdate

_FILES = "CREATE TABLE IF NOT EXISTS files(path TEXT PRIMARY KEY, size INTEGER NOT NULL);"
_MAX_WAL_BYTES = 8 << 20
_HANDED_OVER = "handed_over"  # key of table `meta`: all that the host recorded is here
_BASE, _TICKS_BEFORE = "seq_base", "ticks_before"  # keys, too: see `_begin_another`
_SPOOL_ID = ("started_ns", "boot_id")
_EARLIER = "earlier_spools"  # and this: when those before were begun
_OURS = ("spool_version", _HANDED_OVER, _BASE, _TICKS_BEFORE, _EARLIER)  # whatever is sent
MAX_FILES = 10_000
MAX_STREAMS = 1000
_LARGEST = 2**63 - 1  # that SQLite holds

Outcome = Literal["taken", "repeat", "resend"]


class NotTaken(Exception):
    """Something that came does not fit what is here; repeating it does not help. The text says why."""


def is_handed_over(session: Path, host: str) -> bool:
    """Whether all that the host recorded is durable in the session's directory, as an earlier director found."""
    path = spool_path(session, host)
    if not path.is_file():
        return False
    try:
        reader = SpoolReader(path)
    except SpoolDamaged:
        return False
    try:
        return reader.meta().get(_HANDED_OVER) == "1"
    except SpoolDamaged:
        return False
    finally:
        reader.close()


class Replica:
    """Collects what came with `add_…`, writes it with `write`, and makes it durable when its files are synced.

    After `write` has failed, nothing that was collected is there, and `size_of` and `seq` stand where they stood.
    """

    def __init__(self, session: Path, host: str) -> None:
        """Open, or make, the host's spool in a session's directory.

        Raises:
            OSError, sqlite3.Error: the disk is full or fails.
        """
        self._session = session
        self._host = host
        path = spool_path(session, host)
        path.parent.mkdir(exist_ok=True)
        is_new = not path.exists()
        # synchronous=NORMAL syncs at checkpoints alone; the store syncs the -wal file once for each group of commits.
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        execute = self._database.execute
        try:
            execute("PRAGMA journal_mode = WAL")
            execute("PRAGMA synchronous = NORMAL")
            # What a killed director had not synced is here all the same, and will be acknowledged: sync it now.
            execute("PRAGMA wal_checkpoint(TRUNCATE)")
            execute(f"PRAGMA journal_size_limit = {_MAX_WAL_BYTES}")
            execute("PRAGMA cache_size = -128")  # KiB: there may be a thousand of these
            if not execute("SELECT count(*) FROM sqlite_master WHERE name = 'batches'").fetchone()[0]:
                version = f"INSERT INTO meta VALUES('spool_version', '{SPOOL_VERSION}');"
                self._database.executescript(f"BEGIN; {SCHEMA} {_FILES} {version} COMMIT;")
            else:
                execute(_FILES)
            meta = dict(execute("SELECT key, value FROM meta"))
            self._base = int(meta.get(_BASE, "0"))  # numbers here are so much higher than at the agent
            self._ticks_before = msgspec.json.decode(meta.get(_TICKS_BEFORE, "[]"), type=list[TickCount])
            self._spool_id = _spool_id(meta)
            self._earlier = msgspec.json.decode(meta.get(_EARLIER, "[]"), type=list[tuple[str, str]])
            self.seq: int = execute("SELECT coalesce(max(seq), 0) FROM batches").fetchone()[0] - self._base
            self.clock_ns: int | None = execute("SELECT max(monotonic_ns) FROM clock").fetchone()[0]
            self._streams = {
                number: msgspec.json.decode(json, type=Stream)
                for number, json in execute("SELECT id, json FROM streams")
            }
            self._sizes = self._durable_sizes(dict(execute("SELECT path, size FROM files")))
            self.wal = os.open(path.with_name(path.name + "-wal"), os.O_RDONLY | os.O_CLOEXEC)
            if is_new:
                sync_directory(path.parent)
        except BaseException:
            self._database.close()
            raise
        self._next_streams = dict(self._streams)  # with those that were declared and not written yet
        self._row_sizes = {number: row_struct(stream.channels).size for number, stream in self._streams.items()}
        self._added: list[tuple[str, list[tuple[object, ...]]]] = []
        self._batches: list[tuple[int, int, int, int, bytes]] = []
        self._chunks: list[FileChunk] = []
        self._next_seq = self.seq  # the last of those collected
        self._next_base, self._next_ticks_before = self._base, self._ticks_before
        self._next_spool_id, self._next_earlier = self._spool_id, self._earlier
        self._next_sizes = dict(self._sizes)
        self.unsynced: list[int] = []  # descriptors of files and folders that were written and not yet synced

    def close(self) -> None:
        """Release the files; what was not written is forgotten."""
        self._close_unsynced()
        os.close(self.wal)
        self._database.close()

    def declare(self, message: StreamsDeclared) -> None:
        """Learn of streams. What was collected and not written is forgotten: the agent begins anew from `seq`.

        Raises:
            NotTaken: a stream is another than the one that was declared under its number, or one of too many; or this
                is a spool that came before the one that came last.
        """
        self.forget()
        spool_id = _spool_id(message.meta)
        if spool_id in self._earlier:
            raise NotTaken(
                f"two agents speak under the name {self._host}: start one of them with another --host; what is here of "
                "this one is kept"
            )
        if len(self._streams.keys() | {stream.id for stream in message.streams}) > MAX_STREAMS:
            raise NotTaken(f"{self._host} has more than {MAX_STREAMS} streams in one session")
        new: list[tuple[object, ...]] = []
        for stream in message.streams:
            known = self._streams.get(stream.id)
            if known is not None and known != stream:
                raise NotTaken(f"stream {stream.id} of {self._host} was declared with other channels before")
            if known is None:
                if not (0 <= stream.id < 2**31 and stream.channels):
                    raise NotTaken(f"stream {stream.id} of {self._host} has no channels or no valid number")
                new.append((stream.id, msgspec.json.encode(stream)))
        for stream in message.streams:
            self._next_streams[stream.id] = stream
            self._row_sizes[stream.id] = row_struct(stream.channels).size
        self._added.append(("INSERT OR IGNORE INTO streams VALUES(?, ?)", new))
        if self._spool_id is not None and spool_id is not None and spool_id != self._spool_id:
            self._begin_another(self._spool_id, int(spool_id[0]))
        self._next_spool_id = spool_id or self._spool_id
        self._add_meta(message.meta)
        self._note_handed_over(False)

    def add_batch(self, message: BatchFrame) -> Outcome:
        """Collect a batch. "resend": the one before it is missing, or it was damaged on the way.

        Raises:
            NotTaken: it belongs to no stream that was declared, or is too long.
        """
        if message.seq <= self._next_seq:
            return "repeat"
        row_size = self._row_sizes[message.stream] if message.stream in self._next_streams else None
        if row_size is None:
            raise NotTaken(f"a batch of stream {message.stream} of {self._host}, which was not declared")
        if len(message.payload) > max(MAX_BATCH_BYTES, row_size):
            raise NotTaken(f"a batch of {len(message.payload)} bytes from {self._host}; the limit is {MAX_BATCH_BYTES}")
        if self._next_base + message.seq > _LARGEST:
            raise NotTaken(f"{self._host} sends a batch of number {message.seq}, which is too high")
        if message.previous != self._next_seq or message.rows * row_size != len(message.payload):
            return "resend"
        if zlib.crc32(message.payload) != message.crc32:
            return "resend"
        self._batches.append(
            (self._next_base + message.seq, message.stream, message.rows, message.crc32, message.payload)
        )
        self._next_seq = message.seq
        return "taken"

    def add_tables(self, message: TablesUpdate) -> None:
        """Collect rows of the small tables.

        Raises:
            NotTaken: a number in them is none of a spool.
        """
        numbers = [row.event.t_ns for row in message.events] + [tick.stream for tick in message.ticks]
        if any(abs(number) > _LARGEST for number in numbers):
            raise NotTaken(f"the tables of {self._host} hold a number that is too large")
        add = self._added.append
        add(("INSERT OR REPLACE INTO clock VALUES(?, ?, ?)", [msgspec.structs.astuple(pair) for pair in message.clock]))
        before = {tick.stream: tick for tick in self._next_ticks_before}
        ticks: list[tuple[object, ...]] = [
            (tick.stream, msgspec.json.encode(_together(before.get(tick.stream), tick))) for tick in message.ticks
        ]
        add(("INSERT OR REPLACE INTO ticks VALUES(?, ?)", ticks))
        events: list[tuple[object, ...]] = [
            (row.event.t_ns, row.event.level, row.event.source, row.event.text, row.count) for row in message.events
        ]
        add(("INSERT OR REPLACE INTO events VALUES(?, ?, ?, ?, ?)", events))
        self._add_meta({key: value for key, value in message.meta.items() if key not in _SPOOL_ID})

    def add_chunk(self, message: FileChunk) -> Outcome:
        """Collect bytes of a file. "resend": the bytes before them are missing.

        Raises:
            NotTaken: it is too long, or one of too many files.
        """
        size = self._next_sizes.get(message.path, 0)
        end = message.offset + len(message.content)
        if len(message.content) > MAX_CHUNK_BYTES:
            raise NotTaken(f"{len(message.content)} bytes of {message.path} at once; the limit is {MAX_CHUNK_BYTES}")
        if message.path not in self._next_sizes and len(self._next_sizes) >= MAX_FILES:
            raise NotTaken(f"{self._host} has more than {MAX_FILES} files in one session")
        if message.offset > size:
            return "resend"
        if end <= size and message.path in self._next_sizes:
            return "repeat"
        self._chunks.append(message)
        self._next_sizes[message.path] = end
        return "taken"

    def size_of(self, path: str) -> int:
        """How many bytes of a file are here."""
        return self._sizes.get(path, 0)

    @property
    def sizes(self) -> dict[str, int]:
        """The same for all files."""
        return dict(self._sizes)

    def note_hand_over(self, message: HandOver) -> None:
        """The host says that this is all: where all of it is here, or collected, that is kept for the next director."""
        sizes = self._next_sizes
        if self._next_seq >= message.last_seq and all(
            sizes.get(path, -1) >= size for path, size in message.files.items()
        ):
            self._note_handed_over(True)

    def forget(self) -> None:
        """Drop what was collected and not written."""
        self._added, self._batches, self._chunks = [], [], []
        self._next_seq = self.seq
        self._next_base, self._next_ticks_before = self._base, self._ticks_before
        self._next_spool_id, self._next_earlier = self._spool_id, self._earlier
        self._next_sizes = dict(self._sizes)
        self._next_streams = dict(self._streams)

    def write(self) -> None:
        """Write all that was collected, in one transaction. It is durable once `wal` and `unsynced` are synced.

        Raises:
            OSError, sqlite3.Error: the disk is full or fails; nothing was written.
        """
        execute, execute_many = self._database.execute, self._database.executemany
        try:
            for chunk in self._chunks:
                self._write_chunk(chunk)
            execute("BEGIN IMMEDIATE")
            for statement, rows in self._added:
                execute_many(statement, rows)
            execute_many("INSERT OR IGNORE INTO batches VALUES(?, ?, ?, ?, ?)", self._batches)
            changed = {chunk.path: self._next_sizes[chunk.path] for chunk in self._chunks}
            execute_many("INSERT OR REPLACE INTO files VALUES(?, ?)", list(changed.items()))
            execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                execute("ROLLBACK")
            self.forget()
            self._close_unsynced()
            raise
        self.seq = self._next_seq
        self._base, self._ticks_before = self._next_base, self._next_ticks_before
        self._spool_id, self._earlier = self._next_spool_id, self._next_earlier
        self._sizes = dict(self._next_sizes)
        self._streams = dict(self._next_streams)
        if any("INTO clock" in statement and rows for statement, rows in self._added):
            self.clock_ns = execute("SELECT max(monotonic_ns) FROM clock").fetchone()[0]
        self._added, self._batches, self._chunks = [], [], []

    def take_unsynced(self) -> list[int]:
        """The descriptors of written files, for the caller to sync and close."""
        taken, self.unsynced = self.unsynced, []
        return taken

    def _close_unsynced(self) -> None:
        for descriptor in self.take_unsynced():
            os.close(descriptor)

    def _note_handed_over(self, is_so: bool) -> None:
        self._added.append(("INSERT OR REPLACE INTO meta VALUES(?, ?)", [(_HANDED_OVER, str(int(is_so)))]))

    def _begin_another(self, before: tuple[str, str], started_ns: int) -> None:
        """The host has begun another spool, as where its files were deleted: what is here stays, and what comes is new.

        Its numbers begin at 1 again, its ledger at 0, and so do its logs, whose earlier ones get another name.
        """
        self._next_base, self._next_seq = self._base + self.seq, 0
        self._next_earlier = [*self._earlier, before]
        ticks = [json for (json,) in self._database.execute("SELECT json FROM ticks")]
        self._next_ticks_before = [msgspec.json.decode(json, type=TickCount) for json in ticks]
        rows: list[tuple[object, ...]] = [
            (_BASE, str(self._next_base)),
            (_TICKS_BEFORE, msgspec.json.encode(self._next_ticks_before).decode()),
            (_EARLIER, msgspec.json.encode(self._next_earlier).decode()),
        ]
        self._added.append(("INSERT OR REPLACE INTO meta VALUES(?, ?)", rows))
        text = f"the files of the agent on {self._host} were deleted while it measured; what it had not sent is missing"
        event = (started_ns, "warning", "uplink", text, 1)
        self._added.append(("INSERT OR REPLACE INTO events VALUES(?, ?, ?, ?, ?)", [event]))
        logs = [path for path in self._sizes if path.startswith("logs/")]
        for path in logs:
            del self._next_sizes[path]
            with suppress(FileNotFoundError):  # renamed already, when the disk was full
                self._path(path).rename(self._path(f"{path}.{started_ns}"))
        self._added.append(("DELETE FROM files WHERE path = ?", [(path,) for path in logs]))

    def _add_meta(self, meta: dict[str, str]) -> None:
        rows: list[tuple[object, ...]] = [(key, value) for key, value in meta.items() if key not in _OURS]
        self._added.append(("INSERT OR REPLACE INTO meta VALUES(?, ?)", rows))

    def _durable_sizes(self, recorded: dict[str, int]) -> dict[str, int]:
        """How much of each file is really here, after a crash or a power cut; synced."""
        sizes = {}
        for path, size in recorded.items():
            try:
                with self._path(path).open("rb") as file:
                    os.fsync(file.fileno())
                    sizes[path] = min(size, os.fstat(file.fileno()).st_size)
            except FileNotFoundError:
                continue  # it comes again, whole
        return sizes

    def _path(self, path: str) -> Path:
        # The message's type allows marks/… and logs/… without "..": see wire.messages.HostFile.
        kind, _, name = path.partition("/")
        return self._session / kind / self._host / name

    def _write_chunk(self, chunk: FileChunk) -> None:
        """Write where the chunk belongs: what a crash left beyond the recorded size is written over."""
        path = self._path(chunk.path)
        if chunk.path not in self._sizes:
            self._make_folders(path.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o644)
        self.unsynced.append(descriptor)
        rest, offset = memoryview(chunk.content), chunk.offset
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            rest, offset = rest[written:], offset + written

    def _make_folders(self, folder: Path) -> None:
        """Make them, and see that the names of new files are synced, too."""
        folder.mkdir(parents=True, exist_ok=True)
        for one in (folder, *folder.parents):
            self.unsynced.append(os.open(one, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            if one == self._session:
                return


def _spool_id(meta: Mapping[str, str]) -> tuple[str, str] | None:
    """When a spool was begun, and in which boot: of no other one; None: it does not say."""
    started_ns, boot_id = (meta.get(key, "") for key in _SPOOL_ID)
    return (started_ns, boot_id) if re.fullmatch(r"\d{1,18}", started_ns, re.ASCII) else None


def _together(one: TickCount | None, other: TickCount) -> TickCount:
    """The ledger of a stream that two spools have recorded; the time between them is in neither."""
    if one is None:
        return other
    return msgspec.structs.replace(
        other,
        due=one.due + other.due,
        taken=one.taken + other.taken,
        late=one.late + other.late,
        missed=one.missed + other.missed,
        extra=one.extra + other.extra,
        dropped_rows=one.dropped_rows + other.dropped_rows,
        lateness_log2_us=[a + b for a, b in zip_longest(one.lateness_log2_us, other.lateness_log2_us, fillvalue=0)],
    )
