"""Who measures: one session at a time, the client that has it, and what becomes of it when that client is gone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from director.mlperf.protocol.meter import MeterSource
from director.mlperf.protocol.session import Session
from director.mlperf.protocol.session_log import SessionLog
from power_agent.mlperf_protocol import FILES, Record

REJOIN_S = 600.0  # a stage whose client was lost goes on for so long
_MAX_FINISHED = 1000  # sessions whose files can be fetched


class Busy(Exception):
    """Another client measures: who, and what."""


class Desk:
    """Shared by all connections."""

    def __init__(self, output: Path, source: MeterSource, *, rejoin_s: float = REJOIN_S) -> None:
        self.is_closed = False
        self._output = output
        self._source = source
        self._rejoin_s = rejoin_s
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._record = Record()
        self._owner: object | None = None  # None: the client was lost
        self._owner_name = ""
        self._lost_at = 0.0
        self._finished: dict[str, Path] = {}

    def new_session(
        self, owner: object, owner_name: str, label: str, client_uuid: str, log: SessionLog, record: Record
    ) -> Session:
        """A new session; one whose client is gone ends for it, as does one that the same client left unfinished.

        Raises:
            Busy: another client's session is not finished.
            OSError: its folder cannot be made.
        """
        self._end_if(lambda: self._owner in (None, owner))
        with self._lock:
            if self._session is not None:
                raise Busy(f"session {self._session.name} of {self._owner_name} is not finished")
            if self.is_closed:
                raise Busy("the server ends")
            session = Session(self._output, label, client_uuid, self._source, log)
            self._session, self._record = session, record
            self._owner, self._owner_name = owner, owner_name
        self._tell(f"session {session.name} of {owner_name}")
        return session

    def rejoin(self, owner: object, owner_name: str, name: str, record: Record) -> tuple[Session, Record] | None:
        """The session of that name whose client was lost, for the client that came back; None: there is none."""
        with self._lock:
            session = self._session
            if session is None or session.name != name or self._owner is not None:
                return None
            self._owner, self._owner_name = owner, owner_name
            self._record.messages.extend(record.messages)
            session.log.warn(f"the client is back, from {owner_name}")
            return session, self._record

    @contextmanager
    def held(self, session: Session) -> Iterator[bool]:
        """No other thread works on the session within this block. False: it was ended."""
        with session.lock:
            yield session is self._session

    def finish(self, session: Session) -> None:
        """End a session; its files can be fetched from then on."""
        self._end_if(lambda: self._session is session)

    def leave(self, owner: object, why: str) -> None:
        """A client is gone. Its stage goes on for a while, in case it comes back; anything else is finished."""
        with self._lock:
            if self._session is None or self._owner is not owner:
                return
            if self._session.measures and not self.is_closed:
                self._session.log.warn(f"the client is lost ({why}); measuring goes on for {self._rejoin_s:g} s")
                self._owner, self._lost_at = None, time.monotonic()
                return
            self._session.log.warn(f"the client left before the end ({why})")
        self._end_if(lambda: self._owner is owner)

    def look_after_orphan(self) -> None:
        """Finish a session whose client did not come back."""
        why = "the client did not come back; the session ends with what was measured"
        self._end_if(lambda: self._owner is None and time.monotonic() > self._lost_at + self._rejoin_s, why)

    def close(self) -> None:
        """Finish what runs; no session begins from now on."""
        with self._lock:
            self.is_closed = True
        self._end_if(lambda: True)

    def close_if_idle(self) -> None:
        """A client that asked to stop the server has left: close, unless a session runs."""
        with self._lock:
            self.is_closed = self.is_closed or self._session is None

    def file_of(self, name: str, file: str) -> Path | None:
        """A file of a finished session, if there are both."""
        with self._lock:
            folder = self._finished.get(name)
        path = folder / file if folder is not None and file in FILES else None
        return path if path is not None and path.is_file() else None

    def is_finished(self, name: str) -> bool:
        """Whether there is a finished session of that name."""
        with self._lock:
            return name in self._finished

    def _end_if(self, is_to_end: Callable[[], bool], why: str = "") -> None:
        """End the session where that holds. It takes seconds, in which others are still answered."""
        with self._lock:
            session, record = self._session, self._record
            if session is None or not is_to_end():
                return
        with session.lock:
            if why:
                session.log.warn(why)
            session.finish(record)
        with self._lock:
            if self._session is not session:
                return
            self._session = self._owner = None
            while len(self._finished) >= _MAX_FINISHED:
                del self._finished[next(iter(self._finished))]
            self._finished[session.name] = session.folder
        self._tell(f"session {session.name} is finished: {session.folder}")

    @staticmethod
    def _tell(text: str) -> None:
        print(f"power-director: {text}", file=sys.stderr, flush=True)
