"""The sampler as a run sees it: whatever happens to it, the job goes on, and the report says what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from director.running.notices import say
from power_agent.messages import Ready, SamplerSpec
from power_agent.sampler_client import SamplerClient, SamplerFailed

STOP_TIMEOUT_S = 15.0
MOST_TAIL_S = 30.0  # for the slowest device: the job has ended, and somebody waits


class Recorder:
    """Starts the sampler and speaks to it while it lives. `problems` says in plain words what went wrong."""

    def __init__(self, spec: SamplerSpec, directory: Path) -> None:
        self.problems: list[str] = []
        self.ready: Ready | None = None
        self._client: SamplerClient | None = None
        try:
            self._client = SamplerClient.start(spec, directory)
            self.ready = self._client.ready
        except SamplerFailed as error:
            self._give_up(f"nothing is measured: the sampler did not start: {error}")

    @property
    def tail_s(self) -> float:
        """How long sampling goes on after the work, in seconds of the session's clock."""
        return min(MOST_TAIL_S, self.ready.tail_s) if self.ready is not None and self._client is not None else 0.0

    def look(self) -> None:
        """Notice the sampler's death."""
        if self._client is not None and not self._client.alive():
            self._give_up("the sampler died; readings after that instant are missing. The job goes on")

    def work_started(self, pid: int) -> None:
        """The work runs as this process."""
        self._ask(lambda client: client.work_started(pid))

    def edge(self) -> None:
        """Read every device now, out of turn."""
        self._ask(lambda client: client.edge())

    def stop(self) -> None:
        """End sampling, with all readings in the spool."""
        self._ask(lambda client: client.stop(STOP_TIMEOUT_S))
        self._client = None

    def _ask(self, request: Callable[[SamplerClient], object]) -> None:
        if self._client is None:
            return
        try:
            request(self._client)
        except (SamplerFailed, OSError) as error:
            self._give_up(f"the sampler does not answer: {error}; readings may be missing")

    def note(self, problem: str) -> None:
        """Tell of something that went wrong, now and in the report."""
        self.problems.append(problem)
        say(f"warning: {problem}")

    def _give_up(self, problem: str) -> None:
        self._client = None
        self.note(problem)
