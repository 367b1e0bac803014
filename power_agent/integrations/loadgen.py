"""MLPerf's LoadGen from Python: the measured test becomes the phase `run` with its queries and samples.

    marked = MarkedTest(settings)
    sut = loadgen.ConstructSUT(marked.issue(issue), flush)
    library = loadgen.ConstructQSL(total, performance, marked.load(load), marked.unload(unload))
    loadgen.StartTest(sut, library, settings)

Needs nothing of LoadGen itself. `power-director run --loadgen` reads the same run from LoadGen's log: use one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

from power_agent.integrations.open_phases import harmless
from power_agent.marks import phase

Callback = Callable[[Sequence[Any]], None]
_ONE_SAMPLE_A_QUERY = ("SingleStream", "Server")  # and Server may hand over several queries in one call


class MarkedTest:
    """Wraps the callbacks that LoadGen gets: the run lasts from when samples are loaded until they are unloaded.

    Args:
        settings: the TestSettings that the test is started with.
    """

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self._run: phase | None = None
        self._lock = Lock()
        self._calls = 0
        self._samples = 0

    def issue(self, issue: Callback) -> Callback:
        """For ConstructSUT: counts what is asked."""

        def counted(samples: Sequence[Any]) -> None:
            with self._lock:
                self._calls += 1
                self._samples += len(samples)
            issue(samples)

        return counted

    def load(self, load: Callback) -> Callback:
        """For ConstructQSL: the run begins when this returns."""

        def then_begin(indices: Sequence[int]) -> None:
            load(indices)
            self._begin()

        return then_begin

    def unload(self, unload: Callback) -> Callback:
        """For ConstructQSL: the run ends when this is called."""

        def end_before(indices: Sequence[int]) -> None:
            self._end()
            unload(indices)

        return end_before

    @harmless
    def _begin(self) -> None:
        self._calls = self._samples = 0
        self._run = phase("run", scenario=self._settings.scenario.name)
        self._run.__enter__()

    @harmless
    def _end(self) -> None:
        if self._run is not None:
            single = self._settings.scenario.name in _ONE_SAMPLE_A_QUERY
            self._run.add(queries=self._samples if single else self._calls, samples=self._samples)
            self._run.__exit__(None, None, None)
            self._run = None
