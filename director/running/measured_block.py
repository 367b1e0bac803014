"""`with measure() as m:` measures a block of a program that `power-director run` did not start."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from director.answers.number_text import duration_text, figure_text, watts_text
from director.answers.summary import EnergyFigure, Summary
from director.running.block_results import NoResults
from director.running.block_session import BlockSession
from director.running.notices import say
from director.running.run_options import ReportOptions, RunOptions, UsageError
from director.session.files import SessionError
from drivers.discovery import find_unknown
from power_agent import phase
from power_agent.marks import DIRECTORY_VARIABLE, direct_to, leave
from power_agent.stream_plan import check_rates

FULLY_COVERED = 0.9995
MOST_INNER = 100_000  # blocks whose figures wait for the end of the session around them
LONGEST_IDLE_S = 86_400.0


def measure(
    label: str = "",
    *,
    output: str | Path | None = None,
    drivers: Sequence[str] | None = None,
    rates_hz: Mapping[str, float] | None = None,
    settings: Mapping[str, Mapping[str, object]] | None = None,
    root: str | Path = "/",
    idle_s: float = 0.0,
    separate: bool = False,
    plot: bool = False,
) -> MeasuredBlock:
    """Measure the power and energy of a block: `with measure() as m: ...`, then `m.joules`.

    Within another measurement the block is a phase of that session, unless it is `separate`.

    Args:
        label: a name for reports, and of the phase within another measurement.
        output: the session directory; new or empty. None: a new one under ./power-sessions.
        drivers: only these; None: all that work here.
        rates_hz: readings per second by "driver" or "driver.group".
        settings: of drivers: {"estimate": {"peak_watts": 280}}.
        root: where /sys, /proc and /dev are.
        idle_s: how long to measure idle power before and after the block.
        separate: make a session of its own even within another measurement.
        plot: draw `m.svg` and `m.text_line`.

    Raises:
        ValueError: an argument that cannot be meant. Whatever goes wrong later is told and does not disturb the block.
    """
    options = RunOptions(
        argv=_program(),
        output=Path(output) if output is not None else None,
        label=label,
        drivers=_checked_drivers(drivers),
        rates_hz=dict(rates_hz or {}),
        settings={driver: {key: str(value) for key, value in of.items()} for driver, of in (settings or {}).items()},
        root=Path(root),
        idle_s=idle_s,
        report=ReportOptions(quiet=True),
    )
    _check_names([*(drivers or []), *(name.partition(".")[0] for name in options.rates_hz), *options.settings])
    check_rates(options.rates_hz)
    if not 0 <= idle_s <= LONGEST_IDLE_S:
        raise ValueError(f"idle_s is {idle_s!r}: give a number of seconds, 0 to {LONGEST_IDLE_S:.0f}")
    return MeasuredBlock(options, separate=separate, plot=plot)


class MeasuredBlock:
    """A block of a program and, when it has ended, its figures. None stands for what was not measured, never 0."""

    def __init__(self, options: RunOptions, *, separate: bool, plot: bool) -> None:
        self.label = options.label
        self.duration_s: float | None = None  # None: not ended
        self.session: Path | None = None  # its directory
        self.summary: Summary | None = None  # of the whole session
        self.figure: EnergyFigure | None = None  # the total over the outermost measured devices
        self.reason = "the block has not ended"  # why there are no figures; empty where there are
        self.svg = ""  # the power over time, where that was asked for
        self.text_line = ""
        self._options = options
        self._separate = separate
        self._plot = plot
        self._pid: int | None = None  # None: not begun
        self._began_ns = 0
        self._own: BlockSession | None = None
        self._phase: phase | None = None  # of the session around it
        self._around: MeasuredBlock | None = None
        self._inner: list[MeasuredBlock] = []  # that have ended

    @property
    def joules(self) -> float | None:
        """Energy."""
        return self.figure.joules if self.figure is not None else None

    @property
    def expanded_joules(self) -> float | None:
        """Expanded uncertainty U of the energy, k = 2."""
        return self.figure.expanded_joules if self.figure is not None else None

    @property
    def mean_watts(self) -> float | None:
        """Mean power."""
        return self.figure.mean_watts if self.figure is not None else None

    @property
    def coverage(self) -> float | None:
        """Measured share of the time, 0 to 1; None: nothing is known."""
        return self.figure.coverage if self.figure is not None else None

    @property
    def estimate(self) -> bool:
        """Whether the energy is modelled in whole or in part, and not measured."""
        return self.figure is not None and self.figure.estimate

    def __str__(self) -> str:
        """The figures in a line, or why there are none."""
        name = f"{self.label}: " if self.label else ""
        if self.figure is None or self.joules is None or self.duration_s is None:
            return f"{name}not measured: {self.reason}"
        text = name + figure_text(self.joules, self.expanded_joules, "J")
        if self.estimate:
            text += " ESTIMATE" if self.summary is None or self.summary.estimate_only else " ESTIMATE in part"
        text += f", {watts_text(self.mean_watts)} W for {duration_text(self.duration_s)}"
        if self.figure.coverage < FULLY_COVERED:
            text += f", {self.figure.coverage:.1%} covered"
        return text if self.figure.accuracy_known else f"{text} (U without the device's own error)"

    def __enter__(self) -> MeasuredBlock:
        if self._pid is not None:
            raise RuntimeError("this block has been measured: write measure() anew for each")
        self._pid = os.getpid()
        try:
            with _lock:
                self._begin()
        except UsageError as error:
            raise ValueError(f"{error}. The block was not run") from None
        except Exception as error:
            self._give_up(f"measuring could not begin: {_explain(error)}")
        if self._own is not None:
            self._own.begin()
        self._began_ns = time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.getpid() != self._pid or self.duration_s is not None:
            return  # a forked child that leaves its parent's block, or ended at the program's end
        self.duration_s = (time.monotonic_ns() - self._began_ns) * 1e-9
        try:
            self._end()
        except Exception as error:
            self._give_up(f"measuring ended badly: {_explain(error)}{self._advice()}")
        except KeyboardInterrupt:
            self.reason = f"interrupted before there were results{self._advice()}"
            say(self.reason)
            raise

    def _begin(self) -> None:
        global _outside
        self._around = _running[-1] if _running else None
        directory = os.environ.get(DIRECTORY_VARIABLE, "")
        if directory and Path(directory).is_dir():
            self._phase = phase(self.label or "measure")
            self._phase.__enter__()
            self.session = Path(directory).parent
        if self._phase is None or self._separate:
            self._own = BlockSession(self._options)
            self.session = self._own.directory
            if not _running:
                _outside = directory or None
            _running.append(self)
            direct_to(self._own.marks)

    def _end(self) -> None:
        if self._own is not None:
            self._own_end(self._own)
        if self._phase is None:
            return
        self._phase.__exit__(None, None, None)
        if self._own is not None:
            return
        if self._phase.began_ns is None:
            self._give_up(f"its phase cannot be written to {self.session}")
        elif self._around is None:
            self.reason = (
                f"it is the phase {self.label or 'measure'!r} of the measurement that this process runs in: its "
                f"figures are in the report of {self.session}"
            )
        elif self._around.duration_s is not None:
            self.reason = f"the measurement around it, {self.session}, ended first"
        elif len(self._around._inner) >= MOST_INNER:
            self.reason = f"{self.session} holds more than {MOST_INNER} such blocks: see its energies.parquet"
        else:
            self.reason = f"its figures come when the measurement around it ends, {self.session}"
            self._around._inner.append(self)

    def _own_end(self, own: BlockSession) -> None:
        try:
            own.end()
        finally:
            with _lock:
                _running.remove(self)
                direct_to(_running[-1]._marks() if _running else _outside)
            leave(own.marks)
        inner = [(block, block._phase.began_ns) for block in self._inner if block._phase is not None]
        wanted = [(block.label or "measure", began_ns) for block, began_ns in inner if began_ns is not None]
        results = own.results(wanted, plot=self._plot)
        self.svg, self.text_line = results.svg, results.text_line
        whole = next(group for group in results.summary.phases if group.name == "command")
        self._take(results.summary, whole.total)
        for (block, _), total in zip(inner, results.totals, strict=True):
            block._take(results.summary, total)
        self._inner.clear()

    def _marks(self) -> str:
        assert self._own is not None
        return self._own.marks

    def _take(self, summary: Summary, total: EnergyFigure | None) -> None:
        self.summary, self.figure, self.reason = summary, total, ""
        if total is None:
            self.reason = next(iter(summary.warnings), summary.scope_of_total)
        elif total.joules is None:
            self.reason = f"only {total.coverage:.0%} of it was measured"

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        say(f"warning: {reason}")

    def _advice(self) -> str:
        return "" if self._own is None else f". For the results: power-director recover {self.session}"


_lock = threading.Lock()
_running: list[MeasuredBlock] = []  # that have a session of their own, the one that marks go to last
_outside: str | None = None  # where marks went before the first of these began


def _program() -> list[str]:
    first, *arguments = getattr(sys, "argv", None) or [""]
    return [first or "python", *arguments]


def _checked_drivers(drivers: Sequence[str] | None) -> list[str] | None:
    if isinstance(drivers, str):
        raise ValueError(f"drivers is the text {drivers!r}: give a list, [{drivers!r}]")
    return None if drivers is None else list(drivers)


def _check_names(named: Sequence[str]) -> None:
    unknown = find_unknown(named)
    if unknown is not None:
        raise ValueError(f"{unknown.reason}. {unknown.fix}")


def _explain(error: Exception) -> str:
    if isinstance(error, (NoResults, SessionError)):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    return f"a mistake of this program: {type(error).__name__}: {error}"


def _end_all() -> None:
    """At the end of the program: whatever block it never left."""
    for block in reversed(_running):
        block.__exit__(None, None, None)


def _forget_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for block in _running:
        if block._own is not None:
            block._own.forget()
        block.reason = f"it is measured by process {block._pid}, which this one was forked from"
    _running.clear()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget_in_child)
