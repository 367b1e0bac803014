"""`power-agent serve` as a service manager starts it: real processes, a director's real sockets and store."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fake_device
import pytest

pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from scripted_director import ScriptedDirector, free_ports, instants, wait_for

from power_agent.spool import SpoolReader
from power_agent.wire.messages import Hello, SamplingState
from power_agent.wire.sockets import Address

HOST = "node7"


class Site:
    """A host with an agent, and a place for a director."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = Address("127.0.0.1", free_ports())
        self.state, self.run_dir, self.journal = folder / "state", folder / "run", folder / "journal"
        self.log = folder / "agent.log"
        fake_device.install(folder / "site")
        paths = [str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")]), *sys.path]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XDG_CONFIG_HOME": str(folder / "cfg")}
        self.agents: list[subprocess.Popen[bytes]] = []
        self.directors: list[ScriptedDirector] = []

    def options(self) -> list[str]:
        return [
            *("--director", str(self.address), "--host", HOST, "--state", str(self.state)),
            *("--run-dir", str(self.run_dir), "--driver", "fake", "--set", f"fake.journal={self.journal}"),
        ]

    def serve(self, *more: str, **options: object) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            agent = subprocess.Popen(  # type: ignore[call-overload]
                [sys.executable, "-m", "power_agent.cli", "serve", *self.options(), *more],
                env=self.environment,
                stderr=log,
                **options,
            )
        self.agents.append(agent)
        return agent  # type: ignore[no-any-return]

    def direct(self, **options: object) -> ScriptedDirector:
        director = ScriptedDirector(self.folder / "store", self.address, **options)  # type: ignore[arg-type]
        self.directors.append(director)
        return director

    def told(self) -> str:
        return self.log.read_text()

    def close(self) -> None:
        for agent in self.agents:
            agent.kill()
            agent.wait()
        for session in self.state.glob("*/*.sqlite"):
            kill_sampler(session)
        for director in self.directors:
            director.close()


def sampler_pid(spool: Path) -> int:
    reader = SpoolReader(spool)
    try:
        return int(reader.meta()["pid"])
    finally:
        reader.close()


def kill_sampler(spool: Path) -> None:
    with contextlib.suppress(Exception):
        os.kill(sampler_pid(spool), signal.SIGKILL)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def journal(site: Site) -> list[int]:
    return [int(line) for line in site.journal.read_text().split()]


def test_a_session_is_sampled_and_arrives_whole(site: Site) -> None:
    site.serve()
    director = site.direct()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    director.start_session(HOST, "s1")
    wait_for(lambda: "sampling" in director.states("s1"), "it samples")
    marks = site.run_dir / "s1"
    assert marks.stat().st_mode & 0o7777 == 0o1777
    (marks / "1-2.marks").write_bytes(b"a mark\n")
    (marks / "evil").symlink_to("/etc/passwd")
    wait_for(lambda: director.store.readings_rows > 30, "readings arrive while it samples")
    director.stop_session(HOST, "s1")
    wait_for(lambda: "stopped" in director.states("s1"), "it ends")
    wait_for(lambda: not (site.state / "s1").exists() and not marks.exists(), "what was handed over is removed")
    stored = director.folder / "s1"
    assert instants(stored / "spool" / f"{HOST}.sqlite")["fake.power"] == journal(site), "every reading, once"
    assert (stored / "marks" / HOST / "1-2.marks").read_bytes() == b"a mark\n"
    assert sorted(p.name for p in (stored / "marks" / HOST).iterdir()) == ["1-2.marks"]
    # Repeated: nothing is sampled again.
    director.start_session(HOST, "s1")
    before = len(director.states("s1"))
    wait_for(lambda: len(director.states("s1")) > before, "it answers")
    assert director.states("s1")[-1] == "stopped" and not (site.state / "s1").exists()


def test_a_killed_agent_loses_nothing_and_its_successor_goes_on(site: Site) -> None:
    director = site.direct()
    agent = site.serve()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    director.start_session(HOST, "s1")
    wait_for(lambda: director.store.readings_rows > 10, "readings arrive")
    agent.kill()
    agent.wait()
    readings = len(journal(site))
    wait_for(lambda: len(journal(site)) > readings + 10, "sampling goes on without it")
    site.serve()
    wait_for(lambda: len(director.of(Hello)) > 1, "the next one says Hello")
    hello = director.of(Hello)[-1]
    assert isinstance(hello, Hello) and hello.recording == ["s1"]
    director.stop_session(HOST, "s1")
    wait_for(lambda: "stopped" in director.states("s1"), "it ends")
    wait_for(lambda: not (site.state / "s1").exists(), "all is handed over")
    assert instants(director.folder / "s1" / "spool" / f"{HOST}.sqlite")["fake.power"] == journal(site)


def test_an_agent_that_is_ended_in_order_goes_on_later(site: Site) -> None:
    director = site.direct()
    agent = site.serve()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    director.start_session(HOST, "s1")
    wait_for(lambda: "sampling" in director.states("s1"), "it samples")
    agent.terminate()
    assert agent.wait(30) == 0
    readings = len(journal(site))
    site.serve()
    wait_for(lambda: len(journal(site)) > readings + 5, "the next one samples")
    director.stop_session(HOST, "s1")
    wait_for(lambda: not (site.state / "s1").exists(), "all is handed over")
    assert instants(director.folder / "s1" / "spool" / f"{HOST}.sqlite")["fake.power"] == journal(site)
    told = [problem for m in director.of(SamplingState) for problem in m.problems]  # type: ignore[attr-defined]
    assert any("started anew" in text for text in told)
