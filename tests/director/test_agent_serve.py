"""`power-agent serve` as a service manager starts it: real processes, a director's real sockets and store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from agent_site import HOST, Site
from made_spool import MadeSpool, read_instants
from scripted_director import instants, wait_for

from power_agent.service.session_folder import SessionFolder, SessionRecord
from power_agent.wire.messages import Heartbeat, Hello, SamplerChoices, SamplingState


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


def test_an_agent_that_is_started_anew_goes_on_in_the_stage_that_it_was_in(site: Site) -> None:
    director = site.direct()
    agent = site.serve()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    director.start_session(HOST, "s1", "ranging")
    wait_for(lambda: "sampling" in director.states("s1"), "it samples")
    director.choices = SamplerChoices(rates_hz={"fake": 50.0})
    director.start_session(HOST, "s1", "testing")

    def stages() -> list[tuple[str, str]]:
        return [(m.stage, m.state) for m in director.of(SamplingState) if isinstance(m, SamplingState)]

    wait_for(lambda: stages()[-1] == ("testing", "sampling"), "it is in the next stage")
    agent.kill()
    agent.wait()
    before = len(stages())
    site.serve()
    wait_for(lambda: len(stages()) > before, "the next one tells of it")
    assert {stage for stage, _ in stages()[before:]} == {"testing"}
    assert json.loads((site.state / "s1" / "session.json").read_bytes())["choices"]["rates_hz"] == {"fake": 50.0}


def test_what_was_recorded_under_another_name_waits_for_that_name(site: Site) -> None:
    site.state.mkdir()
    record = SessionRecord(session="s1", host="oldname", stage="testing", boot_id="another", marks=str(site.run_dir))
    folder = SessionFolder.create(site.state, record)
    MadeSpool(folder.spool).add(5)
    director = site.direct()
    agent = site.serve()
    wait_for(lambda: any(m.problems for m in director.of(Heartbeat)), "it is told")  # type: ignore[attr-defined]
    told = next(m.problems[0] for m in director.of(Heartbeat) if m.problems)  # type: ignore[attr-defined]
    assert "recorded as oldname" in told and "--host oldname" in told and told in site.told()
    director.start_session(HOST, "s2")
    wait_for(lambda: "sampling" in director.states("s2"), "what is its own is sampled")
    assert all(m.unsent == [] for m in director.of(Hello))  # type: ignore[attr-defined]
    assert not (director.folder / "s1").exists() and folder.spool.is_file()
    agent.terminate()
    agent.wait(30)
    site.serve("--host", "oldname")
    wait_for(lambda: not folder.path.exists(), "it is handed over under its name")
    assert read_instants(director.folder / "s1" / "spool" / "oldname.sqlite") == list(range(35))


def test_a_path_that_is_too_long_for_a_socket_is_told(site: Site) -> None:
    assert site.serve("--run-dir", str(site.folder / ("long" * 25))).wait(30) == 1
    assert "name a shorter one with --run-dir" in site.told() and "Traceback" not in site.told()
