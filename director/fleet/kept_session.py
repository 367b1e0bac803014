"""A session with its directory, its place in the store, and the processes that compute for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from director.fleet.clock_sync import ClockSync
from director.fleet.finishing import REPORT, Work, parse_ranges
from director.fleet.fleet_session import Bounds, FleetSession, Presence
from director.fleet.known_hosts import not_connected
from director.fleet.session_folder import SessionFolder
from director.fleet.store import FleetStore
from director.session.files import SessionError
from director.session.fleet_record import RUNNING, AgentRecord, FleetState, fleet_notices
from power_agent.wire.messages import FromDirector, SessionAnswer, WorkloadEvent

RETRY_S = (5.0, 60.0, 600.0)  # after results could not be computed
_LONGEST_REPORT = 100_000
_MOST_WATCHERS = 100
_TOLD_AS: dict[FleetState, FleetState] = {
    "ranging": "measuring",
    "ranged": "preparing",
    "collecting": "stopping",
    "ingesting": "stopping",
}


@dataclass(frozen=True)
class Surroundings:
    """What all sessions of a director share."""

    store: FleetStore
    send: Callable[[str, FromDirector], object]  # to an agent
    tell: Callable[[str], None]  # a person
    bounds: Bounds
    clocks: ClockSync
    finish: Callable[[Path], Work]
    find_ranges: Callable[[Path], Work]
    connected: Callable[[], Collection[str]] = tuple  # hosts whose agents are heard now
    enrolled: Callable[[], Collection[str] | None] = lambda: None  # hosts whose agents have keys; None: none needs one


class KeptSession:
    """`turn` lets it go on; `save` writes what has changed and then sends and answers."""

    def __init__(self, folder: SessionFolder, around: Surroundings, now_ns: int) -> None:
        fleet = folder.manifest.fleet
        assert fleet is not None
        self.folder = folder
        self.session = FleetSession(folder.name, fleet, around.bounds, time.time_ns() - now_ns, now_ns)
        self.is_computing = False
        self._around = around
        self._watchers: dict[tuple[object, str], Callable[[SessionAnswer], object]] = {}  # by asker and request
        self._work: Work | None = None
        self._ranging: Work | None = None
        self._failures = 0
        self._failure = ""
        self._retry_ns = 0
        if fleet.state in RUNNING and fleet.asker:
            around.clocks.record(folder.name, folder.path, self.session.hosts)
        self.admit()

    @property
    def state(self) -> FleetState:
        """The state of the session."""
        return self.session.fleet.state

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come."""
        agents = self.session.fleet.agents
        return self.state == "complete" and all(record.whole or not record.agent for record in agents)

    def watch(self, asker: object, request: str, answer: Callable[[SessionAnswer], object]) -> None:
        """Answer whoever asks, now and at each change, once it is durable."""
        if self.save():
            answer(self.answer_to(request))
        if self.state != "complete":
            self._watchers.pop((asker, request), None)
            if len(self._watchers) >= _MOST_WATCHERS:  # whoever asked longest ago has gone, or asks again
                self._watchers.pop(next(iter(self._watchers)))
            self._watchers[asker, request] = answer

    def admit(self) -> None:
        """Let the store take what may come for this session now."""
        session = self.session
        if self.state == "ingesting":
            self._around.store.dismiss(session.name)
        else:
            self._around.store.admit(
                session.name, self.folder.path, session.hosts, whole=session.whole, ending=session.ending
            )

    def add_host(self, host: str) -> None:
        """One more agent brings data of this session, which it recorded by itself."""
        self.session.fleet.agents.append(AgentRecord(host=host, state="stopped"))
        self.session.dirty = True
        self.admit()

    def note_workload(self, host: str, event: WorkloadEvent) -> None:
        """What an agent tells of the job that it runs belongs to the manifest."""
        work = self.folder.manifest.workload
        if work is None or work.host != host or self.state in ("ingesting", "complete"):
            return
        if event.event == "started":
            changed = msgspec.structs.replace(work, started_ns=event.t_ns)
        else:
            changed = msgspec.structs.replace(work, ended_ns=event.t_ns, exit_code=event.exit_code, signal=event.signal)
        if changed != work:
            self.folder.manifest = msgspec.structs.replace(self.folder.manifest, workload=changed)
            self.session.dirty = True

    def turn(self, now_ns: int, present: Mapping[str, Presence], *, is_second: bool, may_compute: bool) -> None:
        """Go on as far as it can now. `is_second`: a second has passed; `may_compute`: a process may be started."""
        if self._work is None and not self.save():
            return  # what is not durable has not happened
        state = self.state
        if state == "ingesting":
            self._ingest(now_ns, may_compute=may_compute)
        else:
            progress = self._around.store.progress(self.session.name)
            ranged = state == "ranged" and not self.session.ranges_known
            if ranged and (self._ranging is not None or self.session.ranging_is_here(now_ns, progress)):
                self._look_for_ranges()
            self.session.step(now_ns, present, progress)
            if is_second and self.session.fleet.asker and state in RUNNING:
                self.folder.record_clock()
        if self.state != state:
            self.admit()
        self.save()

    def save(self) -> bool:
        """Write the record where it has changed, then send and answer; False where it cannot be written now."""
        session = self.session
        if self._work is not None:
            return True  # that process writes the manifest; the record is written when it has ended
        if session.dirty:
            if not self.folder.save(session.fleet):
                session.out.clear()  # it is asked again later
                return False
            session.dirty = False
        for host, message in session.out:
            self._around.send(host, message)
        session.out.clear()
        if session.changed:
            session.changed = False
            for (_, request), answer in self._watchers.items():
                answer(self.answer_to(request))
            if self.state == "complete":
                self._watchers.clear()
                self.folder.release()
            self._tell_state()
        return True

    def answer_to(self, request: str) -> SessionAnswer:
        """How the session stands."""
        fleet = self.session.fleet
        warnings = [text[:2000] for text in fleet_notices(fleet)]
        if self.state in ("preparing", "ranging", "measuring"):
            unheard = [record.host for record in fleet.agents if not record.agent]
            warnings += not_connected(unheard, self._around.connected())
        state, report = _TOLD_AS.get(fleet.state, fleet.state), ""
        if self._failure:  # nobody shall wait for the next try
            state = "complete"
            warnings.insert(0, f"{self._failure}. Nothing is lost: power-director recover {self.folder.path}"[:2000])
        elif state == "complete":
            with suppress(OSError):
                report = (self.folder.path / REPORT).read_text("utf-8", "replace")[:_LONGEST_REPORT]
        return SessionAnswer(
            request=request,
            state=state,  # type: ignore[arg-type]  # the words that are left are those of SessionAnswer
            session=self.folder.name,
            stage=fleet.stage,
            warnings=warnings[:100],
            report=report,
        )

    def close(self) -> None:
        """Let go of it; the next director goes on."""
        for work in (self._work, self._ranging):
            if work is not None:
                work.end()
        self.save()
        self.folder.release()

    def _ingest(self, now_ns: int, *, may_compute: bool) -> None:
        """Start what computes the results, and see how it ended."""
        if self._work is None:
            if may_compute and now_ns >= self._retry_ns and self._failures <= len(RETRY_S):
                self._around.clocks.end(self.folder.name)
                self.folder.release()
                try:
                    self._work = self._around.finish(self.folder.path)
                except OSError as error:
                    self._fail(f"the results cannot be computed: {error.strerror}", now_ns)
                self.is_computing = self._work is not None
            return
        went_well = self._work.poll()
        if went_well is None:
            return
        output, self._work, self.is_computing = self._work.output(), None, False
        try:
            self.folder.reload()
        except SessionError as error:
            went_well, output = False, str(error)
        if not went_well:
            self._fail(output or "the results could not be computed", now_ns)
            return
        if output:
            self._around.tell(f"session {self.folder.name}: {output}")
        self._failure = ""
        found = self.folder.manifest.fleet
        if found is not None:  # which that process alone knows
            self.session.fleet.director_clock_file = found.director_clock_file
        self.session.ingested(now_ns)

    def _fail(self, why: str, now_ns: int) -> None:
        self._failure = why.splitlines()[-1][:1000]
        self._around.tell(f"session {self.folder.name}: {why}")
        if self._failures < len(RETRY_S):
            self._retry_ns = now_ns + round(RETRY_S[self._failures] * 1e9)
        self._failures += 1
        self.session.changed = True

    def _look_for_ranges(self) -> None:
        """The maxima of the ranging stage, for the meters to choose their ranges by."""
        if self._ranging is None:
            try:
                self._ranging = self._around.find_ranges(self.folder.path)
            except OSError as error:
                self._around.tell(f"session {self.folder.name}: no ranges: {error.strerror}")
                self.session.set_ranges({})
            return
        went_well = self._ranging.poll()
        if went_well is not None:
            output, self._ranging = self._ranging.output(), None
            if not went_well:
                self._around.tell(f"session {self.folder.name}: no ranges: {output}")
            self.session.set_ranges(parse_ranges(output) if went_well else {})

    def _tell_state(self) -> None:
        hosts = self.session.hosts
        named = ", ".join(hosts[:8]) + (" …" if len(hosts) > 8 else "")
        self._around.tell(f"session {self.folder.name}: {self.state} ({named or 'no host yet'})")
