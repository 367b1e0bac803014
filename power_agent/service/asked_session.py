"""A session as whoever runs a job asks this host's agent for it. Whatever happens here, the job is run.

Nothing here waits while the job runs. Where no agent serves, one is started for the time of the job.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from power_agent.host_facts import as_text
from power_agent.service.local_messages import AgentHere, LocalGone, LocalLink, ToRunner, to_runner
from power_agent.service.run_folder import SOCKET_FILE
from power_agent.stages import in_order
from power_agent.wire.messages import SessionAnswer, SessionRequest, Stage, WorkloadEvent

QUIET_S: Final = 3.0  # after which we say for what we wait
BEGIN_S: Final = 100.0  # an agent needs less to say that there is no director
END_S: Final = 300.0  # for the results
OWN_AGENT_S: Final = 15.0  # for an agent of our own to come up, and to hand over
RETRY_S: Final = 5.0
LOG_FILE = "agent.log"
_MAX_ARGV_BYTES = 65_536
_TURN_S = 0.2


@dataclass(frozen=True)
class AskOptions:
    """What is asked, and of which agent."""

    director: str  # its address
    run_dir: Path
    state: Path | None  # of an agent of our own; None: there is no place for it
    agent_words: list[str]  # options of `power-agent serve` for an agent of our own
    hosts: list[str] = field(default_factory=list)  # empty: this one
    label: str = ""
    stages: list[Stage] = field(default_factory=list)


class AskedSession:
    """One session, from `begin` to `end`. `say` hears what the user should know."""

    def __init__(self, options: AskOptions, argv: list[str], say: Callable[[str], None]) -> None:
        self.measured = False  # somebody samples for this job
        self.report = ""
        self._options = options
        self._say = say
        self._request = SessionRequest(
            request=secrets.token_hex(16),
            want="start",
            hosts=options.hosts,
            label=options.label[:200],
            argv=_bounded(argv),
            cwd=_folder(),
            stages=options.stages,
        )
        self._run_dir = options.run_dir
        self._session = ""
        self._stage: Stage | None = None  # that is measured
        self._over = False  # the agent has said its last word
        self._events: list[WorkloadEvent] = []
        self._link: LocalLink[ToRunner] | None = None
        self._own: subprocess.Popen[bytes] | None = None
        self._retry_at_s = 0.0
        self._told: set[str] = set()

    @property
    def name(self) -> str:
        """The session's, at the director; empty until there is one."""
        return self._session

    @property
    def marks(self) -> Path:
        """Where the job's marks belong."""
        return self._run_dir / self._session

    @property
    def stages(self) -> list[Stage]:
        """The stages to run the job in, in their order."""
        return in_order(self._options.stages)

    def next_stage(self, interrupted: Callable[[], bool]) -> None:
        """Ask for the next stage, and wait until it is measured; the job is run in it in any case."""
        if not self.measured:
            return
        request = SessionRequest(request=self._request.request, want="next", session=self._session or None)
        asked = False
        end_s = time.monotonic() + BEGIN_S
        while not self._over and self._stage != "testing" and not interrupted():
            self.look()
            if self._link is None:
                asked = False
                time.sleep(_TURN_S)
            elif not asked:
                asked = self._send(request)
            self._take(_TURN_S)
            if time.monotonic() > end_s:
                self._warn(f"the testing stage was not begun within {BEGIN_S:g} s; the job is run all the same")
                return

    def begin(self, interrupted: Callable[[], bool]) -> None:
        """Ask, and wait until somebody samples, or it is clear that nobody will."""
        end_s = time.monotonic() + BEGIN_S
        tell_s = time.monotonic() + QUIET_S
        tries = 0
        while not (self.measured or self._over) and not interrupted():
            if self._link is None:
                tries += 1
                if tries > 3 or not (self._connect(self._request) or self._start_own(interrupted)):
                    self._warn("the job is not measured: no agent serves here, and none could be started")
                    return
            self._take(_TURN_S)
            if time.monotonic() > tell_s and not self.measured:
                self._say(f"waiting for {', '.join(self._options.hosts[:6]) or 'this host'} to be sampled")
                tell_s = math.inf
            if time.monotonic() > end_s:
                self._warn(f"the job is not measured: nobody has begun to measure within {BEGIN_S:g} s")
                return

    def started(self, pid: int) -> None:
        """The job runs as this process."""
        self._tell(WorkloadEvent(session=self._session, event="started", t_ns=time.monotonic_ns(), pid=pid))

    def look(self) -> None:
        """Hear what the agent says; never waits."""
        if not self._session or self._over:
            return
        if self._link is None and time.monotonic() >= self._retry_at_s:
            self._retry_at_s = time.monotonic() + RETRY_S
            self._reconnect()
        self._take(0.0)

    def ended(self, exit_code: int | None, signal: int | None) -> None:
        """The job has ended so."""
        event = WorkloadEvent(
            session=self._session, event="ended", t_ns=time.monotonic_ns(), exit_code=exit_code, signal=signal
        )
        self._tell(event)

    def end(self, interrupted: Callable[[], bool]) -> None:
        """Ask for the end of the session, and wait for its report; it comes about without us, too."""
        if self._link is None and not self._session:
            return
        stop = SessionRequest(request=self._request.request, want="stop", session=self._session or None)
        asked = False
        end_s = time.monotonic() + END_S
        while not self._over and time.monotonic() < end_s:
            if self._link is None:
                asked = False
                if not self._reconnect() and (self._own is None or not self._start_own(interrupted, self._state())):
                    self._warn("the agent here is gone; what it recorded is kept, and handed over when it serves again")
                    return
            if not asked and self._link is not None:
                asked = self._send(stop)
            self._take(_TURN_S)
            if interrupted():
                self._say("left before the results were there; what was recorded is handed over")
                return

    def close(self, interrupted: Callable[[], bool]) -> None:
        """Let the agent go; one of our own ends once it has handed over what it can."""
        if self._link is not None:
            self._link.close()
        if self._own is not None:
            assert self._own.stdin is not None
            self._own.stdin.close()
            end_s = time.monotonic() + OWN_AGENT_S
            while self._own.poll() is None and time.monotonic() < end_s and not interrupted():
                time.sleep(0.05)

    def _connect(self, *messages: SessionRequest | WorkloadEvent) -> bool:
        """Reach the agent that serves here, and say this."""
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(self._run_dir / SOCKET_FILE))
        except OSError:
            connection.close()
            return False
        self._link = LocalLink(connection, to_runner)
        for message in messages:
            self._send(message)
        return self._link is not None

    def _state(self) -> list[SessionRequest | WorkloadEvent]:
        """What an agent must know that has been started anew."""
        state = SessionRequest(request=self._request.request, want="state", session=self._session or None)
        return [state, *self._events]

    def _reconnect(self) -> bool:
        return self._connect(*self._state())

    def _start_own(
        self, interrupted: Callable[[], bool], messages: list[SessionRequest | WorkloadEvent] | None = None
    ) -> bool:
        """Start an agent for the time of this job, and say this to it."""
        options = self._options
        if options.state is None:
            self._warn("no agent can be started: this user has no home directory; name a folder with --state")
            return False
        if _is_others(self._run_dir):
            self._run_dir = self._run_dir.with_name(f"{self._run_dir.name}-{os.getuid()}")
        log = options.state / LOG_FILE
        words = ["serve", *options.agent_words, "--run-dir", str(self._run_dir), "--while-open"]
        try:
            options.state.mkdir(parents=True, exist_ok=True, mode=0o700)
            with log.open("wb") as output:
                self._own = subprocess.Popen(
                    [sys.executable, "-m", "power_agent.cli", *words],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # so that no Ctrl-C and no hang-up of the terminal ends it
                    env={**os.environ, "PYTHONSAFEPATH": "1"},
                )
        except OSError as error:
            self._warn(f"no agent can be started: {error}")
            return False
        end_s = time.monotonic() + OWN_AGENT_S
        while time.monotonic() < end_s and not interrupted():
            if self._connect(*(messages if messages is not None else [self._request])):
                return True
            if self._own.poll() is not None:
                break
            time.sleep(0.02)
        with suppress(OSError):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            self._warn(f"the agent that was started for this job says: {lines[-1] if lines else 'nothing'} ({log})")
        return False

    def _tell(self, event: WorkloadEvent) -> None:
        if self._session:
            self._events.append(event)
            self._send(event)

    def _send(self, message: SessionRequest | WorkloadEvent) -> bool:
        if self._link is None:
            return False
        try:
            self._link.send(message)
            return True
        except (LocalGone, ValueError):
            self._lose()
            return False

    def _take(self, timeout_s: float) -> None:
        try:
            while self._link is not None and (message := self._link.receive(timeout_s)) is not None:
                self._hear(message)
                timeout_s = 0.0
        except LocalGone:
            self._lose()

    def _lose(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._session and not self._over:
            self._warn("the agent here is gone; the job goes on, and so does sampling for a while")

    def _hear(self, message: ToRunner) -> None:
        if isinstance(message, AgentHere):
            if message.director != self._options.director:
                self._warn(f"the agent that serves here belongs to {message.director}: the job is measured there")
            return
        if message.request != self._request.request:
            return
        self._session = message.session or self._session
        if message.state != "preparing":  # until then, what is missing may still come
            for warning in message.warnings:
                self._warn(warning)
        self._follow(message)

    def _follow(self, answer: SessionAnswer) -> None:
        if answer.state == "measuring":
            self._stage = answer.stage
            if not self.measured:
                self.measured = True
                self._say(f"measuring as session {self._session}")
        elif answer.state == "refused":
            self._over = True
            self._warn(answer.reason)
        elif answer.state == "complete":
            self._over = True
            self.report = answer.report

    def _warn(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(f"warning: {text}")


def _is_others(folder: Path) -> bool:
    """Whether somebody else has this folder, who does not serve now."""
    try:
        return folder.lstat().st_uid != os.getuid()
    except OSError:
        return False


def _bounded(argv: list[str]) -> list[str]:
    """A command for the report, as text, cut where it is longer than anybody reads."""
    words, left = [], _MAX_ARGV_BYTES
    for word in argv[:1000]:
        text = as_text(word)[: min(4096, left)]
        words.append(text)
        left -= len(text)
        if left <= 0:
            break
    return words


def _folder() -> str:
    try:
        return as_text(str(Path.cwd()))[:4096]
    except OSError:  # somebody removed it, which is no reason not to run
        return ""
