"""`power-agent serve` as a service manager starts it: real processes, a director's real sockets and store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from agent_site import HOST, Site
from scripted_director import instants, wait_for

from power_agent.wire.messages import Heartbeat, Hello, SamplingState


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


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
    wait_for(lambda: director.exchanges, "clocks are compared")
    wait_for(lambda: any(m.clock_state for m in director.of(Heartbeat)), "it tells of its clock")  # type: ignore[attr-defined]
    director.stop_session(HOST, "s1")
    wait_for(lambda: "stopped" in director.states("s1"), "it ends")
    wait_for(lambda: not (site.state / "s1").exists() and not marks.exists(), "what was handed over is removed")
    stored = director.folder / "s1"
    assert instants(stored / "spool" / f"{HOST}.sqlite")["fake.power"] == site.journaled(), "every reading, once"
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
    readings = len(site.journaled())
    wait_for(lambda: len(site.journaled()) > readings + 10, "sampling goes on without it")
    site.serve()
    wait_for(lambda: len(director.of(Hello)) > 1, "the next one says Hello")
    hello = director.of(Hello)[-1]
    assert isinstance(hello, Hello) and hello.recording == ["s1"]
    director.stop_session(HOST, "s1")
    wait_for(lambda: "stopped" in director.states("s1"), "it ends")
    wait_for(lambda: not (site.state / "s1").exists(), "all is handed over")
    assert instants(director.folder / "s1" / "spool" / f"{HOST}.sqlite")["fake.power"] == site.journaled()


def test_an_agent_that_is_ended_in_order_goes_on_later(site: Site) -> None:
    director = site.direct()
    agent = site.serve()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    director.start_session(HOST, "s1")
    wait_for(lambda: "sampling" in director.states("s1"), "it samples")
    agent.terminate()
    assert agent.wait(30) == 0
    readings = len(site.journaled())
    site.serve()
    wait_for(lambda: len(site.journaled()) > readings + 5, "the next one samples")
    director.stop_session(HOST, "s1")
    wait_for(lambda: not (site.state / "s1").exists(), "all is handed over")
    assert instants(director.folder / "s1" / "spool" / f"{HOST}.sqlite")["fake.power"] == site.journaled()
    told = [problem for m in director.of(SamplingState) for problem in m.problems]  # type: ignore[attr-defined]
    assert any("started anew" in text for text in told)
