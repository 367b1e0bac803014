"""What the callbacks of all frameworks need: phases that open in one call and close in another, and no harm ever."""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Callable, Mapping
from typing import Literal, ParamSpec

from power_agent.mark_file import say
from power_agent.marks import begin, end, is_measured

Work = Mapping[str, float]  # counts: samples, tokens, queries, streams
Sync = Literal["cuda"] | None
_Arguments = ParamSpec("_Arguments")
_said: set[str] = set()


def harmless(hook: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """Decorate a callback: where nobody measures it does nothing, and it never raises into the workload.

    What goes wrong in it is said on stderr, once for each callback.
    """

    @functools.wraps(hook)
    def guarded(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        try:
            if is_measured():
                hook(*args, **kwargs)
        except Exception as error:
            if hook.__qualname__ not in _said:
                _said.add(hook.__qualname__)
                say(
                    f"{hook.__module__}: {hook.__name__} failed, so a phase is missing: {type(error).__name__}: {error}"
                )

    return guarded


class _Open:
    """An open phase and the sums of what it did."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.work: dict[str, float] | None = None  # None: nothing was counted

    def count(self, work: Work) -> None:
        units = work.keys() if self.work is None else self.work
        self.work = {unit: work[unit] + (self.work or {}).get(unit, 0) for unit in units if unit in work}


class OpenPhases:
    """The phases of a training that are open, outermost first.

    What an exception leaves open is ended by `abort`, or else when the process ends.

    Args:
        sync: "cuda" waits for the GPU at every edge, where somebody measures.
    """

    def __init__(self, sync: Sync) -> None:
        self.rank: int | None = None  # None: the launcher's
        self.last_event_ns: int | None = None  # when the framework was last known to be at work; None: now
        self._sync = sync
        self._open: list[_Open] = []
        self._pid = 0  # of the process that opened them

    def __contains__(self, name: str) -> bool:
        return any(phase.name == name for phase in self._open)

    def begin(self, name: str, index: int | None = None, t_ns: int | None = None) -> None:
        """Open a phase, now or at an earlier instant."""
        pid = os.getpid()
        if self._pid != pid:
            self._pid = pid
            self._open.clear()  # a fork's parent closes its own
            atexit.register(self._at_exit)
        self._open.append(_Open(name))
        begin(name, index=index, rank=self.rank, sync=self._sync, t_ns=t_ns)

    def count(self, work: Work, *names: str) -> None:
        """Add work to those of these phases that are open. A unit that is once left out is unknown of the whole."""
        for phase in self._open:
            if phase.name in names:
                phase.count(work)

    def end(self, name: str, **attributes: str) -> None:
        """Close the phase with what was counted, and what is open in it; without such a phase, do nothing."""
        while name in self:
            phase = self._open.pop()
            described = {**(phase.work or {}), **(attributes if phase.name == name else {})}
            end(phase.name, rank=self.rank, sync=self._sync, **described)  # type: ignore[arg-type]
            if phase.name == name:
                return

    def abort(self, error: str | None = None) -> None:
        """Close all that is open, at the last event: an exception, if known by its name, ended the training."""
        attributes = {"status": "aborted"} if error is None else {"status": "aborted", "error": error}
        while self._open:
            phase = self._open.pop()
            end(phase.name, rank=self.rank, t_ns=self.last_event_ns, **(phase.work or {}), **attributes)  # type: ignore[arg-type]

    def _at_exit(self) -> None:
        if self._pid == os.getpid():
            self.abort()
