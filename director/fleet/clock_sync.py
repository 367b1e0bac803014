"""Keeps what ties each agent's clock to the director's: in memory for a look, and on disk for running sessions.

Of each burst of exchanges two are kept, the one whose question was fastest and the one whose answer was (often one is
both). Together they say all that the burst can, and never less than the exchange with the least round trip.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from director.session.files import SPOOL
from director.session.sync_file import Clocks, StateLine, append, sync_spool
from power_agent.wire.messages import ClockExchange, Heartbeat

BURST_NS = 1_000_000_000  # exchanges within this time are one burst
BEFORE_NS = 180_000_000_000  # kept of the time before a session begins
MOST_KEPT = 200  # exchanges of a host in memory
MOST_WAITING = 100_000  # lines of all sessions that the disk has not taken
MOST_HOSTS = 20_000
WRITE_S = 1.0
_LATEST_NS = 1 << 61


@dataclass(frozen=True)
class SyncState:
    """How a host's clock stands to the director's now."""

    offset_ns: int  # director's minus host's monotonic clock
    bound_ns: int
    age_s: float  # of the last exchange
    drift: float  # rate of the offset
    jumps: int  # that were seen of late


@dataclass
class _Burst:
    first: ClockExchange
    asked: ClockExchange  # with the least t2 − t1
    answered: ClockExchange  # with the least t4 − t3

    def add(self, exchange: ClockExchange) -> None:
        if exchange.t2_ns - exchange.t1_ns < self.asked.t2_ns - self.asked.t1_ns:
            self.asked = exchange
        if exchange.t4_ns - exchange.t3_ns < self.answered.t4_ns - self.answered.t3_ns:
            self.answered = exchange

    def kept(self) -> list[ClockExchange]:
        one, two = sorted((self.asked, self.answered), key=lambda exchange: exchange.t1_ns)
        return [one] if one == two else [one, two]


@dataclass
class _Host:
    recent: deque[ClockExchange] = field(default_factory=lambda: deque(maxlen=MOST_KEPT))
    burst: _Burst | None = None
    clock_state: dict[str, str] = field(default_factory=dict)


@dataclass
class _Recording:
    """A host's part of a running session."""

    path: Path
    boot_id: str | None = None  # that was written last
    waiting: list[msgspec.Struct | tuple[int, int, int, int]] = field(default_factory=list)


class ClockSync:
    """Any thread may call this. What comes is collected at once and written by a thread of its own."""

    def __init__(
        self, boot_id: str, tell: Callable[[str], None], monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`boot_id` is the director's; `tell` hears what a person should know."""
        self._boot_id = boot_id
        self._tell = tell
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._hosts: OrderedDict[str, _Host] = OrderedDict()  # the one that was not heard for longest first
        self._sessions: dict[str, tuple[Path, dict[str, _Recording]]] = {}
        self._failing: set[Path] = set()  # folders, told once
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock-sync", daemon=True)
        self._writing = threading.Lock()
        self.refused = 0  # exchanges that cannot have been
        self.dropped = 0  # lines that the disk did not take in time

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what there is, and end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for session in list(self._sessions):
            self.end(session)

    def on_exchange(self, host: str, exchange: ClockExchange) -> None:
        """Take an exchange; for Listener. It may come late, twice, or be made up."""
        now_ns = self._monotonic_ns()
        with self._lock:
            if not _can_be(exchange, now_ns):
                self.refused += 1
                return
            known = self._known(host)
            burst = known.burst
            if burst is not None and _is_same(burst.first, exchange):
                burst.add(exchange)
                return
            known.burst = _Burst(exchange, exchange, exchange)
            if burst is not None:
                self._keep(host, known, burst)

    def on_heartbeat(self, host: str, heartbeat: Heartbeat) -> None:
        """Take what an agent says of its wall clock."""
        with self._lock:
            known = self._known(host)
            if heartbeat.clock_state and known.clock_state != heartbeat.clock_state:
                known.clock_state = heartbeat.clock_state
                for recording in self._recordings(host):
                    self._add(recording, StateLine(clock_state=known.clock_state))

    def record(self, session: str, directory: Path, hosts: Collection[str]) -> None:
        """From now on, write what comes of these hosts for this session, and what came shortly before."""
        recordings = {host: _Recording(sync_spool(directory, host)) for host in hosts}
        (directory / SPOOL).mkdir(exist_ok=True)
        since_ns = self._monotonic_ns() - BEFORE_NS
        with self._lock:
            if session in self._sessions:
                return
            self._sessions[session] = directory, recordings
            for host, recording in recordings.items():
                known = self._hosts.get(host, _Host())
                for exchange in known.recent:
                    if exchange.t2_ns >= since_ns:
                        self._add_exchange(recording, exchange)
                if known.clock_state:
                    self._add(recording, StateLine(clock_state=known.clock_state))

    def end(self, session: str) -> None:
        """Write what came so far, and no more of this session. It may take as long as the disk takes.

        What cannot be written now is kept, and written later or when this is called again. Call it when all hosts have
        handed over: a burst after the last reading then bounds its instant from both sides.
        """
        with self._lock:
            _, recordings = self._sessions.get(session, (None, {}))
            for host, recording in recordings.items():
                burst = self._hosts[host].burst if host in self._hosts else None
                for exchange in burst.kept() if burst is not None else []:
                    self._add_exchange(recording, exchange)
        self._write()
        with self._lock:
            if not any(recording.waiting for recording in recordings.values()):
                self._sessions.pop(session, None)

    def state(self, host: str) -> SyncState | None:
        """How a host's clock stands now, of the exchanges of the last minutes. None: it made none."""
        import numpy as np

        from director.session.clock_model import SyncedClock
        from director.session.sync_file import Exchanges

        with self._lock:
            known = self._hosts.get(host)
            if known is None or known.burst is None:
                return None
            recent = [*known.recent, *known.burst.kept()]
        recent = [exchange for exchange in recent if exchange.boot_id == recent[-1].boot_id]
        columns = [[getattr(e, name) for e in recent] for name in ("t1_ns", "t2_ns", "t3_ns", "t4_ns")]
        model = SyncedClock(Exchanges(*(np.array(column, np.int64) for column in columns)))
        age_ns = self._monotonic_ns() - max(e.t3_ns for e in recent)
        now = np.array([max(e.t4_ns for e in recent) + age_ns], np.int64)
        return SyncState(
            offset_ns=int(model.offset(now)[0]),
            bound_ns=int(model.bound(now)[0]),
            age_s=age_ns * 1e-9,
            drift=model.drift[0],
            jumps=len(model.jumps),
        )

    def _known(self, host: str) -> _Host:
        known = self._hosts.get(host)
        if known is None:
            if len(self._hosts) >= MOST_HOSTS:
                self._hosts.popitem(last=False)
            known = self._hosts[host] = _Host()
        self._hosts.move_to_end(host)
        return known

    def _recordings(self, host: str) -> list[_Recording]:
        return [recordings[host] for _, recordings in self._sessions.values() if host in recordings]

    def _keep(self, host: str, known: _Host, burst: _Burst) -> None:
        for exchange in burst.kept():
            known.recent.append(exchange)
            for recording in self._recordings(host):
                self._add_exchange(recording, exchange)

    def _add_exchange(self, recording: _Recording, exchange: ClockExchange) -> None:
        if recording.boot_id != exchange.boot_id:
            recording.boot_id = exchange.boot_id
            self._add(recording, Clocks(boot_id=exchange.boot_id, reference_boot_id=self._boot_id))
        self._add(recording, (exchange.t1_ns, exchange.t2_ns, exchange.t3_ns, exchange.t4_ns))

    def _add(self, recording: _Recording, line: msgspec.Struct | tuple[int, int, int, int]) -> None:
        if len(recording.waiting) >= max(100, MOST_WAITING // max(1, len(self._hosts))):
            self.dropped += 1
            recording.boot_id = None  # what names the clocks may be what was dropped
            return
        recording.waiting.append(line)

    def _run(self) -> None:
        while not self._stop.wait(WRITE_S):
            self._write()

    def _write(self) -> None:
        with self._writing:
            with self._lock:
                due = []
                for _, recordings in self._sessions.values():
                    for recording in recordings.values():
                        if recording.waiting:
                            due.append((recording, recording.waiting))
                            recording.waiting = []
            for recording, lines in due:
                try:
                    append(recording.path, lines)
                    self._failing.discard(recording.path.parent)
                except OSError as error:
                    with self._lock:  # again at the next turn; what came meanwhile comes after
                        recording.waiting = lines + recording.waiting
                    self._tell_once(recording.path, error)

    def _tell_once(self, path: Path, error: OSError) -> None:
        if path.parent not in self._failing:
            self._failing.add(path.parent)
            self._tell(f"{path} cannot be written: {error.strerror}; the bound of clocks grows until it can")


def _is_same(first: ClockExchange, exchange: ClockExchange) -> bool:
    return exchange.boot_id == first.boot_id and abs(exchange.t1_ns - first.t1_ns) < BURST_NS


def _can_be(exchange: ClockExchange, now_ns: int) -> bool:
    """Whether its instants can be true: the director's own ones are of the last minutes."""
    t1, t2, t3, t4 = exchange.t1_ns, exchange.t2_ns, exchange.t3_ns, exchange.t4_ns
    ordered = t1 <= t4 and t2 <= t3 and t3 - t2 <= t4 - t1
    return ordered and abs(t1) < _LATEST_NS and abs(t4) < _LATEST_NS and now_ns - BEFORE_NS <= t2 and t3 <= now_ns
