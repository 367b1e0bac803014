"""One session on one host: its folder, its sampler, and the thread that looks after both."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from power_agent.host_facts import boot_id
from power_agent.messages import Ready, SamplerSpec
from power_agent.recorder import Recorder
from power_agent.service.session_folder import JobRecord, SessionFolder
from power_agent.spool import SpoolDamaged, SpoolUnwritable, SpoolWriter
from power_agent.wire.messages import SamplerChoices, SamplingState, Stage

ALONE_S: Final = 3600.0  # that a sampler goes on when its agent is gone
MAX_PROBLEMS = 20
MAX_TEXT = 2000

_Order: TypeAlias = Literal["work", "edge", "stage", "again", "stop", "leave"]


@dataclass(frozen=True)
class SamplerSettings:
    """What the agent was started with; a director's choices go on top."""

    drivers: list[str] | None = None  # None: all that work here
    rates_hz: dict[str, float] = field(default_factory=dict)
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    root: Path = Path("/")

    def spec(self, spool: Path, host: str, choices: SamplerChoices, *, resume: bool) -> SamplerSpec:
        """What a sampler is told."""
        settings = {driver: dict(own) for driver, own in self.settings.items()}
        for driver, chosen in choices.settings.items():
            settings.setdefault(driver, {}).update({key: _as_text(value) for key, value in chosen.items()})
        return SamplerSpec(
            spool=str(spool),
            host=host,
            drivers=choices.drivers if choices.drivers is not None else self.drivers,
            rates_hz={**self.rates_hz, **choices.rates_hz},
            settings=settings,
            root=str(self.root),
            resume=resume,
            alone_s=ALONE_S,
        )


def _as_text(value: float | str) -> str:
    """As a person would write it: drivers read settings as texts, and some want whole numbers."""
    return value if isinstance(value, str) else str(int(value)) if float(value).is_integer() else repr(float(value))


class AgentSession:
    """Samples from `start` until `stop`, or until `leave`, after which another agent process may go on."""

    def __init__(
        self,
        folder: SessionFolder,
        settings: SamplerSettings,
        *,
        changed: Callable[[SamplingState], None],
        tell: Callable[[str], None],
    ) -> None:
        """`changed` hears each new state, in the session's thread."""
        self.folder = folder
        self.name = folder.record.session
        self._settings = settings
        self._changed = changed
        self._tell = tell
        self._problems: list[str] = []
        self._orders: queue.SimpleQueue[tuple[_Order, int]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"session {self.name}", daemon=True)
        self._ready: Ready | None = None
        self._tail_s = 0.0
        self._gap_s = 0.0
        self._work_pid: int | None = None  # while it runs
        self.state = self._make_state("starting", time.monotonic_ns())

    @classmethod
    def ended(cls, folder: SessionFolder, problem: str, tell: Callable[[str], None]) -> AgentSession:
        """A session of an earlier agent that is not sampled any more, for `problem` if that is not empty."""
        session = cls(folder, SamplerSettings(), changed=lambda state: None, tell=tell)
        if problem:
            session.note(problem)
        session._end("stopped")
        return session

    @property
    def is_over(self) -> bool:
        """Whether all that will ever be recorded is in the folder."""
        return self.state.state in ("stopped", "failed")

    def start(self) -> None:
        """Begin to sample, or go on where an earlier agent left off."""
        self._changed(self.state)
        self._thread.start()

    def work_started(self, pid: int) -> None:
        """The work runs as this process: read everything now."""
        self._orders.put(("work", pid))

    def work_ended(self) -> None:
        """Read everything now."""
        self._orders.put(("edge", 0))

    def stop(self) -> None:
        """Sample the tail, and end. Repeated harmlessly."""
        self._orders.put(("stop", 0))

    def leave(self) -> None:
        """End sampling now, such that another agent process can go on. `join` waits for it."""
        self._orders.put(("leave", 0))

    def join(self, timeout_s: float) -> None:
        """Wait for the session's thread."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def keep_job(self, job: JobRecord) -> None:
        """Write down the job that the session was asked for."""
        self.folder.record.job = job
        self._store()

    def enter_stage(self, stage: Stage, choices: SamplerChoices | None = None) -> None:
        """Go on in another stage; with other choices (None: as before) the sampler is started again."""
        record = self.folder.record
        record.stage = stage
        if choices is not None and choices != record.choices:
            record.choices = choices
            self._orders.put(("again", 0))
        else:
            self._orders.put(("stage", 0))

    def _run(self) -> None:
        try:
            self._sample()
        except Exception as error:  # a mistake of ours: told, and what was recorded is handed over
            self.note(f"a mistake of this program ended sampling: {type(error).__name__}: {error}")
            self._end("failed")

    def _sample(self) -> None:
        spec = self._spec()
        if spec is None:
            self._end("failed")
            return
        recorder = Recorder(spec, self.folder.path, tell=lambda text: None)
        if spec.resume and not recorder.adopted:
            self.note(f"this agent was started anew; readings of about {self._gap_s:.1f} s are missing")
        order, seen = self._follow(recorder)
        while order == "again":
            self._changed_to("starting")
            recorder.stop()
            seen = self._take_problems(recorder, seen)
            self._store()
            spec = self._spec()
            if spec is None:
                break
            recorder, self._ready = Recorder(spec, self.folder.path, tell=lambda text: None), None
            if self._work_pid is not None:
                recorder.work_started(self._work_pid)
            order, seen = self._follow(recorder)
        if order == "stop":
            self._changed_to("stopping")
            recorder.work_ended()
            self._sleep(recorder.tail_s)
        recorder.stop()
        self._take_problems(recorder, seen)
        if order != "leave":
            self._end("stopped" if order == "stop" else "failed")

    def _follow(self, recorder: Recorder) -> tuple[_Order | None, int]:
        """Look after the sampler until an order ends that, or there is none; and how many problems were told."""
        seen = 0
        while not recorder.is_over:
            if recorder.ready is not None and self._ready is None:
                self._ready, self._tail_s = recorder.ready, recorder.tail_s
                self._changed_to("sampling")
            if len(recorder.problems) > seen:
                seen = self._take_problems(recorder, seen)
                self._changed_to(self.state.state)
            try:
                order, pid = self._orders.get(timeout=1.0)
            except queue.Empty:
                recorder.look()
                continue
            if order in ("stop", "leave", "again"):
                return order, seen
            if order == "work":
                self._work_pid = pid
                recorder.work_started(pid)
            elif order == "edge":
                self._work_pid = None
                recorder.work_ended()
            else:
                self._store()
                self._changed_to(self.state.state)
        return None, seen

    def _sleep(self, seconds: float) -> None:
        """The tail; who wants this process to end does not wait for it."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                if self._orders.get(timeout=left_s)[0] == "leave":
                    return
            except queue.Empty:
                return

    def _spec(self) -> SamplerSpec | None:
        record = self.folder.record
        try:
            until_ns = self.folder.recorded_until_ns()
        except SpoolDamaged as error:
            self.note(f"sampling cannot go on: {error}")
            return None
        if until_ns is not None:
            self._gap_s = (time.monotonic_ns() - until_ns) * 1e-9
        return self._settings.spec(self.folder.spool, record.host, record.choices, resume=until_ns is not None)

    def _take_problems(self, recorder: Recorder, seen: int) -> int:
        for problem in recorder.problems[seen:]:
            self.note(problem)
        return len(recorder.problems)

    def note(self, problem: str) -> None:
        """Tell of something that went wrong: now, to the director, and in the log that is handed over."""
        self._tell(f"session {self.name}: {problem}")
        self.folder.note(problem)
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(problem[:MAX_TEXT])

    def _store(self) -> None:
        try:
            self.folder.store()
        except OSError as error:
            self.note(f"its record cannot be written: {error.strerror}; an agent started anew may not know all")

    def _end(self, state: Literal["stopped", "failed"]) -> None:
        if not self.folder.spool.exists():  # marks and logs are handed over with a spool alone
            record = self.folder.record
            try:
                SpoolWriter(self.folder.spool, {"host": record.host, "boot_id": record.boot_id}).close()
            except SpoolUnwritable as error:
                self.note(str(error))
        self.folder.end()
        self._changed_to(state)

    def _changed_to(self, state: Literal["starting", "sampling", "stopping", "stopped", "failed"]) -> None:
        since_ns = self.state.t_ns if state == self.state.state else time.monotonic_ns()
        self.state = self._make_state(state, since_ns)
        self._changed(self.state)

    def _make_state(
        self, state: Literal["starting", "sampling", "stopping", "stopped", "failed"], since_ns: int
    ) -> SamplingState:
        ready = self._ready
        return SamplingState(
            session=self.name,
            stage=self.folder.record.stage,
            state=state,
            t_ns=since_ns,
            drivers=ready.drivers if ready is not None else [],
            tail_s=min(3600.0, self._tail_s),
            problems=list(self._problems),
        )


def reboot_problem(folder: SessionFolder) -> str:
    """Why a session that was running is not gone on with; empty: it can be."""
    if folder.record.boot_id == boot_id():
        return ""
    return "the machine was started anew during the session; readings after that are missing"
