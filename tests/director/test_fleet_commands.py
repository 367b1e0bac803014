"""`power-director serve`, `session` and `run --hosts` as processes, among them a director that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from scripted_agent import ScriptedAgent
from served_fleet import environment, free_address, states, wait_for

from director.commands.keys import SECRET
from power_agent.wire.keys import Keyring, make_secret

LISTENING = "listening on"  # what a director says when its ports are its own
FAIL = ["sh", "-c", "echo once; exit 4"]
MARK = "from power_agent import phase\nwith phase('work'): pass"


class Site:
    """A director as a process, agents in this one, and commands."""

    def __init__(self, folder: Path, options: Sequence[str] = (), **variables: str) -> None:
        self.folder = folder
        self.options = options
        self.environment = {**environment(), **variables}
        self.sessions = folder / "sessions"
        self.run_dir = folder / "run"
        self.address = free_address()
        self.log = folder / "director.log"
        self.agents: list[ScriptedAgent] = []
        self.director = self.serve()

    def serve(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            words = ["serve", "--listen", str(self.address), "--sessions", str(self.sessions), *self.options]
            before = self.log.read_text().count(LISTENING)
            self.director = subprocess.Popen(self.words(*words), stderr=log, env=self.environment, cwd=self.folder)
        wait_for(lambda: self.log.read_text().count(LISTENING) > before, "it serves")
        return self.director

    def kill(self) -> None:
        self.director.kill()
        self.director.wait()

    def agent(self, host: str, **more: Any) -> ScriptedAgent:
        agent = ScriptedAgent(self.address, self.folder / "agents", host, **more)
        self.agents.append(agent)
        wait_for(lambda: f"{host} is here" in self.log.read_text(), f"{host} is here")
        return agent

    @staticmethod
    def words(*words: str) -> list[str]:
        return [sys.executable, "-m", "director.cli", *words]

    def start(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        where = ["--sessions", str(self.sessions), "--run-dir", str(self.run_dir)]
        at = words.index("--") if "--" in words else len(words)
        line = self.words(*words[:at], *where, *words[at:])
        pipe = subprocess.PIPE
        return subprocess.Popen(line, stdout=pipe, stderr=pipe, env=self.environment, cwd=self.folder, **more)

    def do(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error of a command."""
        process = self.start(*words)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output.decode(), errors.decode()

    def names(self) -> list[str]:
        return sorted(path.parent.name for path in self.sessions.glob("*/manifest.json"))

    def manifest(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.sessions / name / "manifest.json").read_text())
        return found

    def state(self, name: str) -> str:
        return str(self.manifest(name)["fleet"]["state"])

    def close(self) -> None:
        for agent in self.agents:
            agent.close()
        self.director.terminate()
        assert self.director.wait(timeout=30) == 0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def test_a_job_is_measured_on_other_hosts_and_keeps_its_end(site: Site) -> None:
    agents = [site.agent("a"), site.agent("b")]
    job = f"import os; print(os.environ['POWER_AGENT_MARKS'], flush=True)\n{MARK}\nos._exit(7)"
    words = ["run", "--hosts", "a,b", "--label", "job", "--idle", "0.3", "--mllog", "-", "--json", "out.json", "--"]
    status, output, errors = site.do(*words, sys.executable, "-c", job)
    (name,) = site.names()
    assert (status, output) == (7, f"{site.run_dir / name}\n"), errors
    assert "exit code 7" in errors
    manifest = site.manifest(name)
    work = manifest["workload"]
    assert work["exit_code"] == 7 and work["argv"][0] == sys.executable and work["started_ns"] < work["ended_ns"]
    assert len(manifest["idle_ns"]) == 2 and manifest["phase_sources"][1]["file"] == "logs/stdout.log"
    assert (site.sessions / name / "logs/stdout.log").read_text() == output
    assert list((site.sessions / name / "marks" / work["host"]).glob("*.marks"))
    assert not (site.run_dir / name).is_symlink(), "the link is gone"
    summary = json.loads((site.folder / "out.json").read_text())
    assert "work" in [phase["name"] for phase in summary["phases"]]
    assert all(agent.rows[name] for agent in agents)


def test_a_job_dies_of_its_signal_and_so_does_the_command(site: Site) -> None:
    site.agent("a")
    assert site.do("run", "--hosts", "all", "--", "sh", "-c", "kill -USR1 $$")[0] == -signal.SIGUSR1
    assert site.manifest(site.names()[0])["workload"]["signal"] == signal.SIGUSR1


def test_what_cannot_be_run_or_asked_is_refused_before_the_job(site: Site) -> None:
    site.agent("a")
    for words, status, text in (
        (["run", "--hosts", "a", "--", "no-such-program"], 127, "command not found"),
        (["run", "--hosts", "a", "--repeat", "2", "--", "true"], 2, "--repeat does not go with --hosts"),
        (["run", "--hosts", "a", "--output", "x", "--", "true"], 2, "--output does not go with --hosts"),
        (["run", "--hosts", "a", "--set", "nvml.path=/etc", "--", "true"], 2, "numbers, auto, on and off alone"),
        (["run", "--hosts", "a;b", "--", "true"], 2, "'a;b' is no list of hosts"),
        (["session", "stop"], 2, "session stop is called as"),
        (["session", "stop", "../x"], 2, "no name of a session"),
        (["session", "stop", "nothing"], 1, "keeps no session nothing"),
    ):
        done = site.do(*words)
        assert done[0] == status and text in done[2], done
    assert site.names() == []


def test_both_stages_run_the_job_twice_and_meters_keep_the_ranges(site: Site) -> None:
    agent = site.agent("meter", meter=True)
    job = "echo $0; test -s seen || echo ranging; echo x >> seen; sleep 1"
    words = ["run", "--hosts", "meter", "--stage", "testing", "--stage", "ranging", "--idle", "0.2", "--phase-pattern"]
    status, output, errors = site.do(*words, "line=^(?P<index>\\d)$", "--", "sh", "-c", job, "7")
    (name,) = site.names()
    assert (status, output) == (0, "7\nranging\n7\n"), errors
    assert agent.stages == ["ranging", "testing"] and "the job is run again, and measured" in errors
    manifest = site.manifest(name)
    assert manifest["fleet"]["ranges"]["wt310e"]["amps"] == 2.0
    ranging, testing = manifest["fleet"]["spans"]
    work, (before, after) = manifest["workload"], manifest["idle_ns"]
    assert ranging["end_ns"] <= testing["begin_ns"] <= before[0] < before[1] <= work["started_ns"], (
        "measured in testing"
    )
    assert work["ended_ns"] <= after[0] < after[1] <= testing["end_ns"] and work["exit_code"] == 0
    assert (site.sessions / name / "logs/stdout.log").read_text() == "7\n", "its output there"


def test_a_job_that_fails_while_ranging_is_not_run_again(site: Site) -> None:
    site.agent("a")
    status, output, errors = site.do("run", "--hosts", "a", "--stage", "ranging", "--stage", "testing", "--", *FAIL)
    assert (status, output) == (4, "once\n"), errors
    manifest = site.manifest(site.names()[0])
    assert [span["stage"] for span in manifest["fleet"]["spans"]] == ["ranging"]
    assert manifest["workload"]["exit_code"] == 4 and manifest["state"] == "complete"


def test_a_long_wait_is_explained(site: Site) -> None:
    site.agent("a")
    process = site.start("run", "--hosts", "a,ghost", "--", "true")
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"power-director: waiting for a, ghost to sample")
    assert process.stderr.readline() == b"power-director: warning: ghost is not connected; connected now: a\n"
    process.send_signal(signal.SIGINT)
    assert b"Nothing was run" in process.communicate(timeout=60)[1]


def test_a_session_around_anything(site: Site) -> None:
    site.agent("a")
    status, output, errors = site.do("session", "start", "--label", "x", "--ranges", "wt310e:r1.volts=300")
    name = output.strip()
    assert status == 0 and f"POWER_AGENT_MARKS={site.run_dir / name}" in errors
    assert site.manifest(name)["fleet"]["choices"]["settings"] == {"wt310e:r1": {"volts": 300.0}}
    assert site.do("session", "state", name)[1] == f"{name} measuring testing\n"
    busy = site.do("run", "--hosts", "a", "--", "touch", "ran")
    assert busy[0] == 2 and f"a is measured by the session {name} now" in busy[2]
    assert not (site.folder / "ran").exists()
    listed = site.do("session", "list")
    assert name in listed[2] and "measuring" in listed[2]
    status, output, errors = site.do("session", "stop", name)
    assert (status, output) == (0, "") and "power-director: to read in a browser" in errors
    assert site.do("session", "stop", name)[0] == 0, "twice changes nothing"


def test_a_host_without_a_key_is_not_waited_for(tmp_path: Path) -> None:
    keys, agents = tmp_path / "keys", Keyring(tmp_path / "keys" / "agents")
    make_secret(keys / SECRET)
    for number in range(10):
        agents.add(f"node{number}", bytes([number]) * 32)
    site = Site(tmp_path, ["--keys", str(keys)])
    try:
        done = site.do("run", "--hosts", "node1,nod2,x", "--", "touch", str(tmp_path / "ran"))
        assert done[0] == 2 and "nod2 is not enrolled (did you mean node" in done[2] and "x is not enrolled" in done[2]
        assert "node7 and 2 more" in done[2] and not (tmp_path / "ran").exists() and site.names() == []
        start = site.start("session", "start", "--hosts", "node1")  # it may come yet
        wait_for(site.names, "a session")
        start.terminate()
        start.communicate(timeout=60)
    finally:
        site.close()


def test_without_a_director_a_job_is_not_started(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "director.cli", "run", "--hosts", "a", "--sessions", str(tmp_path), "--", "true"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode == 1 and "power-director serve --sessions" in done.stderr
    assert "was not started" in done.stderr


def test_two_directors_do_not_share_their_sessions(site: Site) -> None:
    words = site.words("serve", "--listen", "127.0.0.1:5999", "--sessions", str(site.sessions))
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode == 1 and "another power-director" in done.stderr


def test_a_job_outlives_a_director_that_is_killed_under_it(site: Site) -> None:
    agent = site.agent("a")
    fifo = site.folder / "fifo"
    os.mkfifo(fifo)
    run = site.start("run", "--hosts", "a", "--", "sh", "-c", f"read line < {fifo}; exit 3")
    wait_for(site.names, "a session")
    (name,) = site.names()
    wait_for((site.sessions / name / "spool" / "job.json").exists, "the job runs")
    site.kill()
    wait_for(lambda: agent.rows.get(name, 0) > 3, "the agent samples on")
    fifo.write_text("go\n")
    wait_for(lambda: b'"exit_code":3' in (site.sessions / name / "spool" / "job.json").read_bytes(), "it has ended")
    site.serve()
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 3, errors
    assert site.state(name) == "complete" and site.manifest(name)["workload"]["exit_code"] == 3
    assert "the director was started again" in errors.decode()


STATES = ("preparing", "ranging", "ranged", "measuring", "stopping", "collecting", "ingesting")
OFTEN = ("measuring",)


@pytest.mark.parametrize(
    "state", [state if state in OFTEN else pytest.param(state, marks=pytest.mark.long) for state in STATES]
)
def test_a_director_that_is_killed_goes_on_where_it_was(site: Site, state: str) -> None:
    agent = site.agent("a", obeys=state != "preparing")
    start = site.start("session", "start", "--stage", "ranging")
    wait_for(site.names, "a session")
    (name,) = site.names()

    def come_to(wanted: str) -> bool:
        """Whether the session is in the state to be killed in; else it is brought on."""
        wait_for(lambda: site.state(name) == wanted, wanted)
        return wanted == state

    def kill_and_serve() -> None:
        site.kill()
        agent.obeys = agent.hands_over = True
        site.serve()

    if come_to("preparing" if state == "preparing" else "ranging"):
        kill_and_serve()
    start.communicate(timeout=60)
    wait_for(lambda: site.state(name) == "ranging" and agent.rows.get(name, 0) > 3, "it samples")
    agent.obeys = state != "ranged"
    onward = site.start("session", "next", name)
    if state == "ranged" and come_to("ranged"):
        kill_and_serve()
    onward.communicate(timeout=60)
    if come_to("measuring"):
        kill_and_serve()
    agent.obeys, agent.hands_over = state != "stopping", state != "collecting"
    stop = site.start("session", "stop", name)
    if state in ("stopping", "collecting", "ingesting") and come_to(state):
        kill_and_serve()
    _, errors = stop.communicate(timeout=60)
    assert stop.returncode == 0, errors
    manifest = site.manifest(name)
    assert [word for word in states(manifest) if word != "complete"] == list(STATES)
    assert manifest["state"] == "complete" and [span["stage"] for span in manifest["fleet"]["spans"]] == [
        "ranging",
        "testing",
    ]
    assert sum(file["rows"] for host in manifest["hosts"] for file in host["streams"]) == agent.rows[name]
