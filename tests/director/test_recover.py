"""After a kill of the director, the sampler or the report: what was measured becomes a session, told in plain words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from director.session.files import SessionError, load_manifest
from power_agent.spool import SpoolDamaged, SpoolReader

DEADLINE_S = 60.0
HOST_ONLY = ("--drivers", "host", "--rate", "host=20")


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "director.cli", *map(str, arguments)]


def recover(session: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command("recover", session, "--quiet"), capture_output=True, text=True, timeout=DEADLINE_S)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def meta(session: Path) -> dict[str, str]:
    try:
        reader = SpoolReader(next((session / "spool").glob("*.sqlite")))
    except (SpoolDamaged, StopIteration):
        return {}
    try:
        return reader.meta()
    except SpoolDamaged:
        return {}
    finally:
        reader.close()


def state(session: Path) -> str:
    try:
        return load_manifest(session).state
    except SessionError:
        return ""


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def start(session: Path, *job: str) -> subprocess.Popen[bytes]:
    """A run whose job has begun and whose sampler knows of it."""
    process = subprocess.Popen(
        command("run", *HOST_ONLY, "--output", session, "--quiet", "--", *job),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: "work_pid" in meta(session), "the sampler to know the work")
    return process


def test_after_a_kill_of_the_director_the_job_goes_on_and_is_measured_to_its_end(tmp_path: Path) -> None:
    session = tmp_path / "s"
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    process = start(session, "sh", "-c", f"read line < {fifo}; echo the job ended well")
    pids = {name: int(meta(session)[name]) for name in ("pid", "work_pid")}
    process.kill()
    process.wait()

    refused = recover(session)
    assert refused.returncode == 2
    assert f"still being measured: the sampler (pid {pids['pid']})" in refused.stderr
    assert f"until the job (pid {pids['work_pid']}) has ended" in refused.stderr
    unfinished = subprocess.run(command("report", session), capture_output=True, text=True, timeout=DEADLINE_S)
    assert unfinished.returncode == 2
    assert "power-director recover" in unfinished.stderr

    fifo.write_text("go\n")
    assert process.stdout is not None
    assert process.stdout.read() == b"the job ended well\n"
    until(lambda: gone(pids["pid"]), "the sampler to end after the job")

    done = recover(session)
    assert done.returncode == 0, done.stderr
    assert "missing: the director died before the job ended" in done.stderr
    manifest = load_manifest(session)
    assert manifest.state == "recovered"
    work = manifest.workload
    assert work is not None and work.started_ns is not None and work.ended_ns is not None
    assert work.exit_code is None
    stamps = pq.read_table(session / manifest.hosts[0].streams[0].file)["t_ns"].to_pylist()
    assert stamps[0] < work.started_ns < work.ended_ns < stamps[-1]
    assert not (session / "spool").exists()
    assert (session / "summary.json").exists()

    before = (session / "manifest.json").read_bytes()
    twice = recover(session)
    assert twice.returncode == 0
    assert "nothing to recover" in twice.stderr
    assert (session / "manifest.json").read_bytes() == before


def test_after_a_power_cut_what_reached_the_disk_is_kept(tmp_path: Path) -> None:
    session = tmp_path / "s"
    process = start(session, "sleep", "60")
    pids = {name: int(meta(session)[name]) for name in ("pid", "work_pid")}
    until(lambda: "finished_ns" not in meta(session) and meta(session)["pid"] == str(pids["pid"]), "a flush")
    process.kill()  # the director first, or it would see the others go
    process.wait()
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(gone(pid) for pid in pids.values()), "all to be gone")
    done = recover(session)
    assert done.returncode == 0, done.stderr
    manifest = load_manifest(session)
    assert manifest.state == "recovered"
    assert any("sampling on" in text and "was cut off" in text for text in manifest.missing)
    assert any("the job's end was not seen" in text for text in manifest.missing)
    assert manifest.hosts[0].streams[0].rows > 0


def test_an_impatient_ctrl_c_in_the_report_loses_nothing(tmp_path: Path) -> None:
    session = tmp_path / "s"
    process = subprocess.Popen(
        command("run", *HOST_ONLY, "--output", session, "--quiet", "--", "sh", "-c", "exit 4"),
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: state(session) in ("ingesting", "complete"), "the job's end")
    # In the "ingesting" state signals are still held back for a moment; wait until the conversion has begun.
    until(lambda: (session / "traces").exists(), "the conversion to begin")
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 4
    if state(session) != "complete" or not (session / "summary.json").exists():
        assert "power-director recover" in messages
        assert recover(session).returncode == 0
    manifest = load_manifest(session)
    assert manifest.missing == []
    assert manifest.workload is not None and manifest.workload.exit_code == 4
    assert (session / "summary.json").exists()


def test_where_nothing_was_left_to_recover_it_is_said(tmp_path: Path) -> None:
    session = tmp_path / "s"
    process = start(session, "sleep", "60")
    sampler, job = int(meta(session)["pid"]), int(meta(session)["work_pid"])
    process.kill()
    process.wait()
    for pid in (sampler, job):
        os.kill(pid, signal.SIGKILL)
    until(lambda: gone(sampler), "the sampler to be gone")
    for path in (session / "spool").iterdir():
        path.unlink()
    done = recover(session)
    assert done.returncode == 0, done.stderr
    assert "there is no spool" in done.stderr
    assert "Traceback" not in done.stderr
    # And a spool that is something else is named.
    manifest = load_manifest(session)
    (session / "spool").mkdir(exist_ok=True)
    alien = session / "spool" / f"{manifest.hosts[0].name}.sqlite"
    alien.write_bytes(b"alien" * 1000)
    done = recover(session)
    assert str(alien) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_series_is_recovered_in_one_go_and_each_missing_item_is_told_once(tmp_path: Path) -> None:
    series = tmp_path / "series"
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    # The second run waits, and while it does the director is killed.
    job = f"echo run $POWER_AGENT_REPEAT; test $POWER_AGENT_REPEAT = 1 || read line < {fifo}"
    process = subprocess.Popen(
        command("run", *HOST_ONLY, "--repeat=3", "--output", series, "--quiet", "--", "sh", "-c", job),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    first, second = series / "run-001", series / "run-002"
    until(lambda: "work_pid" in meta(second), "the second run's job to start")
    sampler = int(meta(second)["pid"])
    process.kill()
    process.wait()

    refused = recover(series)
    assert refused.returncode == 2
    assert f"{second} is still being measured" in refused.stderr
    fifo.write_text("go\n")
    until(lambda: gone(sampler), "the sampler to end after the job")

    done = subprocess.run(command("recover", series, "--json=-"), capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    assert (state(first), state(second)) == ("complete", "recovered")
    assert " ".join(done.stderr.split()).count("the director died before the job ended") == 1
    runs = json.loads(done.stdout)["series"]["runs"]
    assert [(run["directory"], run["interrupted"]) for run in runs] == [("run-001", False), ("run-002", True)]

    twice = recover(series)
    assert twice.returncode == 0
    assert "nothing to recover" in twice.stderr
