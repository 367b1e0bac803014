"""`power-director run` as a user starts it: what the job sees, what the session holds, what the messages say."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from director.cli import main
from director.session.files import SessionError, load_manifest
from director.session.ingest import row_dtype
from director.session.manifest import Manifest
from power_agent.messages import SamplerSpec
from power_agent.recorder import Recorder
from power_agent.spool import SpoolDamaged, SpoolReader

DEADLINE_S = 60.0
HOST_ONLY = ("--drivers", "host", "--rate", "host=20")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "director.cli", *map(str, arguments)]


def director(*arguments: object, cwd: Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        command(*arguments), cwd=cwd, timeout=DEADLINE_S, capture_output=True, **options
    )


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def started(session: Path) -> bool:
    try:
        manifest = load_manifest(session)
    except SessionError:
        return False
    return manifest.workload is not None and manifest.workload.started_ns is not None


def sampler_pid(session: Path) -> int:
    reader = SpoolReader(next((session / "spool").glob("*.sqlite")))
    try:
        return int(reader.meta()["pid"])
    finally:
        reader.close()


def sampler_knows_the_work(session: Path) -> bool:
    try:
        reader = SpoolReader(next((session / "spool").glob("*.sqlite")))
        try:
            return "work_pid" in reader.meta()
        finally:
            reader.close()
    except (SpoolDamaged, StopIteration):
        return False


def rows_of(session: Path, manifest: Manifest) -> dict[str, int]:
    return {f.stream.group: pq.read_metadata(session / f.file).num_rows for h in manifest.hosts for f in h.streams}


def test_a_run_gives_the_jobs_own_output_and_status_and_a_complete_session(tmp_path: Path) -> None:
    job = "echo to stdout; echo to stderr >&2; test -d $POWER_AGENT_MARKS && sleep 0.5; exit 3"
    result = director(
        "run", *HOST_ONLY, "--output=s", "--label=my job", "--idle=0.3", "--json=out.json", "--", "sh", "-c", job,
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    assert result.returncode == 3
    assert result.stdout == b"to stdout\n"
    assert b"to stderr\n" in result.stderr
    assert b"my job" in result.stderr
    session = tmp_path / "s"
    manifest = load_manifest(session)
    assert manifest.state == "complete"
    assert manifest.missing == []
    assert not (session / "spool").exists()
    work = manifest.workload
    assert work is not None and work.started_ns is not None and work.ended_ns is not None
    assert (work.argv, work.exit_code, work.signal) == (["sh", "-c", job], 3, None)
    assert work.ended_ns - work.started_ns >= 500_000_000
    (before, after) = manifest.idle_ns
    assert before[1] - before[0] >= 300_000_000 <= after[1] - after[0]
    assert before[1] <= work.started_ns < work.ended_ns <= after[0]
    assert manifest.environment["OMP_NUM_THREADS"] == "2"
    assert manifest.hosts[0].system["kernel"].startswith("Linux")
    # 20 Hz over at least 1.1 s, and readings out of turn at both edges and at the end.
    assert rows_of(session, manifest)["cpu"] >= 22
    stamps = pq.read_table(session / manifest.hosts[0].streams[0].file)["t_ns"].to_pylist()
    assert stamps[0] < before[0] and stamps[-1] > after[1]
    assert json.loads((tmp_path / "out.json").read_bytes())["exit_code"] == 3
    for name, checksum in manifest.checksums.items():
        assert hashlib.sha256((session / name).read_bytes()).hexdigest() == checksum

    again = director("report", "s", "--json=-", "--quiet", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout == (tmp_path / "out.json").read_bytes()
    # Into the same directory nothing is measured, and the job is not started.
    twice = director("run", "--output=s", "--", "touch", "ran", cwd=tmp_path)
    assert twice.returncode == 2
    assert b"not empty" in twice.stderr and b"not started" in twice.stderr
    assert not (tmp_path / "ran").exists()


def test_output_goes_through_unchanged_and_what_the_job_leaves_running_is_named(tmp_path: Path) -> None:
    block, count = 1 << 20, 32
    job = (
        "import hashlib, os, subprocess, sys; block = os.urandom(1 << 20)\n"
        f"for i in range({count}): sys.stdout.buffer.write(block[i:] + block[:i])\n"
        "child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "open('pid', 'w').write(str(child.pid)); open('block', 'wb').write(block)\n"
    )
    process = subprocess.Popen(
        command("run", *HOST_ONLY, "--output=s", "--quiet", "--mllog", "--", sys.executable, "-c", job),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    seen, length = hashlib.sha256(), 0
    while part := process.stdout.read(block):
        seen.update(part)
        length += len(part)
    messages = process.stderr.read().decode()
    assert process.wait(DEADLINE_S) == 0
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    original, data = hashlib.sha256(), (tmp_path / "block").read_bytes()
    for i in range(count):
        original.update(data[i:] + data[:i])
    assert length == block * count
    assert seen.hexdigest() == original.hexdigest()
    assert load_manifest(tmp_path / "s").checksums["logs/stdout.log"] == original.hexdigest()
    assert f"left sleep (pid {(tmp_path / 'pid').read_text()}) running" in messages


def test_at_a_terminal_the_job_has_one_too_and_ctrl_c_is_the_jobs(tmp_path: Path) -> None:
    job = (
        "import os, sys, time\n"
        "print(sys.stdout.isatty(), os.get_terminal_size(1).columns, flush=True)\n"
        "try: time.sleep(60)\n"
        "except KeyboardInterrupt: print('asked to end\\x1b[0m', flush=True); sys.exit(5)\n"
    )
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.system("stty cols 77 rows 22")
        line = command("run", *HOST_ONLY, "--output=s", "--quiet", "--mllog", "--", sys.executable, "-c", job)
        os.execv(line[0], line)
    seen = b""

    def read_more() -> bool:
        nonlocal seen
        try:
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 65536)
        except OSError:  # what Linux answers when the last program at the terminal has gone
            return False
        return True

    until(lambda: read_more() and b"True 77\r\n" in seen, "the job's first line")
    os.write(master, b"\x03")
    until(lambda: not read_more(), "the end")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    os.close(master)
    assert b"asked to end\x1b[0m\r\n" in seen
    manifest = load_manifest(tmp_path / "s")
    assert manifest.state == "complete"
    assert manifest.workload is not None and manifest.workload.exit_code == 5
    assert (tmp_path / "s/logs/stdout.log").read_bytes() == b"True 77\nasked to end\x1b[0m\n"


def test_when_the_terminal_goes_the_job_is_told_and_the_session_is_whole(tmp_path: Path) -> None:
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
        line = command("run", *HOST_ONLY, "--output=s", "--", "sleep", "60")
        os.execv(line[0], line)
    until(lambda: started(tmp_path / "s"), "the job to start")
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGHUP
    manifest = load_manifest(tmp_path / "s")
    assert manifest.state == "complete"
    assert manifest.workload is not None and manifest.workload.signal == signal.SIGHUP
    assert (tmp_path / "s/summary.json").exists()


def test_nothing_that_starts_threads_is_imported_before_the_job_has_ended() -> None:
    # A thread that does not hold signals back would take those that are meant for the job, and die of them.
    script = (
        "import sys, director.running.series; sys.exit(str({'numpy', 'pyarrow', 'pandas'} & set(sys.modules) or ''))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_S)
    assert result.stderr.strip() == ""


def test_a_sampler_that_dies_is_started_again_and_goes_on_where_it_left_off(tmp_path: Path) -> None:
    session = tmp_path / "s"
    job = "import os, signal, sys; sys.stdin.read(); os.kill(os.getpid(), signal.SIGUSR1)"
    process = subprocess.Popen(
        command("run", *HOST_ONLY, "--rate=host=50", "--output", session, "--", sys.executable, "-c", job),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stderr is not None
    until(lambda: started(session) and sampler_knows_the_work(session), "the sampler to know the work")
    pid = sampler_pid(session)
    os.kill(pid, signal.SIGKILL)
    assert b"measuring" in process.stderr.readline()
    assert b"warning: the sampler died; it is started again\n" in process.stderr.readline()
    assert b"the sampler was started again; readings of up to" in process.stderr.readline()
    assert sampler_pid(session) != pid

    def newest_ns() -> int:
        reader = SpoolReader(next((session / "spool").glob("*.sqlite")))
        try:
            resumed_ns = int(reader.meta()["resumed_ns"])
            rows = [row_dtype(stream) for stream in reader.streams()]
            stamps = [
                np.frombuffer(payload, rows[stream.id])["t_ns"].max()
                for stream in reader.streams()
                for _, payload in reader.batches(stream.id)
            ]
            return int(max(stamps)) - resumed_ns
        finally:
            reader.close()

    until(lambda: newest_ns() > 0, "readings of the second sampler")
    process.stdin.close()
    process.stderr.read()
    assert process.wait(DEADLINE_S) == -signal.SIGUSR1, "we end as the job did"
    manifest = load_manifest(session)
    assert manifest.state == "complete"
    assert ["died" in manifest.missing[0], "started again; readings" in manifest.missing[1]] == [True, True]
    (host,) = manifest.hosts
    cpu = next(file for file in host.streams if file.stream.group == "cpu")
    t_ns = pq.read_table(session / cpu.file)["t_ns"].to_numpy()
    assert (np.diff(t_ns) > 0).all()
    ticks = next(tick for tick in host.ticks if tick.stream == cpu.stream.id)
    assert ticks.due == ticks.taken + ticks.late + ticks.missed
    assert ticks.taken + ticks.late + ticks.extra >= cpu.rows, "what died in memory was taken and is not in the trace"
    assert ticks.missed >= 1, "the ticks between the two"
    passed = (t_ns[-1] - t_ns[0]) / 20e6
    assert abs(ticks.due - passed) <= 10, "ticks go on being due while nobody samples"
    work = manifest.workload
    assert work is not None and work.started_ns is not None and work.ended_ns is not None
    assert t_ns[0] < work.started_ns < work.ended_ns < t_ns[-1]


def test_a_sampler_that_cannot_be_started_again_costs_the_readings_not_the_job(tmp_path: Path) -> None:
    session = tmp_path / "s"
    job = "import os, signal, sys; sys.stdin.read(); os.kill(os.getpid(), signal.SIGUSR1)"
    process = subprocess.Popen(
        command("run", *HOST_ONLY, "--output", session, "--", sys.executable, "-c", job),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stderr is not None
    until(lambda: started(session) and sampler_knows_the_work(session), "the sampler to know the work")
    pid = sampler_pid(session)
    (session / "spool/sampler.json").unlink()
    (session / "spool/sampler.json").mkdir()
    os.kill(pid, signal.SIGKILL)
    assert b"measuring" in process.stderr.readline()
    assert b"warning: the sampler died" in process.stderr.readline()
    assert b"the sampler cannot be started again" in process.stderr.readline()
    process.stdin.close()
    messages = process.stderr.read()
    assert process.wait(DEADLINE_S) == -signal.SIGUSR1, "we end as the job did"
    manifest = load_manifest(session)
    assert manifest.state == "complete"
    assert "the sampler died" in manifest.missing[0]
    assert rows_of(session, manifest)["cpu"] > 0
    assert b"the sampler died" in messages, "the report says it, too"


def test_without_a_sampler_everything_is_a_plain_problem(tmp_path: Path) -> None:
    recorder = Recorder(SamplerSpec(spool=str(tmp_path / "no/such/directory/spool"), host="h"), tmp_path, tell=print)
    assert recorder.ready is None
    assert "nothing is measured: the sampler did not start" in recorder.problems[0]
    recorder.work_started(1)
    recorder.look()
    recorder.work_ended()
    recorder.stop()
    assert len(recorder.problems) == 1


def test_a_trace_alone_is_a_session_as_long_as_the_trace(tmp_path: Path) -> None:
    # 10 W for 60 s, a row a second, replayed 60 times as fast.
    lines = ["time_s,power_w", *(f"{i},10.0" for i in range(61))]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    result = director("run", "--replay=t.csv", "--replay-speed=60", "--output=s", "--json=-", cwd=tmp_path)
    assert result.returncode == 0, result.stderr.decode()
    manifest = load_manifest(tmp_path / "s")
    assert manifest.workload is None
    assert sum(rows_of(tmp_path / "s", manifest).values()) == 61
    assert json.loads(result.stdout)["command"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("run",), 2, "put it after --"),
        (("run", "python", "x.py"), 2, "unrecognized arguments: python x.py"),
        (("run", "--", "no-such-program-here"), 127, "no such program in PATH"),
        (("run", "--", "/etc/passwd"), 126, "not executable"),
        (("run", "--drivers=nvlm", "--", "true"), 2, "did you mean 'nvml'?"),
        (("run", "--drivers=,", "--", "true"), 2, "names no driver"),
        (("run", "--rate=nvlm=5", "--", "true"), 2, "there is no driver 'nvlm'"),
        (("run", "--rate=host=0", "--", "true"), 2, "'0' is not a rate in Hz above 0"),
        (("run", "--rate=host", "--", "true"), 2, "is not DRIVER[.GROUP]=HZ"),
        (("run", "--set=host", "--", "true"), 2, "is not DRIVER.KEY=VALUE"),
        (("run", "--idle=-1", "--", "true"), 2, "'-1' is not a number of seconds"),
        (("run", "--idle=nan", "--", "true"), 2, "is not a number of seconds"),
        (("run", "--repeat=0", "--", "true"), 2, "is not a whole number"),
        (("run", "--repeat=2", "--replay=x"), 2, "--repeat needs a command"),
        (("run", "--replay=x.csv"), 2, "x.csv"),
        (("run", "--json=/no/such/dir/x", "--", "true"), 2, "--json /no/such/dir/x: cannot be written"),
        (("run", "--phase-pattern=epoch", "--", "true"), 2, "write NAME=REGEX"),
        (("run", "--phase-pattern=epoch=(", "--", "true"), 2, "is no regular expression"),
        (("run", "--phase-log=x", "--", "true"), 2, "needs a --phase-pattern"),
        (("run", "--phase-log=x", "--phase-pattern=a=b", "--", "true"), 2, "needs a group time_s or time_ms"),
        (("run", "--cost-per-kwh=-1", "--", "true"), 2, "is not a number, 0 or more"),
        (("run", "--output=/proc/x", "--", "true"), 2, "cannot be written"),
        (("run", "--outptu=x", "--", "true"), 2, "unrecognized arguments"),
        (("report", "."), 2, "not a session directory"),
        (("report", "/no/such/session"), 2, "not a session directory"),
        (("recover", "."), 2, "not a session directory"),
        (("report", ".", "--", "true"), 2, "takes no command"),
        ((), 2, "COMMAND"),
    ],
)
def test_a_users_mistake_is_told_without_running_anything(
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    words: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    printed = capfd.readouterr()
    assert words in printed.err
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_help_and_version_start_fast_and_light(tmp_path: Path) -> None:
    script = (
        "import sys; from director import cli\n"
        "try: cli.main(['run', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'rich', 'msgspec', 'psutil'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_S)
    assert result.returncode == 0, result.stderr
    assert "power-director run --idle 30" in result.stdout
    assert director("--version", cwd=tmp_path).stdout.startswith(b"power-director ")
