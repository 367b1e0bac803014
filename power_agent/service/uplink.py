"""Hands one session's spool and files over to the director: under credit, and again from the last acknowledged.

It never waits and holds little: what is not acknowledged is on the disk. Whoever owns the socket calls `receive` for
what came and `work` when something may be sent.
"""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from power_agent.messages import Event, Stream
from power_agent.row_format import row_struct
from power_agent.service.message_limits import bounded, fitting, uplink_event
from power_agent.service.session_files import SessionFiles
from power_agent.spool import MAX_BATCH_BYTES, NumberedBatch, SpoolDamaged, SpoolReader
from power_agent.wire.frames import MAX_CHUNK_BYTES
from power_agent.wire.messages import (
    MAX_META_CHARACTERS,
    Ack,
    BatchFrame,
    BulkFromAgent,
    BulkRefused,
    ClockPairRow,
    EventCount,
    FileChunk,
    HandOver,
    StreamsDeclared,
    TablesUpdate,
)

LOOK_S: Final = 0.1  # how often to look for something new on the disk
TABLES_S: Final = 1.0
SILENCE_S: Final = 3.0  # without an answer: declare again
PAUSE_S: Final = 5.0  # after a refusal
BATCHES_AT_ONCE: Final = 16
PAIRS_AT_ONCE: Final = 5000


class Uplink:
    """One session of one host. `send` gives a message to the socket, and says False where it takes none now."""

    def __init__(
        self,
        session: str,
        host: str,
        spool: Path,
        folders: Mapping[str, Path],
        send: Callable[[BulkFromAgent], bool],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`spool` may not exist yet. `folders`: where files that begin with "marks" and "logs" are."""
        self.session = session
        self.whole = False  # all is durable at the director
        self._problems: list[str] = []  # each once
        self._host = host
        self._spool = spool
        self._files = SessionFiles(folders)
        self._send = send
        self._clock_s = clock_s
        self._reader: SpoolReader | None = None
        self._streams: list[Stream] = []  # of the spool, when it was last looked at
        self._declared: list[Stream] | None = None  # None: not since the last silence or refusal
        self._resume_known = False  # the director has told where to go on
        self._sent_seq = 0
        self._acked_seq = 0
        self._on_way: deque[tuple[int, int]] = deque()  # (seq, bytes)
        self._sent_sizes: dict[str, int] = {}
        self._acked_sizes: dict[str, int] = {}
        self._tables_number = 0
        self._tables_acked = 0
        self._tables_last: TablesUpdate | None = None
        self._clock_ns: int | None = None  # of the last pair that was acknowledged
        self._damaged: set[int] = set()  # numbers of batches
        self._row_sizes: dict[int, int] = {}  # by declared stream
        self._refusal = ""
        self._finishing = False
        self._handed_over = False
        self._heard_s = clock_s()
        self._not_before_s = 0.0
        self._unopened_s: float | None = None  # since when the spool cannot be opened
        self._look_s = 0.0
        self._tables_s = 0.0

    @property
    def problems(self) -> list[str]:
        """What a person should know, in plain words."""
        refusal = [self._refusal] if self._refusal else []
        return [*self._problems, *refusal, *(f"session {self.session}: {text}" for text in self._files.problems())]

    @property
    def bytes_on_way(self) -> int:
        """Sent, and not acknowledged."""
        files = sum(max(0, sent - self._acked_sizes.get(path, 0)) for path, sent in self._sent_sizes.items())
        return sum(size for _, size in self._on_way) + files

    def unsent_bytes(self) -> int:
        """What is on this host's disk alone, about: the whole spool until all is handed over."""
        try:
            return 0 if self.whole else self._spool.stat().st_size
        except OSError:
            return 0

    def finish(self) -> None:
        """Sampling has ended: when all is sent, say so. Then `whole` becomes true."""
        self._finishing = True

    @property
    def is_finishing(self) -> bool:
        """Whether sampling has ended."""
        return self._finishing

    @property
    def is_open(self) -> bool:
        """Whether it holds the spool open."""
        return self._reader is not None

    @property
    def is_refused(self) -> bool:
        """Whether the director does not take it now."""
        return bool(self._refusal)

    def hurry(self) -> None:
        """Do not wait after a refusal: the director may think otherwise by now."""
        self._not_before_s = 0.0

    def fail(self, error: Exception) -> None:
        """Something went wrong here that should not: go on after a pause."""
        self._problem(f"handing over {self.session} failed, and is tried again: {type(error).__name__}: {error}")
        self.reset()
        self.close()
        self._not_before_s = self._clock_s() + PAUSE_S

    def reset(self) -> None:
        """The connection is another one: declare again, and send again what is not acknowledged."""
        self._declared = None
        self._forget_way()

    def close(self) -> None:
        """Let go of the spool; it is opened again where there is more to do."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def receive(self, message: Ack | BulkRefused) -> None:
        """Take the director's answer."""
        self._heard_s = self._clock_s()
        if isinstance(message, BulkRefused):
            self._refusal = f"the director does not take {self.session} now: {message.reason}"
            self.reset()
            self.close()  # until it is asked again
            self._not_before_s = self._heard_s + PAUSE_S
            return
        self._refusal = ""
        self._acked_seq = message.seq if not self._resume_known else max(self._acked_seq, message.seq)
        self._sent_seq = max(self._sent_seq, self._acked_seq)
        while self._on_way and self._on_way[0][0] <= self._acked_seq:
            self._on_way.popleft()
        if message.clock_ns is not None:
            self._clock_ns = message.clock_ns
        self._tables_acked = max(self._tables_acked, message.tables)
        self._acked_sizes.update(message.files)
        if not self._resume_known or message.resend:
            self._resume_known = True
            self._forget_way()
            self._resume_known = True
        # A director that had all of it before one of us was started again need not be told what it has.
        self.whole = self.whole or (message.whole and self._finishing)
        if self.whole:
            self.close()

    def work(self, credit_bytes: int) -> int:
        """Send what may be sent, at most `credit_bytes` of rows and file contents; how many were sent."""
        now_s = self._clock_s()
        if self.whole or now_s < self._not_before_s or not self._open():
            return 0
        if self._waits and now_s - self._heard_s > SILENCE_S:
            self.reset()
        try:
            if not self._declare(now_s):
                return 0
            if now_s < self._look_s:
                return 0
            sent = 0
            if credit_bytes > 0:
                sent = self._send_batches(credit_bytes)
                sent += self._send_files(credit_bytes - sent)
                if sent == 0:
                    self._look_s = now_s + LOOK_S
            if now_s >= self._tables_s or self._finishing:
                self._send_tables(now_s)
            self._hand_over()
            return sent
        except SpoolDamaged as error:
            self._problem(str(error))
            self.close()
            self._not_before_s = now_s + PAUSE_S
            return 0

    @property
    def _waits(self) -> bool:
        return (
            (self._declared is not None and not self._resume_known)
            or bool(self._on_way)
            or self._tables_acked < self._tables_number
            or self._handed_over
            or any(self._acked_sizes.get(path, -1) < size for path, size in self._sent_sizes.items())
        )

    def _forget_way(self) -> None:
        self._on_way.clear()
        self._sent_seq = self._acked_seq
        self._sent_sizes = dict(self._acked_sizes)
        self._tables_acked = self._tables_number  # none is awaited; the next one is whole
        self._tables_last = None
        self._handed_over = False
        self._resume_known = False
        self._tables_s = self._look_s = 0.0

    def _open(self) -> bool:
        if self._reader is None and self._spool.is_file():
            try:
                self._reader = SpoolReader(self._spool)
            except SpoolDamaged as error:
                now_s = self._clock_s()
                self._unopened_s = self._unopened_s if self._unopened_s is not None else now_s
                if now_s - self._unopened_s > PAUSE_S:  # before that its writer may be making it
                    self._problem(str(error))
                self._not_before_s = now_s + LOOK_S
        return self._reader is not None

    def _declare(self, now_s: float) -> bool:
        """Whether batches may be sent: the streams are declared, and the director has said where to go on."""
        assert self._reader is not None
        if self._declared is None or now_s >= self._tables_s:
            self._streams = self._reader.streams()
        known = self._declared
        if known is not None:
            same = self._streams[: len(known)]
            known = self._declared = same if same == known else None  # the same objects are compared at once
        if known is not None and (len(known) == len(self._streams) or not self._resume_known):
            return self._resume_known
        # Of many, some at a time: they must fit into a message.
        more = fitting(self._streams[len(known or []) :])
        if not self._send(StreamsDeclared(session=self.session, host=self._host, streams=more, meta=self._meta())):
            return False
        self._forget_way()
        self._declared = [*(known or []), *more]
        self._row_sizes = {stream.id: row_struct(stream.channels).size for stream in self._declared}
        self._heard_s = now_s
        self._tables_s = now_s + TABLES_S
        return False

    def _send_batches(self, credit_bytes: int) -> int:
        assert self._reader is not None
        sent = 0
        while sent < credit_bytes:
            found = self._reader.batches_after(self._sent_seq, BATCHES_AT_ONCE)
            for batch in found:
                if sent >= credit_bytes:
                    return sent
                if batch.stream not in self._row_sizes and self._is_new(batch.stream):
                    self._declared = None  # it comes first
                    return sent
                if not self._is_intact(batch):
                    self._damaged.add(batch.seq)
                    self._sent_seq = batch.seq
                    continue
                previous = self._on_way[-1][0] if self._on_way else self._acked_seq
                message = BatchFrame(
                    session=self.session,
                    host=self._host,
                    seq=batch.seq,
                    previous=previous,
                    stream=batch.stream,
                    rows=batch.rows,
                    crc32=batch.crc32,
                    payload=batch.payload,
                )
                if not self._push(message):
                    return sent
                self._sent_seq = batch.seq
                self._on_way.append((batch.seq, len(batch.payload)))
                sent += len(batch.payload)
            if len(found) < BATCHES_AT_ONCE:
                return sent
        return sent

    def _is_new(self, stream: int) -> bool:
        assert self._reader is not None
        return any(known.id == stream for known in self._reader.streams())

    def _is_intact(self, batch: NumberedBatch) -> bool:
        """Whether the director can take it: one that it cannot would be asked for again for ever."""
        row_size = self._row_sizes.get(batch.stream, 0)
        try:
            size = len(batch.payload)
            fits = 0 < size == batch.rows * row_size and size <= max(MAX_BATCH_BYTES, row_size)
            return fits and zlib.crc32(batch.payload) == batch.crc32
        except TypeError:  # a damaged file may give anything
            return False

    def _meta(self) -> dict[str, str]:
        """Table `meta`, as far as it may be sent."""
        assert self._reader is not None
        return {key: text for key, text in self._reader.meta().items() if len(text) <= MAX_META_CHARACTERS}

    def _send_files(self, credit_bytes: int) -> int:
        sent = 0
        for name, file in self._files.found():
            offset, size = self._sent_sizes.get(name, -1), file.size
            while sent < credit_bytes and (offset < size):
                start = max(0, offset)
                try:
                    content = file.read(start, min(MAX_CHUNK_BYTES, size - start))
                except OSError as error:
                    self._files.is_unreadable(name, error)
                    break
                chunk = FileChunk(session=self.session, host=self._host, path=name, offset=start, content=content)
                if not self._push(chunk):
                    return sent
                offset = self._sent_sizes[name] = start + len(content)
                sent += len(content)
                if not content:
                    break
        return sent

    def _send_tables(self, now_s: float) -> None:
        assert self._reader is not None
        if self._tables_acked < self._tables_number:
            return  # one at a time, so that the clock pairs go on from what is acknowledged
        after_ns = -(2**63) if self._clock_ns is None else self._clock_ns
        pairs = self._reader.clock_after(after_ns, PAIRS_AT_ONCE)
        events = [
            EventCount(event=Event(t_ns=t_ns, level=level, source=source, text=text), count=times)
            for t_ns, level, source, text, times in self._reader.logged_events()
        ]
        events = bounded([*events, *self._own_events()])
        update = TablesUpdate(
            session=self.session,
            host=self._host,
            number=self._tables_number + 1,
            clock=[ClockPairRow(*pair) for pair in pairs],
            ticks=self._reader.ticks(),
            events=events,
            meta=self._meta(),
        )
        last = self._tables_last
        if not pairs and last is not None and _same_tables(update, last):
            self._tables_s = now_s + TABLES_S
            return
        if self._push(update):
            self._tables_number += 1
            self._tables_last = update
            # A long recording has many pairs: no pause while there are more.
            self._tables_s = now_s if len(pairs) == PAIRS_AT_ONCE else now_s + TABLES_S

    def _own_events(self) -> list[EventCount]:
        """What became of all this on its way, for the report. The director keeps each text that it is told."""
        own = []
        if self._damaged:
            text = f"a batch was damaged on the disk of {self._host}; the readings in it are missing"
            own.append(EventCount(event=uplink_event("error", text), count=len(self._damaged)))
        if self._finishing:  # before, the figures change
            own += [EventCount(event=uplink_event("warning", text)) for text in self._files.left_out()]
        return own

    def _hand_over(self) -> None:
        """Say that this is all, once all is acknowledged."""
        assert self._reader is not None
        if not self._finishing or self._handed_over or self._waits or self._tables_last is None:
            return
        if self._reader.batches_after(self._sent_seq, 1):
            return
        last_ns = self._clock_ns if self._clock_ns is not None else -(2**63)
        if self._reader.clock_after(last_ns, 1):
            return
        files = {name: file.size for name, file in self._files.found()}
        if any(self._acked_sizes.get(name, -1) < size for name, size in files.items()):
            return
        message = HandOver(
            session=self.session, host=self._host, last_seq=self._acked_seq, tables=self._tables_number, files=files
        )
        self._handed_over = self._push(message)

    def _push(self, message: BulkFromAgent) -> bool:
        if not self._waits:
            self._heard_s = self._clock_s()  # silence counts from the first question
        return self._send(message)

    def _problem(self, text: str) -> None:
        if text not in self._problems and len(self._problems) < 20:
            self._problems.append(text)


def _same_tables(one: TablesUpdate, other: TablesUpdate) -> bool:
    return (one.ticks, one.events, one.meta) == (other.ticks, other.events, other.meta)
