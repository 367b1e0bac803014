"""Keeps all sessions of a fleet: who asked for which, which host is whose, and what of them goes on after a crash.

One thread owns it. `hear` and `ask` take what came, `turn` lets time pass; none of them waits for an agent. Each change
is on the disk before anybody is told of it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path

from director.fleet.finishing import MOST_AT_ONCE
from director.fleet.fleet_session import Presence
from director.fleet.kept_session import KeptSession, Surroundings
from director.fleet.known_hosts import not_enrolled
from director.fleet.rare_notices import RareNotices
from director.fleet.replica import is_handed_over
from director.fleet.session_folder import LOCAL, SessionFolder, director_host, find_folders, new_name, open_folder
from director.session.files import MANIFEST, SPOOL, SessionError
from director.session.fleet_record import RUNNING, AgentRecord, Fleet, FleetState, Transition
from director.session.manifest import Workload
from power_agent.host_facts import as_text, boot_id
from power_agent.stages import in_order
from power_agent.wire.messages import (
    FromAgent,
    Hello,
    SamplingState,
    SessionAnswer,
    SessionRequest,
    WorkloadEvent,
)

_SECOND_NS = 1_000_000_000
_FEW_RESTARTS, _OFTEN_NS = 4, 60 * _SECOND_NS
_MOST_ADOPTED = 1000  # sessions that agents bring, open at a time
_MOST_ADOPTED_OF_A_HOST = 10  # so that one with many, or with none that ends, leaves room for others
_MOST_ADOPTED_HOSTS = 1000  # of one session
_ADOPTED_PER_TURN = 10
_MOST_BROUGHT = 100_000  # names of sessions that wait for that


class SessionKeeper:
    """All sessions below one directory."""

    def __init__(
        self, sessions: Path, around: Surroundings, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Find the sessions that an earlier director left, and go on with them.

        Args:
            sessions: their directory.
            around: what they share.
            monotonic_ns: the director's clock.
        """
        self._sessions = sessions
        self._around = around
        self._monotonic_ns = monotonic_ns
        self._kept: dict[str, KeptSession] = {}
        self._present: dict[str, Presence] = {}
        self._restarts_ns: dict[str, deque[int]] = {}  # of agents, the last few
        self._brought: dict[str, deque[str]] = {}  # by host: sessions that it has data of; whose turn is next is first
        self._second_ns = 0
        self._held_by_others: list[Path] = []
        self._notices = RareNotices(around.tell)
        for folder in find_folders(sessions, around.tell):
            self._resume(folder)

    def sessions(self) -> dict[str, KeptSession]:
        """All sessions that something may still come for, by name."""
        return dict(self._kept)

    def close(self) -> None:
        """Let go of all sessions; the next director goes on with them."""
        for kept in self._kept.values():
            kept.close()

    # --- what comes ----------------------------------------------------------------------------------------------

    def hear(self, host: str, message: FromAgent) -> None:
        """Take an agent's message."""
        if isinstance(message, Hello):
            self._hear_of_sessions(host, [*message.recording, *message.unsent])
        elif isinstance(message, SessionRequest):
            self.ask(host, host, message, lambda answer: self._around.send(host, answer))
        elif isinstance(message, (SamplingState, WorkloadEvent)):
            kept = self._kept.get(message.session)
            if kept is not None and isinstance(message, SamplingState):
                kept.session.hear(host, message, self._monotonic_ns())
            elif kept is not None and isinstance(message, WorkloadEvent):
                kept.note_workload(host, message)

    def handed_over(self, name: str, host: str) -> None:
        """The store has all that a host recorded of a session."""
        if name in self._kept:
            self._kept[name].session.handed_over(host, self._monotonic_ns())

    def ask(
        self, asker: str, route: object, request: SessionRequest, answer: Callable[[SessionAnswer], object]
    ) -> None:
        """Answer whoever asks for a session, now and at each change.

        Args:
            asker: a host, or LOCAL.
            route: of two askers of one name that ask at once each has its own.
            request: what is asked.
            answer: sends an answer to it.
        """
        try:
            kept = self._begin(asker, request) if request.want == "start" else self._change(asker, request)
        except _Refusal as refusal:
            reason = str(refusal)[:2000]
            answer(SessionAnswer(request=request.request, state="refused", session=request.session, reason=reason))
            return
        kept.watch(route, request.request, answer)

    # --- time passes ---------------------------------------------------------------------------------------------

    def turn(self, present: Mapping[str, Presence]) -> None:
        """Let all sessions go on as far as they can. `present`: all agents that said Hello, by host."""
        now_ns = self._monotonic_ns()
        self._tell_of_agents(present)
        self._present = dict(present)
        self._adopt_some()
        is_second = now_ns - self._second_ns >= _SECOND_NS
        if is_second:
            self._second_ns = now_ns
            self._resume_held()
        for name, kept in list(self._kept.items()):
            computing = sum(other.is_computing for other in self._kept.values())
            try:
                kept.turn(now_ns, self._present, is_second=is_second, may_compute=computing < MOST_AT_ONCE)
            except Exception as error:  # a mistake of ours in one session must not end the others
                text = f"session {name} cannot go on: {type(error).__name__}: {error}"
                self._notices.tell(text, text)
            if kept.is_over:
                kept.close()
                del self._kept[name]  # the store goes on telling its agents that all is here

    # --- requests ------------------------------------------------------------------------------------------------

    def _begin(self, asker: str, request: SessionRequest) -> KeptSession:
        known = self._find_asked(asker, request.request)
        if known is not None:
            return known
        busy = self._busy()
        hosts = list(dict.fromkeys(request.hosts))
        if not hosts:
            heard = {host for host, presence in self._present.items() if not presence.silent}
            hosts = [asker] if asker != LOCAL else sorted(heard - busy.keys())
        if not hosts:
            raise _Refusal(
                "no agent is connected that is not measuring already: start one with `power-agent serve --director "
                "HOST:PORT`, or name the hosts"
            )
        for host in hosts:
            if host in busy:
                raise _Refusal(
                    f"{host} is measured by the session {busy[host]} now: wait for its end, or end it with "
                    f"`power-director session stop {busy[host]}`"
                )
        enrolled = self._around.enrolled()
        unknown = not_enrolled(hosts, enrolled) if enrolled is not None else ""
        if unknown:
            raise _Refusal(unknown)
        own_host = director_host(hosts)
        fleet = Fleet(
            state="preparing",
            director_host=own_host,
            director_boot_id=boot_id(),
            asker=asker,
            request=request.request,
            stages=in_order(request.stages),
            choices=request.choices,
            transitions=[self._transition("preparing")],
            agents=[AgentRecord(host=host) for host in hosts],
        )
        name = new_name(self._sessions, request.label or (Path(request.argv[0]).name if request.argv else ""))
        workload = None
        if request.argv:
            host = own_host if asker == LOCAL else asker
            workload = Workload(argv=[as_text(word) for word in request.argv], cwd=request.cwd, host=host)
        return self._make(name, name, fleet, request.label, workload)

    def _change(self, asker: str, request: SessionRequest) -> KeptSession:
        name = request.session or ""
        kept = self._kept.get(name) if name else self._find_asked(asker, request.request)
        kept = kept or (self._find_complete(name) if name else None)
        if kept is None:
            raise _Refusal(
                f"this director keeps no session {name}: `power-director session list` tells which there are"
            )
        session, now_ns = kept.session, self._monotonic_ns()
        if asker not in (LOCAL, session.fleet.asker) and request.want != "state":
            raise _Refusal(f"the session {name} was not started on {asker}: end it where it was started")
        if request.want == "stop":
            session.stop(now_ns)
            kept.admit()
        elif request.want == "next" and not session.next_stage(now_ns):
            raise _Refusal(f"the session {name} has no next stage now: it is {session.fleet.state}")
        return kept

    def _find_asked(self, asker: str, request: str) -> KeptSession | None:
        """The session that was begun by this request."""
        for kept in self._kept.values():
            if (kept.session.fleet.asker, kept.session.fleet.request) == (asker, request):
                return kept
        return None

    def _busy(self) -> dict[str, str]:
        """Which session measures a host now."""
        busy = {}
        for name, kept in self._kept.items():
            fleet, is_durable = (
                kept.session.fleet,
                not kept.session.dirty,
            )  # else the next director knows an earlier state
            if not fleet.asker or (is_durable and fleet.state not in RUNNING):
                continue
            for record in fleet.agents:
                samples = record.state in ("starting", "sampling", "stopping")
                if samples or not is_durable or fleet.state != "collecting":
                    busy[record.host] = name
        return busy

    # --- sessions ------------------------------------------------------------------------------------------------

    def _make(self, name: str, directory: str, fleet: Fleet, label: str, workload: Workload | None) -> KeptSession:
        path = self._sessions / directory
        try:
            tell = self._around.tell
            folder = SessionFolder.make(path, name, fleet, label=label, workload=workload, tell=tell)
        except OSError as error:
            raise _Refusal(f"the director cannot make {path}: {error.strerror}; free some space there") from error
        kept = self._kept[name] = KeptSession(folder, self._around, self._monotonic_ns())
        kept.session.changed = True
        return kept

    def _find_complete(self, name: str) -> KeptSession | None:
        """A session that ended some time ago."""
        path = self._sessions / name
        folder = open_folder(path, self._around.tell) if name and (path / MANIFEST).exists() else None
        if folder is None or folder.manifest.fleet is None or folder.name != name:
            return None
        if folder.manifest.fleet.state != "complete":
            return None  # it was not resumed, for a reason that was told
        return KeptSession(folder, self._around, self._monotonic_ns())

    def _resume(self, folder: SessionFolder) -> None:
        """Go on with a session that an earlier director left."""
        fleet = folder.manifest.fleet
        assert fleet is not None
        if folder.manifest.state in ("complete", "recovered") and fleet.state != "ingesting":
            fleet.state = "complete"  # or `power-director recover` has finished it meanwhile
        if fleet.state == "complete" and not (folder.path / SPOOL).exists():
            return
        now_ns = self._monotonic_ns()
        try:
            if fleet.state != "complete":
                folder.hold()
            kept = KeptSession(folder, self._around, now_ns)
        except SessionError as error:
            # Such as what the last director had started to compute the results.
            if folder.path not in self._held_by_others:
                self._around.tell(f"{error}; it goes on after that")
                self._held_by_others.append(folder.path)
            return
        except OSError as error:
            folder.release()
            text = f"session {folder.name} does not go on: {error.filename or folder.path} cannot be used: "
            self._notices.tell(folder.name, text + (error.strerror or str(error)))
            return
        self._kept[folder.name] = kept
        if fleet.state in RUNNING:
            self._around.tell(f"session {folder.name} goes on: it was {fleet.state} when the director ended")
            kept.session.director_restarted(now_ns, boot_id())
        for record in fleet.agents:
            if kept.session.ending and is_handed_over(folder.path, record.host):
                kept.session.handed_over(record.host, now_ns)
        kept.admit()

    def _resume_held(self) -> None:
        """Go on with those that somebody else was at work in."""
        for path in list(self._held_by_others):
            folder = open_folder(path, self._around.tell)
            if folder is not None:
                self._resume(folder)
            if folder is None or folder.name in self._kept or not (path / SPOOL).exists():
                self._held_by_others.remove(path)

    def _hear_of_sessions(self, host: str, names: list[str]) -> None:
        """An agent says which sessions it has data of."""
        self._brought.pop(host, None)
        room = _MOST_BROUGHT - sum(len(waiting) for waiting in self._brought.values())
        found = deque(list(dict.fromkeys(names))[:room])
        if found:
            self._brought[host] = found

    def _adopt_some(self) -> None:
        """Take what agents have of sessions that are over, or that this director does not know; hosts take turns."""
        adopted = Counter(
            record.host
            for kept in self._kept.values()
            if not kept.session.fleet.asker and kept.state != "complete"
            for record in kept.session.fleet.agents
        )
        for host in list(self._brought)[:_ADOPTED_PER_TURN]:
            names = self._brought.pop(host)
            if adopted[host] < _MOST_ADOPTED_OF_A_HOST and adopted.total() < _MOST_ADOPTED:
                adopted[host] += 1
                name = names.popleft()
                try:
                    self._adopt(name, host)
                except _Refusal as refusal:
                    self._notices.tell((host, name), f"{host} brings the session {name}, which is not taken: {refusal}")
            if names:
                self._brought[host] = names

    def _adopt(self, name: str, host: str) -> None:
        kept = self._kept.get(name)
        if kept is None:
            known = self._find_complete(name)
            if known is not None:
                if not known.is_over:
                    self._kept[name] = known
                elif known.session.agent(host) is None:
                    raise _Refusal("it did not measure this host")
            else:
                self._make_adopted(name, host)
        elif kept.session.agent(host) is None and not kept.session.fleet.asker:
            if len(kept.session.hosts) >= _MOST_ADOPTED_HOSTS:
                raise _Refusal(f"it has {_MOST_ADOPTED_HOSTS} hosts already")
            kept.add_host(host)

    def _make_adopted(self, name: str, host: str) -> None:
        directory = name if not (self._sessions / name).exists() else f"{name}-{host}"
        fleet = Fleet(
            state="collecting",
            director_host=director_host([host]),
            director_boot_id=boot_id(),
            transitions=[self._transition("collecting")],
            agents=[AgentRecord(host=host, state="stopped")],
        )
        kept = self._make(name, directory, fleet, name, None)
        text = f"{host} brings the session {name}, which this director did not know; it comes to {kept.folder.path}"
        self._around.tell(text)

    def _transition(self, state: FleetState) -> Transition:
        return Transition(state=state, t_ns=self._monotonic_ns(), wall_ns=time.time_ns())

    # --- what is told --------------------------------------------------------------------------------------------

    def _tell_of_agents(self, present: Mapping[str, Presence]) -> None:
        for host, presence in present.items():
            before = self._present.get(host)
            if before is None:
                self._around.tell(f"{host} is here")
            elif before.silent != presence.silent:
                self._around.tell(f"{host} is {'silent' if presence.silent else 'heard again'}")
            elif before.agent != presence.agent:
                self._tell_of_restart(host)

    def _tell_of_restart(self, host: str) -> None:
        times_ns = self._restarts_ns.setdefault(host, deque(maxlen=_FEW_RESTARTS))
        times_ns.append(self._monotonic_ns())
        if len(times_ns) < _FEW_RESTARTS or times_ns[-1] - times_ns[0] > _OFTEN_NS:
            self._around.tell(f"{host}: its agent was started again")
        else:
            text = f"{host}: two agents speak under this name, or its agent dies again and again: look there"
            self._notices.tell(text, text)


class _Refusal(Exception):
    """A request cannot be granted: why, and what to do."""
