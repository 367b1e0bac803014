"""The agent of a host: linked to one director, it samples for its sessions and hands over what it recorded."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import zmq

from power_agent.host_facts import boot_id, describe_host
from power_agent.service.agent_session import AgentSession, SamplerSettings, reboot_problem
from power_agent.service.bulk_sender import BulkSender
from power_agent.service.clock_asker import ClockAsker
from power_agent.service.clock_state import ClockState
from power_agent.service.control_link import ControlLink
from power_agent.service.jobs import Jobs
from power_agent.service.local_messages import AgentHere
from power_agent.service.local_server import LocalServer
from power_agent.service.run_folder import RunFolder
from power_agent.service.session_folder import JobRecord, SessionFolder, SessionRecord, find_sessions
from power_agent.wire.keys import KeyPair
from power_agent.wire.messages import (
    FromAgent,
    FromDirector,
    Heartbeat,
    Hello,
    SamplerChoices,
    SamplingState,
    SessionAnswer,
    Stage,
    StartSampling,
    StopSampling,
)
from power_agent.wire.sockets import Address, connect

MOST_SESSIONS: Final = 100  # at once
LEAVE_S: Final = 20.0  # for samplers to write their last readings
HAND_OVER_S: Final = 5.0  # before leaving, where the director is there to take what is left
_LOOK_S = 0.2
_REMEMBERED = 1000  # sessions that were handed over


class StateProblem(Exception):
    """The agent's folder cannot be used: why, and what to do."""


@dataclass(frozen=True)
class AgentOptions:
    """What an agent is started with."""

    director: Address
    host: str
    state: Path
    run_dir: Path
    own: KeyPair | None = None
    director_key: bytes | None = None
    sampling: SamplerSettings = field(default_factory=SamplerSettings)


class Agent:
    """Serves in `serve`. Samplers outlive a killed agent for an hour; the next one takes them over."""

    def __init__(self, options: AgentOptions, tell: Callable[[str], None]) -> None:
        """Take hold of the folders.

        Raises:
            StateProblem, RunFolderProblem: a folder cannot be used, or another agent uses it.
            AddressProblem: the director is not on this machine, and keys are missing.
        """
        self.host = options.host
        self._options = options
        self._tell = tell
        self._lock = threading.RLock()
        self._sessions: dict[str, AgentSession] = {}
        self._foreign: list[str] = []  # what is told of recordings under other names
        self._handed_over: deque[SamplingState] = deque(maxlen=_REMEMBERED)
        self._state = options.state.absolute()
        self._state_descriptor = _hold(self._state)
        self._run = RunFolder(options.run_dir)
        self._context: zmq.Context[Any] = zmq.Context()
        self._sockets = connect(self._context, options.director, options.own, options.director_key)
        self._bulk = BulkSender(self._sockets.bulk, self.host, tell)
        self._clock = ClockAsker(self._sockets.clock, self.host, tell)
        self._clock_state = ClockState(tell=tell)
        self._jobs = Jobs(self, tell)
        self._start_id = secrets.token_hex(8)
        self._link = ControlLink(
            self._sockets.control,
            hello=self._hello,
            heartbeat=self._heartbeat,
            on_message=self._on_message,
            retell=self._retell,
            tell=tell,
            unanswered=_unanswered(options),
        )

    def serve(self, is_over: Callable[[bool], bool]) -> None:
        """Serve until `is_over` says so; it is asked a few times per second, and told whether a job is measured here.

        Raises:
            OSError: the run folder's socket cannot be made.
        """
        here = AgentHere(host=self.host, director=str(self._options.director), run_dir=str(self._run.path))
        self._find_earlier()
        local = None
        try:
            local = LocalServer(self._run.socket, here, on_message=self._jobs.on_message, on_gone=self._jobs.on_gone)
            self._bulk.start()
            self._link.start()
            self._clock.start()
            self._clock_state.start()
            while not is_over(self._jobs.any_open()):
                self._jobs.look()
                self._clear_away()
                time.sleep(_LOOK_S)
        finally:
            if local is not None:
                local.close()
            self._leave()

    @property
    def linked(self) -> bool:
        """Whether a director is heard."""
        return self._link.linked

    def send(self, message: FromAgent) -> None:
        """Tell the director; what is said while none is linked is told anew when one is."""
        self._link.send(message)

    def session(self, name: str) -> AgentSession | None:
        """A session whose data is on this host."""
        with self._lock:
            return self._sessions.get(name)

    def begin_local(self, name: str, job: JobRecord) -> AgentSession:
        """Sample for a job in a session that no director has given.

        Raises:
            OSError: the disk is full or fails.
        """
        stages = sorted(job.request.stages) or ["testing"]  # ranging comes first
        return self._begin(name, stages[0], job.request.choices, job)

    def _begin(
        self, name: str, stage: Stage, choices: SamplerChoices, local_job: JobRecord | None = None
    ) -> AgentSession:
        problem = ""
        try:
            self._run.marks(name)
        except OSError as error:
            problem = f"marks of this host are not kept: {self._run.path / name}: {error.strerror or error}"
        record = SessionRecord(
            session=name,
            host=self.host,
            stage=stage,
            boot_id=boot_id(),
            marks=str(self._run.path / name),
            choices=choices,
            local=local_job is not None,
            job=local_job,
        )
        session = self._add(SessionFolder.create(self._state, record))
        if problem:
            session.note(problem)
        session.start()
        return session

    def _add(self, folder: SessionFolder, *, ended: str | None = None) -> AgentSession:
        """Know a session from now on. `ended`: it is not sampled any more, and why, if that is not empty."""
        record = folder.record
        if ended is None:
            session = AgentSession(folder, self._options.sampling, changed=self._changed, tell=self._tell)
        else:
            session = AgentSession.ended(folder, ended, self._tell)
        with self._lock:
            self._sessions[record.session] = session
        self._bulk.add(record.session, folder.spool, {"marks": Path(record.marks), "logs": folder.logs})
        if ended is not None:
            self._bulk.finish(record.session)
        return session

    def _find_earlier(self) -> None:
        """Go on where an earlier agent process left off."""
        for found in find_sessions(self._state):
            if isinstance(found, str):
                self._tell(found)
                continue
            host = found.record.host
            if host != self.host:
                # Under our name it would be taken for ours, and under its own our key does not speak.
                text = f"{found.path} is kept, and not handed over: it was recorded as {host}, and this agent serves as"
                self._foreign.append(f"{text} {self.host}; stop it, and start it with --host {host} for a while")
                self._tell(self._foreign[-1])
                continue
            if not found.is_running:
                session = self._add(found, ended="")
            elif problem := reboot_problem(found):
                session = self._add(found, ended=problem)
            else:
                with suppress(OSError):
                    self._run.marks(found.record.session)
                session = self._add(found)
                session.start()
            self._jobs.restore(session)

    def _on_message(self, message: FromDirector) -> None:
        if isinstance(message, StartSampling):
            self._start(message)
        elif isinstance(message, StopSampling):
            self._stop(message.session)
        elif isinstance(message, SessionAnswer):
            self._jobs.on_answer(message)

    def _start(self, order: StartSampling) -> None:
        session = self.session(order.session)
        earlier = self._earlier(order.session)
        if session is not None and not session.is_over and session.state.stage != order.stage:
            session.enter_stage(order.stage, order.choices)
        elif session is not None:
            self.send(session.state)
        elif earlier is not None:
            self.send(earlier)
        else:
            self._start_new(order)

    def _start_new(self, order: StartSampling) -> None:
        with self._lock:
            running = sum(not session.is_over for session in self._sessions.values())
        try:
            if running >= MOST_SESSIONS:
                raise OSError(0, f"{running} sessions are sampled here already")
            self._begin(order.session, order.stage, order.choices)
        except OSError as error:
            problem = f"{self.host} cannot record: {error.strerror or error} ({error.filename or self._state})"
            self._tell(f"session {order.session}: {problem}")
            state = SamplingState(
                session=order.session, stage=order.stage, state="failed", t_ns=time.monotonic_ns(), problems=[problem]
            )
            self.send(state)

    def _stop(self, name: str) -> None:
        session = self.session(name)
        if session is not None:
            if session.is_over:
                self.send(session.state)
            session.stop()
            return
        earlier = self._earlier(name)
        problem = f"{self.host} knows nothing of this session: it was not started here, or was handed over before"
        self.send(
            earlier
            or SamplingState(
                session=name, stage="testing", state="stopped", t_ns=time.monotonic_ns(), problems=[problem]
            )
        )

    def _earlier(self, name: str) -> SamplingState | None:
        with self._lock:
            return next((state for state in self._handed_over if state.session == name), None)

    def _changed(self, state: SamplingState) -> None:
        if state.state in ("stopped", "failed"):
            self._bulk.finish(state.session)
        self.send(state)

    def _clear_away(self) -> None:
        """Remove what is durable at the director."""
        with self._lock:
            whole = [s for s in self._sessions.values() if s.is_over and self._bulk.is_whole(s.name)]
        for session in whole:
            self._bulk.forget(session.name)
            session.join(1.0)
            with self._lock:
                del self._sessions[session.name]
                self._handed_over.append(session.state)
            session.folder.delete()
            self._run.remove(session.name)

    def _leave(self) -> None:
        """Samplers write what they have; another agent process goes on."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            session.leave()
        end_s = time.monotonic() + LEAVE_S
        for session in sessions:
            session.join(max(0.1, end_s - time.monotonic()))
        end_s = time.monotonic() + HAND_OVER_S
        while self.linked and self._is_sending() and time.monotonic() < end_s:
            self._clear_away()
            time.sleep(0.05)
        self._clock.close()
        self._clock_state.close()
        self._link.close()
        self._bulk.close()
        self._sockets.close()
        self._context.destroy(linger=0)
        self._run.close()
        os.close(self._state_descriptor)

    def _is_sending(self) -> bool:
        """Whether a session that has ended is on its way to the director."""
        with self._lock:
            return any(s.is_over and not self._bulk.is_refused(s.name) for s in self._sessions.values())

    def _recording(self) -> list[str]:
        with self._lock:
            return [session.name for session in self._sessions.values() if not session.is_over][:100]

    def _hello(self) -> Hello:
        with self._lock:
            unsent = [session.name for session in self._sessions.values() if session.is_over]
        return Hello(
            host=self.host,
            agent=self._start_id,
            boot_id=boot_id(),
            tool_version=_version(),
            system={name: text[:2000] for name, text in describe_host(self._options.sampling.root).items()},
            recording=self._recording(),
            unsent=unsent[:10_000],
        )

    def _heartbeat(self) -> Heartbeat:
        try:
            free = shutil.disk_usage(self._state).free
        except OSError:
            free = None
        return Heartbeat(
            t_ns=time.monotonic_ns(),
            unsent_bytes=self._bulk.unsent_bytes(),
            free_disk_bytes=free,
            recording=self._recording(),
            clock_state=self._clock_state.latest(),
            problems=[text[:2000] for text in [*self._foreign[:5], *self._bulk.problems()][:20]],
        )

    def _retell(self) -> list[FromAgent]:
        self._bulk.hurry()
        with self._lock:
            states: list[FromAgent] = [session.state for session in self._sessions.values()]
        return [*states, *self._jobs.retell()]


def _hold(state: Path) -> int:
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        probe = state / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        text = f"{state} cannot be used for recordings: {error.strerror}; name another with --state"
        raise StateProblem(text) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        text = f"another agent keeps its recordings in {state}: stop it, or name another folder with --state"
        raise StateProblem(text) from error
    return descriptor


def _unanswered(options: AgentOptions) -> str:
    text = f"no answer from {options.director}; recording goes on without it. Does `power-director serve` run there, "
    text += "and is the port open?"
    if options.own is not None:  # last, so that it can be copied to the end of the line
        text += f" Does it know this agent? power-director keys add {options.host} {options.own.public.hex()}"
    return text


def _version() -> str:
    try:
        return version("ml-power-agent")
    except PackageNotFoundError:
        return "unknown"
