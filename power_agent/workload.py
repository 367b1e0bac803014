"""The measured command: started as the shell would have started it, sent the signals meant for it, and waited for."""

from __future__ import annotations

import errno
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SI_KERNEL = 0x80  # si_code of a signal from a terminal, which reaches the whole process group (siginfo.h)
ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})  # what people end a program with

_STOPPING = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_OWN_FAULTS = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGTRAP,
        signal.SIGABRT,
        signal.SIGSYS,
        signal.SIGPIPE,
    }
)
_TAKEN = frozenset(signal.valid_signals()) - _OWN_FAULTS - {signal.SIGKILL, signal.SIGSTOP}
# Python ignores these two from its start, and a program inherits what is ignored.
_IGNORED_BY_PYTHON = [signal.SIGPIPE, signal.SIGXFSZ]


class CannotStart(Exception):
    """The command cannot be run: `exit_code` is what a shell would answer, the text is for the user."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Ended:
    """How the command ended: an exit code or the signal that killed it, and what it used with all its children."""

    exit_code: int | None
    signal: int | None
    user_cpu_s: float
    system_cpu_s: float
    max_rss_bytes: int | None  # None: less than the director itself had, which is all that the kernel tells then


def check_program(name: str) -> None:
    """Say whether the command could be run, before anything is measured.

    Raises:
        CannotStart: no such program (127), or a file that may not be executed (126).
    """
    folders = [""] if "/" in name else os.environ.get("PATH", os.defpath).split(os.pathsep)
    places = [Path(folder, name) for folder in folders]
    if any(place.is_file() and os.access(place, os.X_OK) for place in places):
        return
    found = next((place for place in places if place.exists()), None)
    if found is None:
        where = "there is no such file" if "/" in name else "no such program in PATH"
        raise CannotStart(127, f"{name}: command not found: {where}. Nothing was run")
    why = "it is a directory" if found.is_dir() else f"it is not executable (chmod +x {found}, or name its interpreter)"
    raise CannotStart(126, f"{found}: cannot be run: {why}. Nothing was run")


class Signals:
    """Holds back this process's signals, so that they can be taken one by one between two looks at the work."""

    def __init__(self, original: set[int]) -> None:
        self.original = original  # the mask that the command starts with
        self.ending: signal.Signals | None = None  # the last signal that asks to end, whoever sent it

    def take(self, timeout_s: float) -> signal.struct_siginfo | None:
        """The next signal, or None after `timeout_s`."""
        info = signal.sigtimedwait(_TAKEN, max(0.0, timeout_s))
        if info is not None and info.si_signo in ENDING:
            self.ending = signal.Signals(info.si_signo)
        return info

    def sleep(self, seconds: float, *, to_the_end: bool = False) -> None:
        """Sleep; a signal that asks to end cuts it short, unless `to_the_end`."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            info = self.take(left)
            if info is None or (info.si_signo in ENDING and not to_the_end):
                return
            if info.si_signo in _STOPPING:
                os.kill(os.getpid(), signal.SIGSTOP)


@contextmanager
def held_signals() -> Iterator[Signals]:
    """Hold signals back while the block runs, so that each is taken from `Signals`; what nobody took is dropped.

    Only this thread's are held back: others must have been started in `deaf_threads`.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it was ignored, no child's exit status could be had
    original: set[int] = set(signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN))
    signals = Signals(original)
    try:
        yield signals
        while signals.take(0) is not None:
            pass
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, original)


@contextmanager
def deaf_threads() -> Iterator[None]:
    """Threads that libraries start in this block hold all signals back for ever.

    Any other thread takes signals that are meant for the job, and the process dies of them.
    """
    original = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, original)


class Workload:
    """A running command: in our process group and session, with our standard streams unless `stdout` is given."""

    def __init__(
        self, argv: list[str], environment: Mapping[str, str], signals: Signals, stdout: int | None = None
    ) -> None:
        """Start it.

        Raises:
            CannotStart: the system refused, as for a script whose interpreter does not exist.
        """
        actions = [(os.POSIX_SPAWN_DUP2, stdout, 1)] if stdout is not None else []
        self._signals = signals
        # A process begins as a copy of its parent, and the kernel counts that into its peak memory.
        self._inherited_rss_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            self.pid = os.posix_spawnp(
                argv[0],
                argv,
                environment,
                file_actions=actions,
                setsigmask=signals.original,
                setsigdef=_IGNORED_BY_PYTHON,
            )
        except OSError as error:
            code = 127 if isinstance(error, FileNotFoundError) else 126
            why = error.strerror or str(error)
            if error.errno == errno.ENOEXEC:
                why += " (a script needs a first line such as #!/bin/sh)"
            elif code == 127:
                why += " (does the interpreter in its first line exist?)"
            raise CannotStart(code, f"{argv[0]}: cannot be run: {why}") from error

    def wait(self, idle: Callable[[], None], window_changed: Callable[[], None] = lambda: None) -> Ended:
        """Wait until it ends. `idle` is called at least once a second, and must neither block nor raise."""
        while True:
            info = self._signals.take(1.0)
            if info is not None:
                self._pass_on(info, window_changed)
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                return self._ended(status, usage)
            idle()

    def _pass_on(self, info: signal.struct_siginfo, window_changed: Callable[[], None]) -> None:
        number = info.si_signo
        if number == signal.SIGCHLD:
            return
        if number == signal.SIGWINCH:
            window_changed()
        # A terminal signals the whole process group; sending it again would make the job see it twice. Only its end
        # is told to the first process of the session alone, and that may be us, as in `ssh -t host power-director …`.
        told_to_us_alone = number == signal.SIGHUP and os.getsid(0) == os.getpid()
        if info.si_code != SI_KERNEL or told_to_us_alone:
            with suppress(PermissionError):  # another user's by now, as under sudo: we may not, and wait on
                os.kill(self.pid, number)
        if number in _STOPPING:
            os.kill(os.getpid(), signal.SIGSTOP)

    def _ended(self, status: int, usage: resource.struct_rusage) -> Ended:
        code = os.waitstatus_to_exitcode(status)
        rss_kib = usage.ru_maxrss
        return Ended(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            user_cpu_s=usage.ru_utime,
            system_cpu_s=usage.ru_stime,
            max_rss_bytes=rss_kib * 1024 if rss_kib > self._inherited_rss_kib else None,
        )


def leave_like(status: int) -> int:
    """End as the job ended: die by its signal where one killed it, else answer the exit code to leave with."""
    if status >= 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient Ctrl-C from here on must not change it
        return status
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core dump worth having is the job's
    number = -status
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 - status  # a signal whose default is not to end us, which cannot have ended the job


def left_behind(variable: str, value: str) -> list[tuple[int, str]]:
    """Live processes (pid, name) of this user whose environment holds `variable=value`: what the job left running."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(variable) == value:
                found.append((process.pid, process.name()))
        except (psutil.Error, OSError):
            continue  # not ours to see, or gone
    return found
