"""The jobs for which users of this host asked for sessions: asks the director for them, and does without one.

A job never waits for a director for long. Where none answers, its session is recorded here alone, and handed over when
one is back.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from power_agent.service.agent_session import AgentSession
from power_agent.service.local_server import Runner, may_speak_for
from power_agent.service.session_folder import JobRecord, ProcessId
from power_agent.stages import in_order
from power_agent.wire.messages import FromAgent, SessionAnswer, SessionRequest, Stage, WorkloadEvent

NO_DIRECTOR_S: Final = 3.0  # before a job is measured without one
PREPARE_S: Final = 60.0  # that a director may take for its preparations
STOP_S: Final = 5.0  # without a director, after the job's end
MOST_JOBS: Final = 100


class Measures(Protocol):
    """What jobs need of the agent."""

    host: str

    @property
    def linked(self) -> bool:
        """Whether a director is heard."""

    def send(self, message: FromAgent) -> None:
        """Tell the director."""

    def begin_local(self, name: str, job: JobRecord) -> AgentSession:
        """Sample for a job in a session that no director has given.

        Raises:
            OSError: the disk is full or fails.
        """

    def session(self, name: str) -> AgentSession | None:
        """A session of this host."""


@dataclass
class _Job:
    record: JobRecord
    state: Literal["asking", "starting here", "measuring", "stopping", "done"] = "asking"
    session: str = ""
    local: bool = False
    why_local: str = ""
    answer: SessionAnswer | None = None
    runner: Runner | None = None  # while it is connected
    since_s: float = 0.0  # of the state
    next_since_s: float | None = None  # since when the director is asked for the next stage
    untold: bool = False  # it is done, and the director is to be told so when it is back
    unheard_s: float | None = None  # since when no director is heard, while its answer is awaited


class Jobs:
    """Any thread may call. `look` is to be called a few times per second."""

    def __init__(self, agent: Measures, tell: Callable[[str], None]) -> None:
        self._agent = agent
        self._tell = tell
        self._lock = threading.RLock()
        self._jobs: dict[str, _Job] = {}

    def restore(self, session: AgentSession) -> None:
        """Take over what an earlier agent process knew of a session's job."""
        record = session.folder.record
        if record.job is None:
            return
        job = _Job(record.job, "measuring", session.name, record.local, since_s=time.monotonic())
        if record.job.stop:
            job.state = "stopping"
        job.answer = self._answer(job, "stopping" if record.job.stop else "measuring")
        if record.job.work is not None and not record.job.work.is_gone():
            session.work_started(record.job.work.pid)
        with self._lock:
            self._jobs[record.job.request.request] = job

    def any_open(self) -> bool:
        """Whether a job is not done."""
        with self._lock:
            return any(job.state != "done" for job in self._jobs.values())

    def retell(self) -> list[FromAgent]:
        """What a director should know that is linked anew."""
        found: list[FromAgent] = []
        with self._lock:
            for job in self._jobs.values():
                if job.local or (job.state == "done" and not job.untold):
                    continue
                if job.state == "asking":
                    found.append(job.record.request)
                    continue
                found += job.record.events
                if job.record.stop:
                    found.append(self._stop_request(job))
                job.untold = False
        return found

    def on_message(self, runner: Runner, message: SessionRequest | WorkloadEvent) -> None:
        """Hear a process of this host."""
        with self._lock:
            if isinstance(message, SessionRequest):
                self._on_request(runner, message)
            else:
                self._on_event(runner, message)

    def on_gone(self, runner: Runner) -> None:
        """A process has hung up; it may come again."""
        with self._lock:
            for job in self._jobs.values():
                if job.runner is runner:
                    job.runner = None

    def on_answer(self, answer: SessionAnswer) -> None:
        """Hear the director."""
        with self._lock:
            job = self._jobs.get(answer.request)
            if job is None:
                return
            if job.local or job.state == "done":  # too late
                if answer.session and answer.state in ("preparing", "measuring"):
                    self._agent.send(SessionRequest(request=answer.request, want="stop", session=answer.session))
                return
            job.unheard_s = None
            if answer.session:
                job.session = answer.session
            if answer.state == "refused" and job.state == "asking":
                self._go_local(job, f"the director refused: {answer.reason}")
                return
            if answer.state in ("complete", "refused"):
                self._finish(job, answer)
                return
            if answer.state == "measuring":
                job.next_since_s = None
            if answer.state == "measuring" and job.state == "asking":
                job.state = "measuring"
                self._keep(job)
            self._reply(job, answer)

    def look(self) -> None:
        """Notice what has come about: time that ran out, processes that are gone, sessions that have ended."""
        now_s = time.monotonic()
        with self._lock:
            for job in list(self._jobs.values()):
                self._look(job, now_s)

    def _look(self, job: _Job, now_s: float) -> None:
        waited_s = now_s - job.since_s
        session = self._agent.session(job.session) if job.session else None
        if job.state == "asking":
            if job.runner is None and job.record.runner.is_gone():
                job.record.stop = True
                self._finish(job, self._answer(job, "complete"))
            elif waited_s > NO_DIRECTOR_S and (job.answer is None or not self._agent.linked):
                self._go_local(job, "no director answers")
            elif waited_s > PREPARE_S:
                self._go_local(job, f"the director did not begin within {PREPARE_S:g} s")
        elif job.state == "starting here":
            if session is None or session.state.state == "failed":
                problems = "; ".join(session.state.problems) if session is not None else "its session is gone"
                self._finish(job, self._answer(job, "refused", reason=f"nothing is measured: {problems}"))
            elif session.state.state == "sampling":
                self._set(job, "measuring")
                warning = f"{job.why_local}; this host alone is recorded, and handed over when a director takes it"
                self._reply(job, self._answer(job, "measuring", [warning]))
        elif job.state == "measuring":
            if job.next_since_s is not None and now_s - job.next_since_s > NO_DIRECTOR_S and not self._agent.linked:
                self._enter_next(job, ["the director is away; this host alone has entered the testing stage"])
            work = job.record.work
            if job.runner is None and job.record.runner.is_gone() and (work is None or work.is_gone()):
                if work is not None and not any(event.event == "ended" for event in job.record.events):
                    self._add_event(job, WorkloadEvent(session=job.session, event="ended", t_ns=time.monotonic_ns()))
                self._stop(job)
        elif job.state == "stopping":
            self._look_at_end(job, session, now_s)

    def _look_at_end(self, job: _Job, session: AgentSession | None, now_s: float) -> None:
        over = session is None or session.is_over
        if job.local:
            if over:
                problems = session.state.problems if session is not None else []
                self._finish(job, self._answer(job, "complete", problems))
            return
        if self._agent.linked:
            job.unheard_s = None
            return
        job.unheard_s = job.unheard_s if job.unheard_s is not None else now_s
        if now_s - job.unheard_s > STOP_S:
            if session is not None and not over:
                session.stop()  # the director would have said so
            if over:
                text = "the director is away; what this host recorded is kept, and handed over when it is back"
                self._finish(job, self._answer(job, "complete", [text]))

    def _on_request(self, runner: Runner, request: SessionRequest) -> None:
        job = self._jobs.get(request.request)
        if job is not None and not may_speak_for(runner, job.record.uid):
            runner.answer(SessionAnswer(request=request.request, state="refused", reason="another user began this"))
            return
        if job is None:
            if sum(known.state != "done" for known in self._jobs.values()) >= MOST_JOBS:
                reason = f"{MOST_JOBS} jobs are measured here already"
                runner.answer(SessionAnswer(request=request.request, state="refused", reason=reason))
                return
            record = JobRecord(request=request, uid=runner.uid, runner=ProcessId.of(runner.pid))
            job = _Job(record, since_s=time.monotonic(), session=request.session or "")
            if request.want != "start":  # of one whose agent was started anew, and which has no part in its session
                job.state = "measuring"
            self._jobs[request.request] = job
            if request.want == "start":
                self._agent.send(request)
        elif job.answer is not None:
            runner.answer(job.answer)
        job.runner = runner
        if request.want == "stop" and job.state != "done":
            self._stop(job)
        elif request.want == "next" and job.state == "measuring":
            if job.local:
                self._enter_next(job, [])
            else:
                job.next_since_s = time.monotonic()
                self._agent.send(request)

    def _on_event(self, runner: Runner, event: WorkloadEvent) -> None:
        for job in self._jobs.values():
            if job.runner is not runner or job.session != event.session or job.state == "done":
                continue
            if event in job.record.events or len(job.record.events) >= 10:
                return
            session = self._agent.session(job.session)
            if event.event == "started" and event.pid is not None:
                job.record.work = ProcessId.of(event.pid)
                if session is not None:
                    session.work_started(event.pid)
            elif session is not None:
                session.work_ended()
            self._add_event(job, event)

    def _add_event(self, job: _Job, event: WorkloadEvent) -> None:
        job.record.events.append(event)
        self._keep(job)
        if not job.local:
            self._agent.send(event)

    def _enter_next(self, job: _Job, warnings: list[str]) -> None:
        job.next_since_s = None
        session = self._agent.session(job.session)
        if session is not None:
            session.enter_stage("testing")
        self._reply(job, self._answer(job, "measuring", warnings, stage="testing"))

    def _stop(self, job: _Job) -> None:
        if job.record.stop and job.state == "stopping":
            return
        job.record.stop = True
        if job.state == "asking" and not job.session:
            self._finish(job, self._answer(job, "complete"))
            return
        self._set(job, "stopping")
        self._keep(job)
        session = self._agent.session(job.session)
        if job.local:
            if session is not None:
                session.stop()
        else:
            self._agent.send(self._stop_request(job))

    def _stop_request(self, job: _Job) -> SessionRequest:
        return SessionRequest(request=job.record.request.request, want="stop", session=job.session or None)

    def _go_local(self, job: _Job, why: str) -> None:
        job.local, job.why_local = True, why
        name = _local_name(self._agent.host, job.record.request)
        try:
            session = self._agent.begin_local(name, job.record)
        except OSError as error:
            reason = f"nothing is measured: {why}, and here nothing can be recorded: {error.strerror or error}"
            self._finish(job, self._answer(job, "refused", reason=reason))
            return
        job.session = session.name
        self._set(job, "starting here")
        self._tell(f"session {name}: {why}; it is recorded here alone, and handed over when a director is back")

    def _keep(self, job: _Job) -> None:
        """Write down what another agent process would have to know, where this host is part of the session."""
        session = self._agent.session(job.session) if job.session else None
        if session is not None:
            session.keep_job(job.record)

    def _set(self, job: _Job, state: Literal["starting here", "measuring", "stopping"]) -> None:
        job.state, job.since_s = state, time.monotonic()

    def _finish(self, job: _Job, answer: SessionAnswer) -> None:
        job.untold = bool(job.record.stop and job.session and not job.local and not self._agent.linked)
        job.state = "done"
        self._keep(job)
        self._reply(job, answer)
        done = [key for key, known in self._jobs.items() if known.state == "done" and not known.untold]
        for key in done[:-MOST_JOBS]:
            del self._jobs[key]

    def _reply(self, job: _Job, answer: SessionAnswer) -> None:
        job.answer = answer
        if job.runner is not None:
            job.runner.answer(answer)

    def _answer(
        self,
        job: _Job,
        state: Literal["measuring", "stopping", "complete", "refused"],
        warnings: list[str] | None = None,
        reason: str = "",
        stage: Stage | None = None,
    ) -> SessionAnswer:
        request = job.record.request
        stages = in_order(request.stages)
        return SessionAnswer(
            request=request.request,
            state=state,
            session=job.session or None,
            stage=stage or stages[0],
            warnings=[text[:2000] for text in warnings or []],
            reason=reason[:2000],
        )


def _local_name(host: str, request: SessionRequest) -> str:
    """A session's name that no other host and no earlier session has."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    what = request.label or (Path(request.argv[0]).name if request.argv else "job")
    what = re.sub(r"[^A-Za-z0-9_.-]+", "-", what)[:40]
    return f"{stamp}-{host}-{what}-{secrets.token_hex(3)}"
