"""What people, jobs and disks do to a run and to its directory: the job is not touched, and the message names it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from director.session.files import load_manifest

DEADLINE_S = 60.0
LONG_DEADLINE_S = 600.0
MODELLED = ("--drivers=estimate", "--set=estimate.idle_watts=10", "--set=estimate.peak_watts=10")  # 10 W, always


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "director.cli", *(a if isinstance(a, str) else str(a) for a in arguments)]


def director(*arguments: object, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        text=True,
        errors="surrogateescape",
        **{"capture_output": True, "timeout": DEADLINE_S, **options},
    )
    assert "Traceback" not in (done.stderr or ""), done.stderr
    return done


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def summary(session: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((session / "summary.json").read_bytes())
    return found


def phases(session: Path) -> dict[str, dict[str, Any]]:
    return {phase["name"]: phase for phase in summary(session)["phases"]}


# Phases

ODD_NAMES = [
    "<script>alert(1)</script>",
    "\"quotes' [bold]x[/red]",
    "🔥 \u202eltr",
    "n" * 2048,
    "two\nlines\x1b[31m",
    "",
]
ODD_JOB = """\
import json, os, signal, sys, threading, time
from power_agent.marks import begin, end, phase
names = json.loads(sys.argv[1])
begin("never closed")
begin("twice"); end("twice"); end("twice")
end("never begun")
with phase("no length"): pass
one, two = phase("crossing one"), phase("crossing two")
one.__enter__(); time.sleep(0.02); two.__enter__(); time.sleep(0.02); one.__exit__(None, None, None)
time.sleep(0.02); two.__exit__(None, None, None)
def work():
    for name in names:
        with phase(name, samples=1): time.sleep(0.005)
children = []
for number in range(4):
    child = os.fork()
    if not child:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        if number == 3:
            with phase("killed"):
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
    children.append(child)
for child in children: os.waitpid(child, 0)
time.sleep(0.3)
"""


def test_odd_phases_of_many_processes_come_out_whole(tmp_path: Path) -> None:
    job = (sys.executable, "-c", ODD_JOB, json.dumps(ODD_NAMES))
    run = director("run", *MODELLED, "--output=s", "--json=-", "--", *job, cwd=tmp_path)
    assert run.returncode == 0
    assert json.loads(run.stdout) == summary(tmp_path / "s")
    found = phases(tmp_path / "s")
    (longest,) = (name for name in found if name.startswith("nnn"))
    assert len(longest) == 256  # a mark cuts its name
    found["n" * 2048] = found.pop(longest)
    for name in ODD_NAMES:  # 4 processes of 4 threads; where they overlap, time counts once
        assert (found[name]["count"], found[name]["work"]) == (16, {"samples": 16.0})
        assert found[name]["total"]["joules"] == pytest.approx(10.0 * found[name]["duration_s"], rel=0.01)
    flags = {name: found[name]["flagged"] for name in found if name not in ODD_NAMES}
    odd = dict.fromkeys(("never closed", "never begun", "crossing one", "crossing two", "killed"), 1)
    assert flags == {"command": 0, "twice": 0, "no length": 0, **odd}
    assert found["no length"]["duration_s"] < 0.01
    warnings = "\n".join(summary(tmp_path / "s")["warnings"])
    for text in (
        '"never closed": never ended',
        '"killed": never ended',
        '"twice": ended twice',
        '"never begun": ended',
    ):
        assert text in warnings
    table = run.stderr
    assert "<script>" in table and "🔥 \\u202eltr" in table and "two lines\\x1b[31m" in table.replace("\n", " ")
    assert "\x1b" not in table and "\u202e" not in table
    assert "nnn…" in table


@pytest.mark.long
def test_a_million_marks_in_one_run(tmp_path: Path) -> None:
    job = "from power_agent.marks import phase\nfor step in range(500_000):\n    with phase('step', samples=2): pass\n"
    run = director(
        "run",
        *MODELLED,
        "--quiet",
        "--output=s",
        "--",
        sys.executable,
        "-c",
        job,
        cwd=tmp_path,
        timeout=LONG_DEADLINE_S,
    )
    assert run.returncode == 0
    step = phases(tmp_path / "s")["step"]
    assert (step["count"], step["work"], step["flagged"]) == (500_000, {"samples": 1e6}, 0)
    assert step["total"]["joules"] == pytest.approx(10.0 * step["duration_s"], rel=0.01)
    assert pq.read_metadata(tmp_path / "s/phases.parquet").num_rows == 500_001


# MLLOG

TRAINING = """\
import json, sys, time
shift_s = 0.0
def log(key, **metadata):
    time_ms = 1000 * (time.time() + shift_s)
    print(":::MLLOG", json.dumps(dict(key=key, time_ms=time_ms, value=None, metadata=metadata)), file=out, flush=True)
out = open("train.log", "a") if sys.argv[1] == "log" else sys.stdout
log("run_start")
for number in (1, 2):
    log("epoch_start", epoch_num=number)
    time.sleep(1.3)
    log("epoch_stop", epoch_num=number, samples_count=100 * number)
    if sys.argv[2] == "killed": sys.exit()
    if number == 1:
        open("stepped", "w").write(str(time.monotonic_ns()))
        shift_s = float(sys.argv[2])
log("run_stop", status="success")
"""


def test_older_runs_in_the_same_log_are_not_of_this_run(tmp_path: Path) -> None:
    training = [sys.executable, "-c", TRAINING, "log"]
    for end in ("0", "killed"):
        subprocess.run([*training, end], cwd=tmp_path, check=True, timeout=DEADLINE_S)
    run = director("run", *MODELLED, "--output=s", "--mllog=train.log", "--", *training, "0", cwd=tmp_path)
    assert run.returncode == 0
    found = phases(tmp_path / "s")
    assert (found["run"]["count"], found["epoch"]["count"]) == (1, 2)
    assert found["run"]["flagged"] == found["epoch"]["flagged"] == 0
    assert found["run"]["work"] == {"samples": 200.0}
    assert found["run"]["duration_s"] == pytest.approx(2.6, abs=0.2)
    assert '"run": is not of the measured time, and was left out' in run.stderr


@pytest.mark.parametrize("shift_s", [-3600, 3600])
def test_a_wall_clock_that_is_set_moves_no_phase(tmp_path: Path, shift_s: int) -> None:
    training = (sys.executable, "-c", TRAINING, "stdout", str(shift_s))
    run = director("run", *MODELLED, "--quiet", "--output=s", "--mllog", "--", *training, cwd=tmp_path)
    assert run.returncode == 0
    # The session as it would be had the clock of this machine been set; the job has stamped its log so.
    stepped_ns = int((tmp_path / "stepped").read_text())
    path = tmp_path / "s" / load_manifest(tmp_path / "s").hosts[0].clock_file
    pairs = pq.read_table(path).to_pydict()
    later = [at >= stepped_ns for at in pairs["monotonic_ns"]]
    assert any(later) and not all(later)
    moved = zip(pairs["wall_ns"], later, strict=True)
    pairs["wall_ns"] = [wall + shift_s * 10**9 * after for wall, after in moved]
    pq.write_table(pa.table(pairs), path)
    again = director("report", "s", cwd=tmp_path)
    assert again.returncode == 0
    assert f"was set by {shift_s:+d}" in again.stderr
    found = phases(tmp_path / "s")
    # A busy machine adds to this; an hour it does not add.
    assert 2.6 <= found["command"]["duration_s"] < 30
    assert 2.5 <= found["run"]["duration_s"] < 30
    assert (found["epoch"]["count"], found["epoch"]["flagged"], found["run"]["flagged"]) == (2, 0, 0)
    assert 2.5 <= found["epoch"]["duration_s"] < 30
    assert found["epoch"]["total"]["joules"] == pytest.approx(26.0, rel=0.05)


# Jobs

DAEMON = """\
import os, sys, time
if not os.fork():
    os.setsid()
    if not os.fork():
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3): os.dup2(nothing, stream)
        open("daemon", "w").write(str(os.getpid()))
        time.sleep(60)
    os._exit(0)
while not os.path.exists("daemon") or not open("daemon").read(): time.sleep(0.01)
os._exit(9)
"""


def test_a_daemon_that_the_job_leaves_is_named(tmp_path: Path) -> None:
    run = director("run", *MODELLED, "--quiet", "--output=s", "--", sys.executable, "-c", DAEMON, cwd=tmp_path)
    pid = int((tmp_path / "daemon").read_text())
    os.kill(pid, signal.SIGKILL)
    assert run.returncode == 9
    assert f"(pid {pid}) running" in run.stderr


@pytest.mark.parametrize(
    ("phase_options", "left_out"), [([], []), (["--mllog"], ["killed", "reads", "goes", "vandal"])]
)
def test_jobs_end_as_they_end(tmp_path: Path, phase_options: list[str], left_out: list[str]) -> None:
    jobs: dict[str, tuple[list[str], int, str]] = {
        "killed": (["sh", "-c", "kill -KILL $$"], -signal.SIGKILL, ""),
        "crashed": (["sh", "-c", "echo out; kill -SEGV $$"], -signal.SIGSEGV, "out\n"),
        "closes": (["sh", "-c", "exec >&-; sleep 0.2; exit 3"], 3, ""),
        "reads": (["sh", "-c", "read word; echo $word; exit 4"], 4, "given\n"),
        "goes": (["sh", "-c", "cd /; exec sh -c 'pwd; exit 5'"], 5, "/\n"),
        "nothing": (["true"], 0, ""),
        "bytes": (["sh", "-c", b"printf '\xff\xfe'; exit 6".decode("utf-8", "surrogateescape")], 6, "\udcff\udcfe"),
        "vandal": (["sh", "-c", "rm -rf ../vandal; exit 7"], 7, ""),
    }
    for name in left_out:
        del jobs[name]
    processes = {}
    for name, (job, _, _) in jobs.items():
        line = command("run", *MODELLED, *phase_options, "--quiet", f"--output={tmp_path / name}", "--", *job)
        folder = tmp_path / f"of-{name}"
        folder.mkdir()
        processes[name] = subprocess.Popen(
            line, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    for name, (_, status, output) in jobs.items():
        out, err = processes[name].communicate(b"given\n", timeout=DEADLINE_S)
        assert processes[name].returncode == status, (name, err)
        assert out.decode("utf-8", "surrogateescape") == output, name
        assert b"Traceback" not in err, err
        if name != "vandal":
            assert phases(tmp_path / name)["command"]["total"] is not None
    assert load_manifest(tmp_path / "bytes").workload.argv[2] == "printf '\\xff\\xfe'; exit 6"  # type: ignore[union-attr]


@pytest.mark.long
@pytest.mark.parametrize("phase_options", [[], ["--mllog=-"]])
def test_a_gigabyte_of_output_comes_through(tmp_path: Path, phase_options: list[str]) -> None:
    job = "import sys; block = bytes(range(256)) * 4096\nfor _ in range(1024): sys.stdout.buffer.write(block)"
    process = subprocess.Popen(
        command("run", *MODELLED, *phase_options, "--quiet", "--output=s", "--", sys.executable, "-c", job),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    seen = hashlib.sha256()
    while part := process.stdout.read(1 << 20):
        seen.update(part)
    assert process.wait(LONG_DEADLINE_S) == 0
    whole, block = hashlib.sha256(), bytes(range(256)) * 4096
    for _ in range(1024):
        whole.update(block)
    assert seen.hexdigest() == whole.hexdigest()


def test_at_a_terminal_the_relay_ends_without_a_word(tmp_path: Path) -> None:
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        line = command("run", *MODELLED, "--quiet", "--mllog", "--output=s", "--", "sh", "-c", "echo hello; exit 3")
        os.execv(line[0], line)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # what Linux answers when the last program at the terminal has gone
            break
        shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    os.close(master)
    assert shown == b"hello\r\n"
    assert (tmp_path / "s/logs/stdout.log").read_bytes() == b"hello\n"


# Directories and disks


def test_an_output_that_cannot_be_is_refused_before_the_job(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    strange = os.fsdecode(b"na\xefve")
    (tmp_path / strange).mkdir()
    cases = [
        (tmp_path, "--output=file", "cannot be written"),
        (tmp_path, "--output=file/below", "cannot be written"),
        (tmp_path, f"--output={strange}", "no UTF-8"),
        (tmp_path / strange, "--output=s", "no UTF-8"),
        (tmp_path, f"--label={strange}", "no UTF-8"),
    ]
    for folder, option, words in cases:
        refused = director("run", option, "--", "touch", "ran", cwd=folder)
        assert refused.returncode == 2
        assert words in refused.stderr
        assert not (folder / "ran").exists()
    assert (tmp_path / "file").read_text() == "here"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


FILLING_JOB = """\
import os, sys, time
from power_agent.marks import phase
with phase("before"): time.sleep(1.0)
filler = open("filler", "wb", buffering=0)
try:
    while True: filler.write(bytes(4096))
except OSError: pass
time.sleep(1.2)
if sys.argv[1] == "frees": os.unlink("filler"); filler.close()
time.sleep(0.6)
print("the job ended well")
sys.exit(7)
"""


def test_a_disk_that_was_full_for_a_while_costs_at_most_a_gap(small_disk: Path) -> None:
    job = (sys.executable, "-c", FILLING_JOB, "frees")
    run = director("run", *MODELLED, "--quiet", "--output=s", "--", *job, cwd=small_disk)
    assert (run.returncode, run.stdout) == (7, "the job ended well\n")
    total = phases(small_disk / "s")["command"]["total"]
    assert total["coverage"] > 0.99  # readings wait in memory
    assert any("full" in text and "free some space" in text for text in summary(small_disk / "s")["warnings"])


def test_a_disk_that_the_job_leaves_full_has_room_for_how_it_ended(small_disk: Path) -> None:
    job = (sys.executable, "-c", FILLING_JOB, "stays")
    run = director("run", *MODELLED, "--quiet", "--output=s", "--", *job, cwd=small_disk)
    assert (run.returncode, run.stdout) == (7, "the job ended well\n")
    if "power-director recover" in run.stderr:
        (small_disk / "filler").unlink()
        assert director("recover", "s", cwd=small_disk).returncode == 0
    work = load_manifest(small_disk / "s").workload
    assert work is not None and work.exit_code == 7
    assert phases(small_disk / "s")["command"]["duration_s"] > 2.7


def test_a_disk_that_others_keep_full_is_told_and_recover_finishes_the_session(small_disk: Path) -> None:
    job = (sys.executable, "-c", FILLING_JOB, "stays")
    process = subprocess.Popen(
        command("run", *MODELLED, "--quiet", "--output=s", "--", *job),
        cwd=small_disk,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until((small_disk / "filler").exists, "the job to fill the disk")
    with (small_disk / "others").open("wb", buffering=0) as others:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                others.write(bytes(1024))
                continue
            time.sleep(0.0005)
    out, err = process.communicate()
    assert (process.returncode, out) == (7, "the job ended well\n")
    assert "No space left on device" in err and "power-director recover" in err and "Traceback" not in err
    for name in ("filler", "others"):
        (small_disk / name).unlink()
    recovered = director("recover", "s", cwd=small_disk)
    assert recovered.returncode == 0, recovered.stderr
    before = phases(small_disk / "s")["before"]
    assert before["total"]["joules"] == pytest.approx(10.0 * before["duration_s"], rel=0.02)
    warnings = "\n".join(summary(small_disk / "s")["warnings"])
    assert "cut off" in warnings or "readings may be missing" in warnings
    total = phases(small_disk / "s")["command"]["total"]
    assert total["coverage"] < 0.9 or "the job's end was not seen" in warnings


# Damaged sessions


@pytest.fixture(scope="module")
def whole_session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    job = "from power_agent.marks import phase\nimport time\nwith phase('step'): time.sleep(0.3)"
    drivers = ("--drivers=estimate,host", "--mllog")
    director("run", *drivers, "--quiet", "--output=s", "--", sys.executable, "-c", job, cwd=folder)
    return folder / "s"


def trace(session: Path) -> Path:
    return next(session.glob("traces/*/estimate.power.parquet"))


def overwrite_middle(session: Path) -> None:
    with trace(session).open("r+b") as file:
        file.seek(300)
        file.write(b"\xff" * 16)


def in_manifest(**fields: object) -> Callable[[Path], None]:
    def change(session: Path) -> None:
        whole = json.loads((session / "manifest.json").read_bytes())
        for place, value in fields.items():
            part = whole
            *path, last = place.split("__")
            for step in path:
                part = part[int(step[1:]) if step[0] == "n" and step[1:].isdigit() else step]
            assert last in part
            part[last] = value
        (session / "manifest.json").write_text(json.dumps(whole))

    return change


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {  # what is done, and what the message must name
    "trace cut": (lambda s: os.truncate(trace(s), 200), "estimate.power.parquet"),
    "trace gone": (lambda s: trace(s).unlink(), "estimate.power.parquet"),
    "traces gone": (lambda s: shutil.rmtree(s / "traces"), ".parquet"),
    "trace alien": (lambda s: trace(s).write_text("alien"), "estimate.power.parquet"),
    "trace of others": (
        lambda s: shutil.copy(trace(s).with_name("host.cpu.parquet"), trace(s)),
        "estimate.power.parquet",
    ),
    "trace overwritten": (overwrite_middle, "estimate.power.parquet"),
    "manifest gone": (lambda s: (s / "manifest.json").unlink(), "manifest.json"),
    "manifest cut": (lambda s: os.truncate(s / "manifest.json", 300), "manifest.json"),
    "manifest alien": (lambda s: (s / "manifest.json").write_text('{"a": 1}'), "manifest.json"),
    "no rate": (in_manifest(hosts__n0__streams__n0__stream__rate_hz=0), "cannot have been read at 0.0 Hz"),
    "tiny rate": (in_manifest(hosts__n0__streams__n0__stream__rate_hz=1e-320), "cannot have been read"),
    "other folder": (in_manifest(hosts__n0__streams__n0__file="../../x"), "is not a file of the session"),
    "impossible instant": (in_manifest(workload__started_ns=-(10**25)), "manifest.json"),
    "far instant": (in_manifest(workload__ended_ns=(1 << 63) - 1), "is no instant"),
    "results in the way": (
        lambda s: ((s / "phases.parquet").unlink(), (s / "phases.parquet").mkdir()),
        "phases.parquet",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_session_is_refused_with_the_files_name(
    whole_session: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from director.cli import main

    damage, words = DAMAGES[name]
    shutil.copytree(whole_session, tmp_path / "s")
    damage(tmp_path / "s")
    assert main(["report", str(tmp_path / "s")]) in (1, 2)
    printed = capfd.readouterr()
    assert words in printed.err
    assert printed.err.startswith("power-director: ") and "Traceback" not in printed.err


def test_what_is_odd_but_harmless_is_told_in_the_report(
    whole_session: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from director.cli import main

    session = tmp_path / "s"
    shutil.copytree(whole_session, session)
    (session / "marks/alien.marks").write_bytes(os.urandom(1000))
    (session / "marks/folder.marks").mkdir()
    (session / "marks/notes.txt").write_text("no marks")
    next(session.glob("traces/*/clock.parquet")).unlink()
    assert main(["report", str(session)]) == 0
    printed = capfd.readouterr().err
    for words in ("alien.marks:1: is no mark", "folder.marks: cannot be read", "clock.parquet is not there any more"):
        assert words in printed
    assert phases(session)["step"]["count"] == 1

    shutil.rmtree(session / "marks")
    assert main(["report", str(session)]) == 0
    assert ".marks is not there any more; what it told is missing here" in capfd.readouterr().err
    assert "step" not in phases(session)


def test_a_recorded_power_of_unknown_place_is_a_total_only_where_it_is_alone(tmp_path: Path) -> None:
    for columns, scope in (("power_w", "power: whatever it feeds"), ("a_watts,b_watts", "nothing: which of")):
        name = columns.partition(",")[0]
        row = ",".join(["10.0"] * len(columns.split(",")))
        (tmp_path / f"{name}.csv").write_text(f"time_s,{columns}\n" + "".join(f"{t},{row}\n" for t in range(61)))
        run = director("run", f"--replay={name}.csv", "--replay-speed=100", f"--output={name}", cwd=tmp_path)
        assert run.returncode == 0
        assert scope in summary(tmp_path / name)["scope_of_total"]
    (figure,) = phases(tmp_path / "power_w")["command"]["components"]
    assert figure["joules"] == pytest.approx(600.0, rel=0.001)
    metrics = {metric["name"]: metric["value"] for metric in summary(tmp_path / "power_w")["metrics"]}
    assert metrics["energy"] == pytest.approx(600.0, rel=0.001)
    assert phases(tmp_path / "a_watts")["command"]["total"] is None
    assert summary(tmp_path / "a_watts")["metrics"] == []
