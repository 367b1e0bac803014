"""A sampler as whoever measures sees it: whatever happens to it, the job goes on, and what is missing is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from power_agent.messages import Ready, SamplerSpec
from power_agent.sampler_client import SamplerClient, SamplerFailed

STOP_TIMEOUT_S = 15.0
MOST_RESTARTS = 10
LONGEST_PAUSE_S = 60.0  # before it is started again
UNSAVED_S = 0.9  # that the sampler may hold in memory
MOST_TAIL_S = 30.0  # for the slowest device: the job has ended, and somebody waits


class Recorder:
    """Starts the sampler, speaks to it while it lives, and starts it again when it dies.

    `problems` says in plain words what went wrong; `tell` hears it at once. Without `restarts` it need not be looked
    after. A sampler of this session that still runs, left by one who died, is taken over.
    """

    def __init__(
        self, spec: SamplerSpec, directory: Path, *, tell: Callable[[str], None], restarts: bool = True
    ) -> None:
        self.problems: list[str] = []
        self.ready: Ready | None = None  # what the first sampler said of itself
        self._tell = tell
        self._spec = spec
        self._directory = directory
        self._client: SamplerClient | None = SamplerClient.adopt(spec, directory)
        self.adopted = self._client is not None
        self._work_pid: int | None = None  # while it runs
        self._restarts = 0 if restarts else MOST_RESTARTS
        self._died_at_s = 0.0
        self._restart_at_s: float | None = None
        try:
            client = self._client or SamplerClient.launch(spec, directory)
            self.ready = client.wait_ready(tell)
            self._client = client
        except SamplerFailed as error:
            self._client = None
            if spec.resume:
                self._lose(f"the sampler did not start again: {error}")
            else:
                self.note(f"nothing is measured: the sampler did not start: {error}")

    @property
    def is_over(self) -> bool:
        """Whether there is no sampler, and none will be started."""
        return self._client is None and self._restart_at_s is None

    @property
    def tail_s(self) -> float:
        """How long sampling goes on after the work, in seconds of the session's clock."""
        return min(MOST_TAIL_S, self.ready.tail_s) if self.ready is not None and self._client is not None else 0.0

    def look(self) -> None:
        """Notice the sampler's death, and start it again; never waits."""
        if self._client is None:
            if self._restart_at_s is not None and time.monotonic() >= self._restart_at_s:
                self._restart()
        elif not self._client.alive():
            self._lose("the sampler died")
        elif self._client.ready is None:
            try:
                if (ready := self._client.look_ready()) is not None:
                    self.ready = self.ready or ready
                    self._restart_at_s = None
                    gap_s = time.monotonic() - self._died_at_s + UNSAVED_S
                    self.note(f"the sampler was started again; readings of up to {gap_s:.1f} s are missing")
            except SamplerFailed as error:
                self._lose(f"the sampler did not start again: {error}")

    def work_started(self, pid: int) -> None:
        """The work runs as this process."""
        self._work_pid = pid
        self._ask(lambda client: client.work_started(pid))

    def work_ended(self) -> None:
        """Read every device now, out of turn."""
        self._work_pid = None
        self._ask(lambda client: client.edge())

    def stop(self) -> None:
        """End sampling, with all readings in the spool."""
        self._restarts = MOST_RESTARTS
        self._ask(lambda client: client.stop(STOP_TIMEOUT_S))
        self._client = None

    def forget(self) -> None:
        """In a forked child: the sampler is its parent's, and must not wait for the child's end."""
        if self._client is not None:
            self._client.forget()
            self._client = None

    def _ask(self, request: Callable[[SamplerClient], object]) -> None:
        if self._client is None:
            return
        try:
            request(self._client)
        except (SamplerFailed, OSError) as error:
            self._lose(f"the sampler does not answer: {error}; readings may be missing")

    def note(self, problem: str) -> None:
        """Tell of something that went wrong, now and in the report."""
        self.problems.append(problem)
        self._tell(f"warning: {problem}")

    def _lose(self, problem: str) -> None:
        self._client = None
        if self._restart_at_s is None:  # else it did not come up again
            self._died_at_s = time.monotonic()
        # A replay would give again what it gave before.
        if self._restarts >= MOST_RESTARTS or self._spec.replay_clock is not None:
            self._restart_at_s = None
            self.note(f"{problem}; readings after that instant are missing")
            return
        pause_s = min(LONGEST_PAUSE_S, 2.0**self._restarts - 1)
        self._restart_at_s = time.monotonic() + pause_s
        self._restarts += 1
        self.note(f"{problem}; it is started again" + (f" in {pause_s:g} s" if pause_s else ""))
        self.look()

    def _restart(self) -> None:
        spec = msgspec.structs.replace(self._spec, resume=True)
        try:
            self._client = SamplerClient.launch(spec, self._directory)
            if self._work_pid is not None:
                self._client.work_started(self._work_pid)
        except SamplerFailed as error:
            self._lose(f"the sampler cannot be started again: {error}")
