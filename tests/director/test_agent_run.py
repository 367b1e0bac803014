"""`power-agent run`: the job's output, signals and status are its own, whatever becomes of agent and director."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from agent_site import HOST, Site
from scripted_director import instants, wait_for

from power_agent.wire.messages import Hello, SessionAnswer, SessionRequest, WorkloadEvent

JOB = "echo to stdout; echo to stderr >&2; test -d $POWER_AGENT_MARKS && power_marks=1; sleep 0.4; exit 3"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def start(site: Site, *words: str, job: str = JOB, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "power_agent.cli", "run", *site.options(), *words, "--", "sh", "-c", job],
        env=site.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors.decode()


def stored(site: Site) -> Path:
    (spool,) = (site.folder / "store").glob(f"*/spool/{HOST}.sqlite")
    return spool


def test_a_job_is_measured_in_a_directors_session(site: Site) -> None:
    director = site.direct()
    site.serve()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    job = f"{sys.executable} -m power_agent.cli mark point here; {JOB}"
    status, output, errors = ended(start(site, "--label", "my job", job=job))
    assert (status, output) == (3, b"to stdout\n")
    assert (
        "to stderr\n" in errors
        and "the table\npower-agent: to read in a browser: " in errors
        and "warning" not in errors
    )
    (request,) = [m for m in director.of(SessionRequest) if isinstance(m, SessionRequest) and m.want == "start"]
    assert request.label == "my job" and request.argv == ["sh", "-c", job] and request.hosts == []
    started, end = director.of(WorkloadEvent)
    assert isinstance(started, WorkloadEvent) and isinstance(end, WorkloadEvent)
    assert (started.event, end.event, end.exit_code, end.signal) == ("started", "ended", 3, None)
    assert end.t_ns - started.t_ns >= 400_000_000
    wait_for(lambda: not list(site.state.glob("*")) and not list(site.run_dir.glob("job*")), "all is handed over")
    read = instants(stored(site))["fake.power"]
    assert read == site.journaled() and read[0] < started.t_ns < end.t_ns < read[-1]
    (marks,) = (site.folder / "store").glob(f"*/marks/{HOST}/*.marks")
    assert '"name":"here"' in marks.read_text()


def test_where_no_agent_serves_one_is_started_for_the_job(site: Site) -> None:
    director = site.direct()
    status, output, errors = ended(start(site))
    assert (status, output) == (3, b"to stdout\n")
    assert "the table\npower-agent: to read in a browser: " in errors and "warning" not in errors, errors
    assert instants(stored(site))["fake.power"] == site.journaled()
    assert len(director.of(Hello)) == 1
    assert not (site.run_dir / "agent.sock").exists(), "it is gone"


def test_without_a_director_the_job_is_recorded_and_handed_over_later(site: Site) -> None:
    status, output, errors = ended(start(site))
    assert (status, output) == (3, b"to stdout\n")
    assert "no director answers" in errors
    (session,) = [path for path in site.state.iterdir() if path.is_dir()]
    director = site.direct()
    site.serve()
    wait_for(lambda: not session.exists(), "it is handed over")
    hello = director.of(Hello)[0]
    assert isinstance(hello, Hello) and hello.unsent == [session.name]
    read = instants(stored(site))["fake.power"]
    assert len(read) > 5 and read == site.journaled()


def test_a_director_that_refuses_does_not_stop_the_job(site: Site) -> None:
    director = site.direct()
    director.decide = lambda host, request: [
        SessionAnswer(request=request.request, state="refused", reason="this director is busy")
    ]
    status, output, errors = ended(start(site))
    assert (status, output) == (3, b"to stdout\n")
    assert "this director is busy" in errors and "this host alone is recorded" in errors
    assert instants(stored_or_kept(site))["fake.power"] == site.journaled()


def stored_or_kept(site: Site) -> Path:
    (spool,) = [*(site.folder / "store").glob(f"*/spool/{HOST}.sqlite"), *site.state.glob(f"*/{HOST}.sqlite")]
    return spool


def test_a_director_that_dies_during_the_job_does_not_stop_it(site: Site) -> None:
    director = site.direct()
    site.serve()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    process = start(site, job="read line; echo $line; exit 5", stdin=subprocess.PIPE)
    wait_for(lambda: director.of(WorkloadEvent), "the job runs")
    director.close()
    site.directors.clear()
    assert process.stdin is not None
    output_bytes, error_bytes = process.communicate(b"from the terminal\n", timeout=60)
    assert (process.returncode, output_bytes) == (5, b"from the terminal\n")
    assert "the director is away" in error_bytes.decode()
    again = site.direct()
    wait_for(lambda: not [p for p in site.state.iterdir() if p.is_dir()], "it is handed over when it is back")
    assert instants(stored(site))["fake.power"] == site.journaled()
    told = [m for m in again.heard if isinstance(m, WorkloadEvent)]
    assert [m.event for m in told][-2:] == ["started", "ended"], "it learns of the job's end"


def test_an_agent_that_is_killed_during_the_job_does_not_stop_it(site: Site) -> None:
    director = site.direct()
    agent = site.serve()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    process = start(site, job="read line; exit 6", stdin=subprocess.PIPE)
    wait_for(lambda: director.of(WorkloadEvent), "the job runs")
    agent.kill()
    agent.wait()
    site.serve()
    wait_for(lambda: len(director.of(Hello)) > 1, "the next agent is there")
    process.communicate(b"\n", timeout=60)
    assert process.returncode == 6
    wait_for(lambda: not [p for p in site.state.iterdir() if p.is_dir()], "it is handed over")
    assert instants(stored(site))["fake.power"] == site.journaled()


def test_an_agent_of_ones_own_that_is_killed_does_not_stop_the_job(site: Site) -> None:
    director = site.direct()
    process = start(site, job="read line; exit 6", stdin=subprocess.PIPE)
    wait_for(lambda: director.of(WorkloadEvent), "the job runs")
    (agent,) = [child for child in psutil.Process(process.pid).children() if "serve" in child.cmdline()]
    agent.kill()
    read = len(site.journaled())
    wait_for(lambda: len(site.journaled()) > read + 10, "sampling goes on")
    _, errors = process.communicate(b"\n", timeout=60)
    assert process.returncode == 6 and "the table" in errors.decode()
    assert instants(stored(site))["fake.power"] == site.journaled()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_the_jobs(site: Site, number: signal.Signals) -> None:
    director = site.direct()
    process = start(site, job="trap 'echo got it; exit 9' TERM INT; echo up; while :; do sleep 0.05; done")
    wait_for(lambda: director.of(WorkloadEvent), "the job runs")
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(number)
    status, output, errors = ended(process)
    assert (status, output) == (9, b"got it\n") and "the table" in errors


def test_a_job_that_a_signal_kills_ends_us_alike(site: Site) -> None:
    site.direct()
    status, _, errors = ended(start(site, job="kill -KILL $$"))
    assert status == -signal.SIGKILL and "the table" in errors


def test_where_nothing_can_be_recorded_the_job_runs(site: Site) -> None:
    site.direct()
    site.state.write_text("not a folder")
    status, output, errors = ended(start(site))
    assert (status, output) == (3, b"to stdout\n")
    assert "not measured" in errors and "Traceback" not in errors


def test_both_stages_run_the_job_twice(site: Site) -> None:
    director = site.direct()
    status, output, errors = ended(start(site, "--stage", "testing", "--stage", "ranging", job="echo one; exit 0"))
    assert (status, output) == (0, b"one\none\n"), errors
    assert [m.want for m in director.of(SessionRequest)] == ["start", "next", "stop"]  # type: ignore[attr-defined]


def test_mistakes_are_told_before_anything_runs(site: Site) -> None:
    for words, code, text in (
        (["run", "--director", "a b", "--", "true"], 2, "no address"),
        (["run", "--director", "127.0.0.1", "--", "no-such-program-at-all"], 127, "command not found"),
        (["run", "--director", "127.0.0.1"], 2, "no command"),
        (["run", "--director", "127.0.0.1", "--hosts", "../x", "--", "true"], 2, "no list of hosts"),
        (["serve", "--director", "10.0.0.5"], 1, "not enrolled"),
        (["serve", "--director", "127.0.0.1", "--host", "a/b"], 2, "no name of a host"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "power_agent.cli", *words], env=site.environment, capture_output=True, text=True
        )
        assert done.returncode == code and text in done.stderr and "Traceback" not in done.stderr, done.stderr
