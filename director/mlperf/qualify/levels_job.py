"""The job of a live meter test: waits idle, then starts each load, lets it settle, holds it, and stops it.

What is held is a phase of the level's name. `director.mlperf.qualify.live` runs this as a measured command.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NoReturn

from director.running.notices import say
from power_agent import phase

_STOPS_WITHIN_S = 10.0


class _Ended(Exception):
    """A load ended by itself, which it must not: with this exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when all levels were held, 1 where a load ended too early."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settle", type=float, required=True, help="seconds before each level")
    parser.add_argument("--hold", type=float, required=True, help="seconds of each level")
    parser.add_argument("levels", nargs="+", help="NAME=COMMAND; nothing is run without COMMAND")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _leave)  # so that a load is stopped on the way out
    signal.signal(signal.SIGHUP, _leave)
    for number, level in enumerate(options.levels, start=1):
        name, _, command = level.partition("=")
        said = f"level {number} of {len(options.levels)}, {name}"
        try:
            with _load(command) as load:
                say(f"{said}: settling for {options.settle:g} s")
                _hold(options.settle, load)
                say(f"{said}: measuring for {options.hold:g} s")
                with phase(name):
                    _hold(options.hold, load)
        except _Ended as ended:
            say(
                f"{said}: {command!r} ended with status {ended.status}; a load must last until it is stopped, "
                f"{options.settle + options.hold:g} s"
            )
            return 1
    return 0


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


@contextlib.contextmanager
def _load(command: str) -> Iterator[subprocess.Popen[bytes] | None]:
    """A load that runs in the block, with all that it starts. Its output goes to standard error."""
    if not command:
        yield None
        return
    load = subprocess.Popen(shlex.split(command), stdin=subprocess.DEVNULL, stdout=2, start_new_session=True)
    try:
        yield load
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(load.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                load.wait(_STOPS_WITHIN_S)
            os.killpg(load.pid, signal.SIGKILL)
        load.wait()


def _hold(seconds: float, load: subprocess.Popen[bytes] | None) -> None:
    if load is None:
        time.sleep(seconds)
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        raise _Ended(load.wait(seconds))


if __name__ == "__main__":
    sys.exit(main())
