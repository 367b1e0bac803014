"""The job of a characterisation: a load that goes on and off, each time it is on a phase "load".

    python -m director.characterize.square_wave --cycles N --period SECONDS [--seed N] [-- CMD]

The load is one busy process per usable CPU, or CMD; it is switched by SIGCONT and SIGSTOP to its process group. Times
on and off are random, 0.6 to 1.4 of half a period, so that edges fall anywhere between updates of a device.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NoReturn

from director.running.notices import say
from power_agent import phase

PHASE = "load"
SHORTEST, LONGEST = 0.6, 1.4  # of half a period
_START_S = 0.3  # for busy processes to start
_STOPS_WITHIN_S = 5.0
_BUSY = "import os\nfor _ in range({}):\n    if os.fork() == 0: break\nwhile True: pass"
_DONE = b"done"
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class _Ended(Exception):
    """The load ended by itself, which it must not: with this exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def lengths_s(cycles: int, period_s: float, seed: int) -> list[tuple[float, float]]:
    """How long the load is on, and off after that, in each cycle."""
    drawn = random.Random(seed)
    half_s = period_s / 2
    return [
        (half_s * drawn.uniform(SHORTEST, LONGEST), half_s * drawn.uniform(SHORTEST, LONGEST)) for _ in range(cycles)
    ]


def duration_s(cycles: int, period_s: float, seed: int, *, has_command: bool) -> float:
    """How long it all takes."""
    warm_up_s = period_s / 2 if has_command else _START_S
    return warm_up_s + period_s + sum(on_s + off_s for on_s, off_s in lengths_s(cycles, period_s, seed))


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when all cycles were run, 1 where the load ended too early, 127 where it cannot be started."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    split = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, required=True)
    parser.add_argument("--period", type=float, required=True, help="seconds of a cycle, on average")
    parser.add_argument("--seed", type=int, default=1, help="of the random lengths")
    given, command = parser.parse_args(words[:split]), words[split + 1 :]
    for number in _ENDING:  # so that the load is ended on the way out
        signal.signal(number, _leave)
    try:
        with _load(command) as load:
            _run(load, given.cycles, given.period, given.seed, has_command=bool(command))
    except _Ended as ended:
        say(
            f"the load ended by itself with status {ended.status}; it must last until it is stopped: put it into a loop"
        )
        return 1
    except OSError as error:
        say(f"the load cannot be started: {error.strerror}: {' '.join(command)}")
        return 127
    return 0


def _run(load: subprocess.Popen[bytes], cycles: int, period_s: float, seed: int, *, has_command: bool) -> None:
    due_s = time.monotonic() + (period_s / 2 if has_command else _START_S)
    _hold(due_s, load)
    os.killpg(load.pid, signal.SIGSTOP)
    due_s += period_s  # what the start took must be forgotten
    _hold(due_s, load)
    for number, (on_s, off_s) in enumerate(lengths_s(cycles, period_s, seed)):
        with phase(PHASE, index=number):
            os.killpg(load.pid, signal.SIGCONT)
            due_s += on_s
            _hold(due_s, load)
            os.killpg(load.pid, signal.SIGSTOP)
        due_s += off_s
        _hold(due_s, load)


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


def _hold(until_s: float, load: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        raise _Ended(load.wait(max(0.0, until_s - time.monotonic())))


@contextlib.contextmanager
def _load(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The load, in a process group of its own that ends with the block, and with this process however it ends."""
    if not command:
        command = [sys.executable, "-S", "-E", "-c", _BUSY.format(len(os.sched_getaffinity(0)) - 1)]
    watcher, telling = _watch()
    load: subprocess.Popen[bytes] | None = None
    try:
        with _signals_held() as mask:  # between its start and our knowing of it

            def before_it_runs() -> None:
                os.write(telling, b"%d\n" % os.getpid())
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

            load = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True, preexec_fn=before_it_runs
            )
        yield load
    finally:
        with _signals_held():
            if load is not None:
                _end(load)
            os.write(telling, _DONE)
            os.close(telling)
            os.waitpid(watcher, 0)


@contextlib.contextmanager
def _signals_held() -> Iterator[set[signal.Signals]]:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield {signal.Signals(number) for number in mask}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end(load: subprocess.Popen[bytes]) -> None:
    """End what is left of the group, stopped or not."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(load.pid, signal.SIGTERM)
        os.killpg(load.pid, signal.SIGCONT)  # which lets it see that
        with contextlib.suppress(subprocess.TimeoutExpired):
            load.wait(_STOPS_WITHIN_S)
        os.killpg(load.pid, signal.SIGKILL)
    load.wait()


def _watch() -> tuple[int, int]:
    """A process that is told of a group, and kills it when ours is gone without having said that all is done.

    SIGKILL of this process would leave the load stopped, or spinning, for ever. Its id, and where to tell it.
    """
    listening, telling = os.pipe()
    watcher = os.fork()
    if watcher:
        os.close(listening)
        return watcher, telling
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        os.setsid()
        os.close(telling)
        with os.fdopen(listening, "rb") as told:
            group, done = told.readline(), told.read()
        if group.endswith(b"\n") and done != _DONE:
            os.killpg(int(group), signal.SIGKILL)
    finally:
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
