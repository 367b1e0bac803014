"""The live line of a run: what is measured, once a second, where it cannot disturb what the job shows.

The job has our terminal, and what two programs write there mixes: between two halves of a colour code, or over a
progress bar. So a line is drawn on the terminal only where the job's standard streams go to files. Who wants figures
beside the job's own output asks for them, and gets them as the title of the terminal. docs/run.md tells what remains.
"""

from __future__ import annotations

import os
import stat
import termios
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from director.answers.number_text import figure_text, watts_text
from director.running.live_phase import LivePhase
from director.running.live_power import LivePower, LivePowerReader
from power_agent.clock import Clock
from power_agent.spool import SpoolDamaged
from power_agent.workload import deaf_threads

PERIOD_S = 1.0
LONGEST_PHASE = 40  # characters
TITLE_COLUMNS = 120
LONGEST_GOODBYE_S = 1.0  # that the thread gets to end; a disk that hangs must not hold up the run
_TITLE_SAVED, _TITLE_RESTORED = b"\x1b[22;2t", b"\x1b[23;2t"  # xterm's stack of titles; unknown elsewhere, ignored
_LINE_CLEARED = b"\r\x1b[2K"


@dataclass(frozen=True)
class Place:
    """A terminal, and whether its title or a line on it shows the figures."""

    terminal: str
    title: bool


def find_place(wanted: bool | None, *, has_job: bool) -> Place | None:
    """Where figures can be shown; None: nowhere.

    Args:
        wanted: False: nowhere. True: also in the title of a terminal that the job writes to.
        has_job: whether a command runs that has our standard streams.
    """
    name = os.environ.get("TERM", "")
    if wanted is False or name in ("", "dumb"):
        return None
    if not has_job:
        return Place(os.ttyname(2), title=False) if _is_terminal(2) else None
    if _is_file(1) and _is_file(2):
        return Place("/dev/tty", title=False)
    if wanted and name != "linux" and not name.startswith("vt"):  # these have no title
        return Place("/dev/tty", title=True)
    return None


@contextmanager
def live_line(
    wanted: bool | None, spool: Path, marks: Path, host: str, clock: Clock, *, has_job: bool
) -> Iterator[None]:
    """Show figures of the work that begins now until the block ends, where `find_place` finds a place.

    Nothing raises, and the block is never held up: the line has a thread of its own.
    """
    thread, done = None, threading.Event()
    with suppress(Exception), deaf_threads():
        place = find_place(wanted, has_job=has_job)
        if place is not None:
            line = _LiveLine(place, spool, marks, host, clock, done)
            thread = threading.Thread(target=line.run, name="live line", daemon=True)
            thread.start()
    try:
        yield
    finally:
        if thread is not None:
            done.set()
            thread.join(LONGEST_GOODBYE_S)


class _Terminal:
    """A terminal that is ours to write to as long as we are in its foreground and its modes are what they were."""

    def __init__(self, place: Place) -> None:
        self._title = place.title
        # Not blocking: output that is stopped by Ctrl-S, or held up by the job's own, is no reason to wait.
        self._fd = os.open(place.terminal, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        self._modes = termios.tcgetattr(self._fd)
        self._shown = False

    def show(self, text: str) -> None:
        # A program that takes the whole screen, or asks for a password, changes the modes first.
        if os.tcgetpgrp(self._fd) != os.getpgrp() or termios.tcgetattr(self._fd) != self._modes:
            return
        if self._title:
            save = b"" if self._shown else _TITLE_SAVED
            self._write(save + b"\x1b]2;" + _fitting(text, TITLE_COLUMNS).encode() + b"\x07")
        else:
            columns = os.get_terminal_size(self._fd).columns or 80
            self._write(_LINE_CLEARED + _fitting(text, columns - 1).encode())

    def close(self) -> None:
        if self._shown and os.tcgetpgrp(self._fd) == os.getpgrp():
            self._write(_TITLE_RESTORED if self._title else _LINE_CLEARED)
        os.close(self._fd)

    def _write(self, content: bytes) -> None:
        with suppress(BlockingIOError):
            os.write(self._fd, content)
            self._shown = True


class _LiveLine:
    """What the thread does. Whatever goes wrong ends the line, and nothing else."""

    def __init__(self, place: Place, spool: Path, marks: Path, host: str, clock: Clock, done: threading.Event) -> None:
        self._place = place
        self._spool = spool
        self._host = host
        self._clock = clock
        self._done = done
        self._began_ns = clock.monotonic_ns()
        self._phase = LivePhase(marks)
        self._reader: LivePowerReader | None = None

    def run(self) -> None:
        with suppress(Exception):
            terminal = _Terminal(self._place)
            try:
                self._read_power()  # what was measured before the work is not its energy
                while not self._done.wait(PERIOD_S):
                    terminal.show(self.text())
            finally:
                terminal.close()
                if self._reader is not None:
                    self._reader.close()

    def text(self) -> str:
        elapsed_s = (self._clock.monotonic_ns() - self._began_ns) * 1e-9
        parts = [
            _elapsed_text(elapsed_s),
            _printable(self._phase.look())[:LONGEST_PHASE],
            *_power_parts(self._read_power()),
        ]
        return " · ".join(part for part in parts if part)

    def _read_power(self) -> LivePower | None:
        try:
            if self._reader is None:
                self._reader = LivePowerReader(self._spool, self._host, self._began_ns)
            return self._reader.look()
        except SpoolDamaged:
            return None


def _power_parts(power: LivePower | None) -> list[str]:
    if power is None:
        return ["nothing is measured"]
    if not power.devices:
        return ["no power is measured", *_losses(power)]
    if power.watts is not None:
        some = f" of {power.fresh} in {power.devices} devices" if power.fresh < power.devices else ""
        figures = [f"{watts_text(power.watts)} W{some}"]
    else:
        figures = [f"no reading for {power.silent_s:.0f} s" if power.silent_s >= PERIOD_S else "no reading yet"]
    if power.joules is not None:
        figures.append(figure_text(power.joules, None, "J"))
    return [(f"{power.estimate}: " if power.estimate else "") + ", ".join(figures), *_losses(power)]


def _losses(power: LivePower) -> list[str]:
    losses = [f"{power.missed} readings missed"] if power.missed else []
    return [*losses, f"{power.dropped} readings dropped"] if power.dropped else losses


def _elapsed_text(seconds: float) -> str:
    minutes, whole_s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole_s:02d}" if hours else f"{minutes}:{whole_s:02d}"


def _printable(text: str) -> str:
    """Names are the job's; none of them may steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _fitting(text: str, columns: int) -> str:
    """As much of the text as there is room for; some characters take two columns."""
    used = 0
    for place, character in enumerate(text):
        used += 2 if unicodedata.east_asian_width(character) in "FW" else 1
        if used > columns:
            return text[:place]
    return text


def _is_terminal(descriptor: int) -> bool:
    with suppress(OSError):
        return os.isatty(descriptor)
    return False


def _is_file(descriptor: int) -> bool:
    """Whether what is written there goes to no terminal: a regular file, or /dev/null. A pipe may lead to one."""
    try:
        status = os.fstat(descriptor)
        nothing = Path(os.devnull).stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev == nothing.st_rdev)
