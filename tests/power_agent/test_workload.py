"""The command starts, is signalled and ends as it would have without us: real processes and a real terminal."""

from __future__ import annotations

import errno
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from unprivileged import folder_for_all

from power_agent import workload
from power_agent.workload import CannotStart, check_program

DEADLINE_S = 20.0

# What a director does with its job, and nothing else.
HARNESS = """
import os, sys
from power_agent.workload import CannotStart, Workload, held_signals, leave_like
with held_signals() as signals:
    try:
        job = Workload(sys.argv[1:], dict(os.environ), signals)
    except CannotStart as error:
        sys.exit(f"{error.exit_code}: {error}")
    ended = job.wait(lambda: None)
sys.stderr.write(f"ending={signals.ending!s:.12}\\n")
sys.exit(leave_like(-ended.signal if ended.signal else ended.exit_code))
"""

# A job that counts signals and tells of each, and ends at SIGTERM with 7.
COUNTER = """
import os, signal, sys, time
def tell(number, frame):
    os.write(1, f"got {signal.Signals(number).name}\\n".encode())
    if number == signal.SIGTERM:
        os._exit(7)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT, signal.SIGCONT):
    signal.signal(number, tell)
os.write(1, b"ready\\n")
while True:
    time.sleep(60)
"""


def harness(*argv: str) -> list[str]:
    return [sys.executable, "-c", HARNESS, *argv]


def run(*argv: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(harness(*argv), capture_output=True, text=True, timeout=DEADLINE_S, **options)  # type: ignore[call-overload,no-any-return]


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


class Terminal:
    """A program in a session of its own whose controlling terminal we hold the other end of."""

    def __init__(self, argv: list[str]) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execvp(argv[0], argv)
        self.seen = ""

    def read_until(self, text: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while text not in self.seen:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += self._read()

    def _read(self) -> str:
        try:
            return os.read(self.master, 65536).decode()
        except OSError as error:
            assert error.errno == errno.EIO
            return ""

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def wait(self) -> int:
        status = os.waitpid(self.pid, 0)[1]
        while select.select([self.master], [], [], 0)[0] and (more := self._read()):
            self.seen += more
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def terminal() -> Iterator[Callable[[list[str]], Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(argv: list[str]) -> Terminal:
        opened.append(Terminal(argv))
        return opened[-1]

    yield open_terminal
    for each in opened:
        os.close(each.master)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def test_the_exit_code_is_the_jobs() -> None:
    assert run("sh", "-c", "exit 37").returncode == 37
    assert run("true").returncode == 0


def test_a_job_that_dies_by_a_signal_takes_us_with_it() -> None:
    assert run("sh", "-c", "kill -SEGV $$").returncode == -signal.SIGSEGV
    assert run("sh", "-c", "kill -KILL $$").returncode == -signal.SIGKILL
    assert run("sh", "-c", f"kill -{signal.SIGRTMIN + 3} $$").returncode == -signal.SIGRTMIN - 3


def test_streams_directory_descriptors_and_signal_state_are_what_they_were(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"a job server")
    os.close(write_end)
    # Blocked and ignored signals as the kernel shows them, then a descriptor that only we know of.
    script = f"pwd; cat; grep -E 'SigBlk|SigIgn' /proc/self/status; cat /dev/fd/{read_end}"
    result = run("sh", "-c", script, input="from stdin\n", cwd=tmp_path, pass_fds=(read_end,))
    os.close(read_end)
    *lines, last = result.stdout.splitlines()
    assert lines[:2] == [str(tmp_path), "from stdin"]
    # Signals 1 to 31: the two after those belong to the C library, which ignores them in what it spawns.
    hangup = 1 if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else 0  # as under nohup
    assert [int(line.split()[1], 16) & 0x7FFFFFFF for line in lines[2:]] == [0, hangup]
    assert last == "a job server"


def test_a_signal_sent_to_us_alone_reaches_the_job() -> None:
    process = subprocess.Popen(harness(sys.executable, "-c", COUNTER), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT):
        process.send_signal(number)
        assert process.stdout.readline() == f"got {number.name}\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == "got SIGTERM\n"
    assert process.wait(DEADLINE_S) == 7


def test_ctrl_c_at_the_terminal_reaches_the_job_once(terminal: Callable[[list[str]], Terminal]) -> None:
    session = terminal(harness(sys.executable, "-c", COUNTER))
    session.read_until("ready")
    for keys, name in ((b"\x03", "SIGINT"), (b"\x1c", "SIGQUIT"), (b"\x03", "SIGINT")):
        session.seen = ""
        session.type(keys)
        session.read_until(f"got {name}")
    session.seen = ""
    os.kill(session.pid, signal.SIGTERM)  # whatever came twice would have been told before the answer to this
    assert session.wait() == 7
    assert session.seen.count("got") == 1
    assert "ending=15" in session.seen or "SIGTERM" in session.seen


def test_a_stop_sent_to_us_stops_the_job_too() -> None:
    # In a process group of its own: the kernel lets no SIGTSTP stop a group whose parents have left the session, as
    # ours may have where no shell watches over the tests.
    process = subprocess.Popen(
        harness(sys.executable, "-c", COUNTER), stdout=subprocess.PIPE, text=True, preexec_fn=os.setpgrp
    )
    assert process.stdout is not None
    process.stdout.readline()
    job = only_child(process.pid)
    process.send_signal(signal.SIGTSTP)
    until(lambda: state_of(process.pid) == "T" and state_of(job) == "T", "both to stop")
    process.send_signal(signal.SIGCONT)
    assert process.stdout.readline() == "got SIGCONT\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 7


def test_ctrl_z_gives_the_shell_its_prompt_and_fg_goes_on(
    tmp_path: Path, terminal: Callable[[list[str]], Terminal]
) -> None:
    (tmp_path / "harness.py").write_text(HARNESS)
    (tmp_path / "job.py").write_text(COUNTER)
    shell = terminal(["sh", "-i"])
    shell.type(f"cd {tmp_path}; {sys.executable} harness.py {sys.executable} job.py\n".encode())
    shell.read_until("ready")
    shell.type(b"\x1a")
    shell.read_until("Stopped")
    shell.type(b"fg\n")
    shell.read_until("got SIGCONT")
    shell.type(b"\x03")
    shell.read_until("got SIGINT")
    director = only_child(shell.pid)
    os.kill(director, signal.SIGTERM)
    shell.read_until("ending=")
    shell.type(b"echo status=$?\n")
    shell.read_until("status=7")
    shell.type(b"exit\n")
    shell.wait()


def test_threads_of_libraries_take_no_signal() -> None:
    script = (
        "import os, signal, threading; from power_agent.workload import deaf_threads\n"
        "go = threading.Event()\n"
        "with deaf_threads(): threading.Thread(target=go.wait, daemon=True).start()\n"
        "for task in os.listdir('/proc/self/task'):\n"
        "    lines = open(f'/proc/self/task/{task}/status').read().splitlines()\n"
        "    blocked = int(next(line for line in lines if line.startswith('SigBlk')).split()[1], 16)\n"
        "    print(int(task) == os.getpid(), [bool(blocked >> (n - 1) & 1) for n in (signal.SIGHUP, signal.SIGTERM)])\n"
        "os._exit(0)"
    )
    result = subprocess.run([sys.executable, "-u", "-c", script], capture_output=True, text=True, timeout=DEADLINE_S)
    assert sorted(result.stdout.splitlines()) == ["False [True, True]", "True [False, False]"], result.stderr


def test_signals_that_were_held_back_before_us_stay_so_for_the_job() -> None:
    held = {signal.SIGUSR2, signal.SIGRTMIN + 1}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        result = run("grep", "SigBlk", "/proc/self/status")
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)
    assert int(result.stdout.split()[1], 16) == sum(1 << (number - 1) for number in held)


def test_a_script_without_its_interpreter_cannot_be_started(tmp_path: Path) -> None:
    script = tmp_path / "job"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert "127: " in run(str(script)).stderr
    script.write_text("echo no first line\n")
    assert "#!/bin/sh" in run(str(script)).stderr


def test_what_cannot_be_run_is_told_with_the_codes_of_a_shell(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("not a program")
    for name, code, words in (
        ("no-such-program", 127, "no such program in PATH"),
        (str(tmp_path / "none"), 127, "there is no such file"),
        (str(plain), 126, "not executable"),
        (str(tmp_path), 126, "a directory"),
    ):
        with pytest.raises(CannotStart, match=words) as caught:
            check_program(name)
        assert caught.value.exit_code == code
    check_program("sh")


SYSTEM_PYTHON = "/usr/bin/python3"  # that every user may run
MAY_BE_ROOT = os.geteuid() == 0 and Path(SYSTEM_PYTHON).exists() and shutil.which("setpriv") is not None


@pytest.mark.skipif(not MAY_BE_ROOT, reason="needs root, to be two users, setpriv and a python for all")
def test_a_job_that_has_become_another_users_is_waited_for_though_it_may_not_be_signalled() -> None:
    """As under sudo."""
    with folder_for_all() as folder:
        (folder / "power_agent").mkdir()
        (folder / "power_agent" / "__init__.py").touch()
        shutil.copy(workload.__file__, folder / "power_agent" / "workload.py")
        becomes_root = folder / "sudo"
        shutil.copy(shutil.which("setpriv") or "", becomes_root)
        becomes_root.chmod(0o4755)
        job = [str(becomes_root), "--reuid=0", "--regid=0", "--clear-groups", "sh", "-c", "id -u; read x; exit 7"]
        process = subprocess.Popen(
            [SYSTEM_PYTHON, "-B", "-c", HARNESS, *job],
            env={"PYTHONPATH": str(folder), "PATH": os.environ["PATH"]},
            user=65534,
            group=65534,
            extra_groups=[],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            if process.stdout.readline() != b"0\n":
                pytest.skip("this file system lets nobody become root")
            process.send_signal(signal.SIGTERM)
            until(lambda: process.poll() is not None or not _waits(process.pid, signal.SIGTERM), "it has taken it")
            process.stdin.write(b"\n")
        finally:
            _, errors = process.communicate()
    assert process.returncode == 7, errors
    assert b"ending=None" not in errors and b"Traceback" not in errors


def _waits(pid: int, number: signal.Signals) -> bool:
    """Whether a signal is on its way to a process."""
    (pending,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("ShdPnd"))
    return bool(int(pending.split()[1], 16) >> (number - 1) & 1)
