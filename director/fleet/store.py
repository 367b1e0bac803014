"""The store of running sessions: takes what agents send, makes it durable for many of them at once, then acknowledges.

Nothing is acknowledged before it is on the disk. What comes twice is ignored by its number or offset. A full disk is
told to the agents, which keep what they have; other sessions and hosts are not touched.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from director.fleet.replica import NotTaken, Replica
from power_agent.wire.messages import (
    Ack,
    BatchFrame,
    BulkFromAgent,
    BulkFromDirector,
    BulkRefused,
    FileChunk,
    HandOver,
    StreamsDeclared,
    TablesUpdate,
)

FEW_FILES = 8  # so many are synced one by one; for more, one sync of the whole file system is cheaper
MOST_OPEN = 2000  # spools, each with four descriptors

Reply = tuple[bytes, BulkFromDirector]  # to which connection, what

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class _Session:
    directory: Path
    hosts: frozenset[str] | None  # None: any host
    whole: frozenset[str]  # hosts that have handed over all
    ending: bool


@dataclass
class _Peer:
    """One host's hand-over of one session, on the connection that spoke last."""

    replica: Replica
    route: bytes
    number: int = 0  # of the last TablesUpdate collected
    rows: int = 0  # collected, and not durable yet
    answer: bool = False  # an Ack is due though nothing may be new
    resend: bool = False
    asked_again: bool = False  # one request to send again is on its way: more would only multiply what comes
    all_files: bool = False  # tell the sizes of all files, not only of those that changed
    files: set[str] = field(default_factory=set)  # that changed since the last Ack
    hand_over: HandOver | None = None


class FleetStore:
    """`take` and `commit` belong to one thread; the others may be called by any, and `admit` and `dismiss` may wait for
    the disk."""

    def __init__(
        self,
        tell: Callable[[str], None],
        on_whole: Callable[[str, str], None] = lambda _session, _host: None,
        most_open: int = MOST_OPEN,
    ) -> None:
        """`tell` hears what a person should know: that a disk is full, and that it works again.

        `on_whole` (session, host) hears that all of a host is durable; it is called by `commit` and must not wait.
        `most_open` spools are open at a time, or as many as have something to write.
        """
        self._tell = tell
        self._most_open = most_open
        self._on_whole = on_whole
        self._lock = threading.Lock()
        self._sessions: dict[str, _Session] = {}
        self._peers: OrderedDict[tuple[str, str], _Peer] = OrderedDict()  # the one that was silent longest first
        self._touched: dict[tuple[str, str], _Peer] = {}
        self._progress: dict[str, dict[str, int]] = {}  # by session and host
        self._failing: set[tuple[str, str]] = set()  # told once, not at each try
        self.readings_rows = 0  # rows that were made durable
        self.repeats = 0

    def admit(
        self,
        session: str,
        directory: Path,
        hosts: Collection[str] | None = None,
        *,
        whole: Collection[str] = (),
        ending: bool = True,
    ) -> None:
        """Take what these hosts send for a session (None: any host) into its directory. Repeated harmlessly.

        Hosts in `whole` are told that all they have is here. Until the session is `ending` nobody is told so: an agent
        that is started again while it is measured shall go on in the spool that it has.
        """
        with self._lock:
            any_or_hosts = None if hosts is None else frozenset(hosts)
            self._sessions[session] = _Session(directory, any_or_hosts, frozenset(whole), ending)

    def progress(self, session: str) -> dict[str, int]:
        """A number by host that rises with what became durable; of hosts that send. It waits for no disk."""
        return dict(self._progress.get(session, {}))

    def dismiss(self, session: str) -> None:
        """Take nothing for this session any more, and let go of its files."""
        with self._lock:
            self._sessions.pop(session, None)
            self._progress.pop(session, None)
            for key in [key for key in self._peers if key[0] == session]:
                self._peers.pop(key).replica.close()
                self._touched.pop(key, None)
                self._failing.discard(key)

    def take(self, route: bytes, message: BulkFromAgent) -> BulkFromDirector | None:
        """Collect a message from a connection. Returns a refusal, if any; acknowledgements come from `commit`."""
        with self._lock:
            key = (message.session, message.host)
            known = self._sessions.get(message.session)
            if known is not None and message.host in known.whole:
                return Ack(session=message.session, seq=0, whole=True)
            try:
                peer = self._peer(key, route)
                self._touched[key] = peer
                self._collect(peer, message)
            except NotTaken as error:
                return BulkRefused(session=message.session, reason=str(error)[:2000])
            except Exception as error:  # of one host; the others are served
                return self._refusal(key, error)
            return None

    def commit(self) -> list[Reply]:
        """Make all that was collected durable. Returns the acknowledgements, and refusals where that failed."""
        with self._lock:
            touched, self._touched = self._touched, {}
            replies: list[Reply] = []
            written: list[tuple[tuple[str, str], _Peer]] = []
            for key, peer in touched.items():
                try:
                    end = peer.hand_over
                    if end is not None and peer.number >= end.tables:
                        peer.replica.note_hand_over(end)
                    peer.replica.write()
                    written.append((key, peer))
                except Exception as error:  # of one host; the others are served
                    peer.rows = 0
                    replies.append((peer.route, self._refusal(key, error)))
            failed = _sync([peer.replica for _, peer in written])
            for key, peer in written:
                failure = failed.get(id(peer.replica))
                if failure is not None:
                    # What the disk holds is unknown now: read it anew before anything is acknowledged.
                    self._peers.pop(key).replica.close()
                    replies.append((peer.route, self._refusal(key, failure)))
                else:
                    replies += self._acknowledge(key, peer)
            return replies

    def close(self) -> None:
        """Let go of all files."""
        for session in list(self._sessions):
            self.dismiss(session)

    def _peer(self, key: tuple[str, str], route: bytes) -> _Peer:
        name, host = key
        session = self._sessions.get(name)
        if session is None:
            raise NotTaken(f"there is no session {name} at this director now; keep its data, and ask again later")
        if session.hosts is not None and host not in session.hosts:
            raise NotTaken(f"the session {name} does not measure {host}")
        peer = self._peers.get(key)
        if peer is None:
            self._close_some()
            peer = self._peers[key] = _Peer(Replica(session.directory, host), route)
        peer.route = route
        self._peers.move_to_end(key)
        return peer

    def _close_some(self) -> None:
        """Let go of what was used longest ago; it is opened again when something comes for it."""
        idle = (key for key in list(self._peers) if key not in self._touched)
        while len(self._peers) >= self._most_open and (key := next(idle, None)) is not None:
            self._peers.pop(key).replica.close()

    def _collect(self, peer: _Peer, message: BulkFromAgent) -> None:
        if isinstance(message, BatchFrame):
            outcome = peer.replica.add_batch(message)
            if outcome == "taken":
                peer.rows += message.rows
                peer.asked_again = False
            self._note(peer, outcome)
        elif isinstance(message, FileChunk):
            outcome = peer.replica.add_chunk(message)
            if outcome == "taken":
                peer.files.add(message.path)
            self._note(peer, outcome)
        elif isinstance(message, TablesUpdate):
            peer.replica.add_tables(message)
            peer.number = message.number
        elif isinstance(message, StreamsDeclared):
            peer.replica.declare(message)
            peer.rows = 0  # what was not written is forgotten
            peer.number, peer.hand_over, peer.asked_again = 0, None, False
            peer.all_files = True
        else:
            peer.hand_over = message
        peer.answer = True

    def _note(self, peer: _Peer, outcome: str) -> None:
        if outcome == "repeat":
            self.repeats += 1
        elif outcome == "resend" and not peer.asked_again:
            peer.resend = peer.asked_again = True

    def _acknowledge(self, key: tuple[str, str], peer: _Peer) -> list[Reply]:
        if key in self._failing:
            self._failing.discard(key)
            self._tell(f"session {key[0]}: what {key[1]} sends can be stored again")
        replica = peer.replica
        whole = self._sessions[key[0]].ending and _is_whole(peer)
        if whole:
            self._on_whole(*key)
        paths = list(replica.sizes) if peer.all_files else peer.files
        ack = Ack(
            session=key[0],
            seq=replica.seq,
            tables=peer.number,
            clock_ns=replica.clock_ns,
            files={path: replica.size_of(path) for path in paths},
            resend=peer.resend,
            whole=whole,
        )
        self._progress.setdefault(key[0], {})[key[1]] = (
            replica.seq + sum(replica.sizes.values()) + (replica.clock_ns or 0)
        )
        self.readings_rows += peer.rows
        peer.rows = 0
        peer.resend = peer.answer = peer.all_files = False
        peer.files = set()
        return [(peer.route, ack)]

    def _refusal(self, key: tuple[str, str], error: Exception) -> BulkRefused:
        session, host = key
        reason = f"the director cannot store it: {error}"
        if key not in self._failing:
            self._failing.add(key)
            todo = "; free some space where the sessions are" if isinstance(error, (OSError, sqlite3.Error)) else ""
            self._tell(
                f"session {session}: what {host} sends cannot be stored: {error}{todo}. The agent keeps everything and "
                "sends it again by itself"
            )
        return BulkRefused(session=session, reason=reason[:2000])


def _is_whole(peer: _Peer) -> bool:
    end = peer.hand_over
    if end is None or peer.replica.seq < end.last_seq or peer.number < end.tables:
        return False
    return all(path in peer.replica.sizes and peer.replica.size_of(path) >= size for path, size in end.files.items())


def _sync(replicas: list[Replica]) -> dict[int, OSError]:
    """Make what these have written durable; the errors by id of the replica."""
    failed: dict[int, OSError] = {}
    descriptors = [(replica, [replica.wal, *replica.take_unsynced()]) for replica in replicas]
    few = sum(len(found) for _, found in descriptors) <= FEW_FILES
    synced: dict[int, OSError | None] = {}  # by device
    for replica, found in descriptors:
        try:
            for descriptor in found:
                if few:
                    os.fdatasync(descriptor)
                else:
                    device = os.fstat(descriptor).st_dev
                    if device not in synced:
                        synced[device] = _syncfs(descriptor)
                    error = synced[device]
                    if error is not None:
                        raise error
        except OSError as error:
            failed[id(replica)] = error
        finally:
            for descriptor in found[1:]:
                os.close(descriptor)
    return failed


def _syncfs(descriptor: int) -> OSError | None:
    if _libc.syncfs(descriptor) == 0:
        return None
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
