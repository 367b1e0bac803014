"""The load of a characterisation: real processes that are stopped and continued, and none that is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from director.characterize.square_wave import LONGEST, SHORTEST, duration_s, lengths_s

DEADLINE_S = 30.0
# Two processes: what is switched, watched and ended is the group.
LOAD = """
import os, sys
child = os.fork()
open(sys.argv[1] + ('.child' if child == 0 else '.leader'), 'w').write(str(os.getpid()))
while True: pass
"""


def start(folder: Path, *words: str, cycles: int = 2, period: float = 0.4) -> subprocess.Popen[str]:
    (folder / "marks").mkdir(exist_ok=True)
    line = [sys.executable, "-m", "director.characterize.square_wave", "--cycles", str(cycles), "--period", str(period)]
    environment = {**os.environ, "POWER_AGENT_MARKS": str(folder / "marks")}
    return subprocess.Popen([*line, *words], env=environment, stderr=subprocess.PIPE, text=True)


def load(folder: Path) -> list[str]:
    return ["--", sys.executable, "-S", "-c", LOAD, str(folder / "pid")]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pids(folder: Path) -> list[int]:
    found = []
    for name in ("pid.leader", "pid.child"):
        with suppress(OSError, ValueError):
            found.append(int((folder / name).read_text()))
    return found


def state(pid: int) -> str:
    """As /proc has it; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def gone(pid: int) -> bool:
    return state(pid) in ("", "Z", "X")


def spinning() -> set[int]:
    """Busy processes of the default load."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"os.fork() == 0: break" in path.read_bytes() and not gone(int(path.parent.name)):
                found.add(int(path.parent.name))
    return found


def test_lengths_are_random_and_repeatable() -> None:
    lengths = lengths_s(200, 10.0, 3)
    each = [length for pair in lengths for length in pair]
    assert lengths == lengths_s(200, 10.0, 3) != lengths_s(200, 10.0, 4)
    assert 5 * SHORTEST <= min(each) < 5 * 0.65 and 5 * 1.35 < max(each) <= 5 * LONGEST
    assert duration_s(200, 10.0, 3, has_command=True) == pytest.approx(5 + 10 + sum(each))


def test_phases_are_as_long_as_was_drawn_and_the_load_runs_in_them_alone(tmp_path: Path) -> None:
    job = start(tmp_path, *load(tmp_path), cycles=3)
    states = set()
    while job.poll() is None:
        states |= {tuple(state(pid) for pid in pids(tmp_path))}
        time.sleep(0.005)
    assert job.returncode == 0, job.stderr and job.stderr.read()
    assert ("T", "T") in states and ("R", "R") in states
    wait_for(lambda: all(gone(pid) for pid in pids(tmp_path)))
    marks = [json.loads(line) for file in (tmp_path / "marks").iterdir() for line in file.read_text().splitlines()]
    begun = [mark for mark in marks if mark["op"] == "begin"]
    ended = [mark for mark in marks if mark["op"] == "end"]
    assert [(mark["name"], mark["index"]) for mark in begun] == [("load", 0), ("load", 1), ("load", 2)]
    edges = [t for pair in zip(begun, ended, strict=True) for t in (pair[0]["t_ns"], pair[1]["t_ns"])]
    assert edges == sorted(edges)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_nothing_is_left_however_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    job = start(tmp_path, *load(tmp_path), cycles=100)
    wait_for(lambda: len(pids(tmp_path)) == 2 and state(pids(tmp_path)[1]) == "T")
    job.send_signal(number)
    assert job.wait(DEADLINE_S) == (-number if number == signal.SIGKILL else 128 + number)
    wait_for(lambda: all(gone(pid) for pid in pids(tmp_path)))


def test_busy_processes_are_the_load_where_none_is_named(tmp_path: Path) -> None:
    before = spinning()
    job = start(tmp_path, cycles=100)
    mine: set[int] = set()

    def all_there() -> bool:
        mine.update(spinning() - before)
        return len(mine) >= len(os.sched_getaffinity(0))

    wait_for(all_there)
    job.kill()
    job.wait(DEADLINE_S)
    wait_for(lambda: all(gone(pid) for pid in mine))


def test_a_load_that_ends_is_told(tmp_path: Path) -> None:
    job = start(tmp_path, "--", "true")
    assert (job.wait(DEADLINE_S), job.stderr is not None) == (1, True)
    assert job.stderr is not None and "ended by itself with status 0" in job.stderr.read()


def test_a_load_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    job = start(tmp_path, "--", "/no/such/program")
    assert job.wait(DEADLINE_S) == 127
    assert job.stderr is not None and "cannot be started: No such file" in job.stderr.read()
