"""Sessions of several hosts: a director that serves, agents on real sockets, commands on its local socket."""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

zmq = pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from made_spool import MadeSpool  # noqa: E402
from served_fleet import QUICK, ServedFleet, states, wait_for  # noqa: E402

from director.fleet.local_socket import SOCKET, DirectorClient, NoDirector, new_request  # noqa: E402
from power_agent.wire.frames import encode  # noqa: E402
from power_agent.wire.messages import (  # noqa: E402
    Heartbeat,
    SamplerChoices,
    SessionRequest,
    StartSampling,
    WorkloadEvent,
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[ServedFleet]:
    made = ServedFleet(tmp_path)
    yield made
    made.close()


def test_three_hosts_are_measured_and_nothing_is_lost(fleet: ServedFleet) -> None:
    agents = [fleet.agent(host) for host in ("a", "b", "c")]
    choices = SamplerChoices(rates_hz={"nvml": 20.0})
    name = fleet.begin("a", "b", "c", label="three hosts", choices=choices)
    wait_for(lambda: all(agent.rows.get(name, 0) >= 5 for agent in agents), "all sample")
    manifest = fleet.end(name)
    assert name.endswith("-three-hosts") and manifest["label"] == "three hosts"
    assert states(manifest) == ["preparing", "measuring", "stopping", "collecting", "ingesting", "complete"]
    assert manifest["state"] == "complete" and not (fleet.sessions / name / "spool").exists()
    assert StartSampling(session=name, choices=choices) in agents[0].heard
    for agent in agents:
        assert fleet.rows(name, agent.host) == agent.rows[name]
    assert not any(host in fleet.warnings(name) for host in ("a:", "b:", "c:"))
    # Asked again, the answer is the same.
    again = fleet.ask("stop", name)
    assert again.state == "complete" and "three hosts" in again.report
    assert fleet.ask("state", name).state == "complete"


def test_who_asks_again_gets_the_same_session(fleet: ServedFleet) -> None:
    fleet.agent("a")
    request = SessionRequest(request=new_request(), want="start")
    first = fleet.client.follow(request, lambda answer: True, 10)
    second = fleet.client.follow(request, lambda answer: True, 10)
    assert first is not None and second is not None and first.session == second.session is not None
    assert len(list(fleet.sessions.glob("*/manifest.json"))) == 1
    assert "measured by the session" in fleet.ask("start", hosts=["a"]).reason


def test_agents_that_come_late_leave_or_start_again_are_told_of(fleet: ServedFleet) -> None:
    early, restarted = fleet.agent("early"), fleet.agent("again")
    name = fleet.begin("early", "again", "late", "never")
    late = fleet.agent("late")
    wait_for(lambda: late.sampled(name) and restarted.rows[name] >= 3, "the late one samples")
    restarted.close()
    second = fleet.agent("again")
    wait_for(lambda: second.rows.get(name, 0) >= 3, "it goes on")
    early.close()
    wait_for(lambda: "early is silent" in fleet.told, "one left")
    manifest = fleet.end(name)
    told = fleet.warnings(name)
    for words in (
        "late: its agent joined late",
        "never: its agent was never heard",
        "again: its agent was started again",
        "early: its agent was not heard from",
        "early: its agent has not handed over all",
    ):
        assert words in told, told
    assert sum("never" in line for line in told.splitlines()) == 1, "each thing once"
    assert fleet.rows(name, "again") == restarted.rows[name] + second.rows[name]
    assert [host["name"] for host in manifest["hosts"]] == ["early", "again", "late", "never"]
    # What comes days later is taken, and the results are computed again.
    before = fleet.rows(name, "early")
    fleet.agent("early")
    wait_for(
        lambda: (
            states(fleet.manifest(name))[-2:] == ["ingesting", "complete"]
            and "whole" in str(fleet.manifest(name)["fleet"]["agents"][0]["events"])
        ),
        "the rest came",
    )
    wait_for(lambda: fleet.manifest(name)["fleet"]["state"] == "complete", "it is computed again")
    assert before <= fleet.rows(name, "early") == early.rows[name]
    assert "early: its agent has not handed over" not in fleet.warnings(name)


def test_a_silent_host_delays_nobody(fleet: ServedFleet) -> None:
    fleet.agent("mute", obeys=False)
    quick = fleet.agent("quick")
    slow = SessionRequest(request=new_request(), want="start", hosts=["mute"])
    assert fleet.client.follow(slow, lambda answer: True, 10).state == "preparing"  # type: ignore[union-attr]
    name = fleet.begin("quick")
    wait_for(lambda: quick.rows.get(name), "it samples")
    fleet.end(name)
    assert fleet.rows(name, "quick") == quick.rows[name]
    told = fleet.client.follow(slow, lambda answer: answer.state == "measuring", 10)
    assert told is not None and told.session is not None
    assert fleet.end(told.session)["state"] == "complete"


def test_a_host_whose_sampling_fails_is_told_of_and_the_others_go_on(fleet: ServedFleet) -> None:
    fleet.agent("broken", fails="no device can be read; plug one in")
    good = fleet.agent("good")
    name = fleet.begin("broken", "good")
    wait_for(lambda: good.rows.get(name), "it samples")
    fleet.end(name)
    assert "broken: sampling failed at" in fleet.warnings(name) and "plug one in" in fleet.warnings(name)
    assert fleet.rows(name, "good") == good.rows[name]


def test_sessions_of_disjoint_hosts_go_on_at_once_and_a_busy_host_is_refused(fleet: ServedFleet) -> None:
    for host in ("a", "b", "c"):
        fleet.agent(host)
    one, two = fleet.begin("a", label="one"), fleet.begin("b", label="two")
    refused = fleet.ask("start", hosts=["c", "b"])
    assert refused.state == "refused" and f"b is measured by the session {two} now" in refused.reason
    assert fleet.begin("c")
    assert "no agent is connected that is not measuring" in fleet.ask("start").reason
    fleet.end(two)
    assert fleet.manifest(one)["fleet"]["state"] == "measuring"
    fleet.end(fleet.begin("b"))
    fleet.end(one)


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[ServedFleet]:
    """It waits as long as a busy machine needs."""
    made = ServedFleet(tmp_path, replace(QUICK, ready_s=30.0))
    yield made
    made.close()


def test_two_stages_are_two_phases_and_meters_get_the_ranges_that_were_found(patient: ServedFleet) -> None:
    fleet = patient
    agent = fleet.agent("meter", meter=True)
    given = SamplerChoices(settings={"wt310e": {"amps": 5.0}})
    name = fleet.begin("meter", stages=["testing", "ranging"], choices=given)
    assert fleet.manifest(name)["fleet"]["state"] == "ranging"
    wait_for(lambda: agent.rows.get(name, 0) >= 3, "it samples")
    answer = fleet.ask("next", name, until="measuring")
    while answer.stage != "testing":
        answer = fleet.ask("state", name)
    fleet.ask("next", name, until="measuring")
    wait_for(lambda: agent.stages == ["ranging", "testing"], "it was asked for the second stage")
    manifest = fleet.end(name)
    assert states(manifest)[:4] == ["preparing", "ranging", "ranged", "measuring"]
    assert manifest["fleet"]["ranges"] == {"wt310e": {"volts": 230.0, "amps": 2.0, "watts": 100.0}}
    last = [message for message in agent.heard if isinstance(message, StartSampling)][-1]
    assert last.choices.settings == {
        "wt310e": {
            "volts_seen": 230.0,
            "amps_seen": 2.0,
            "amps": 5.0,
            "probe_s": 0.0,
        }  # of a driver, what was given wins
    }
    import json

    summary = json.loads((fleet.sessions / name / "summary.json").read_text())
    phases = {phase["name"]: phase["duration_s"] for phase in summary["phases"]}
    spans = {span["stage"]: (span["end_ns"] - span["begin_ns"]) / 1e9 for span in manifest["fleet"]["spans"]}
    assert phases["ranging"] == pytest.approx(spans["ranging"]) and phases["testing"] == pytest.approx(spans["testing"])
    assert fleet.ask("next", name).state == "refused"


def test_an_agent_asks_for_its_job_and_tells_of_it(fleet: ServedFleet) -> None:
    agent, other = fleet.agent("sut"), fleet.agent("other")
    agent.ask(SessionRequest(request="r", want="start", argv=["train", "--fast"], cwd="/home/me"))
    wait_for(lambda: agent.answers and agent.answers[-1].state == "measuring", "it measures")
    name = agent.answers[-1].session
    assert name is not None and name.endswith("-train")
    agent.ask(WorkloadEvent(session=name, event="started", t_ns=time.monotonic_ns(), pid=7))
    other.ask(SessionRequest(request="x", want="stop", session=name))
    wait_for(lambda: other.answers, "it is answered")
    assert other.answers[0].state == "refused" and "was not started on other" in other.answers[0].reason
    agent.ask(WorkloadEvent(session=name, event="ended", t_ns=time.monotonic_ns(), exit_code=3))
    agent.ask(SessionRequest(request="s", want="stop", session=name))
    wait_for(lambda: agent.answers[-1].state == "complete", "it is complete")
    assert "exit code 3" in agent.answers[-1].report
    work = fleet.manifest(name)["workload"]
    assert work["argv"] == ["train", "--fast"] and work["host"] == "sut" and work["exit_code"] == 3
    assert 0 < work["started_ns"] < work["ended_ns"]


def test_what_an_agent_recorded_by_itself_becomes_a_session(fleet: ServedFleet, tmp_path: Path) -> None:
    spools = {}
    for host in ("a", "b"):
        spool = spools[host] = MadeSpool(tmp_path / "agents" / host / "alone.sqlite")
        spool.add(5)
        spool.writer.close()
    for host in spools:
        fleet.agent(host)
    wait_for(lambda: len(list(fleet.sessions.glob("alone/traces/*/*.g0.parquet"))) == 2, "both came")
    wait_for(lambda: fleet.manifest("alone")["fleet"]["state"] == "complete", "it is complete")
    assert fleet.manifest("alone")["state"] == "recovered"
    assert fleet.rows("alone", "a") == spools["a"].rows
    wait_for(lambda: not list((tmp_path / "agents").glob("*/*.sqlite")), "the agents may forget it")


def test_the_directors_wall_clock_stays_known_when_results_are_there(fleet: ServedFleet) -> None:
    """A report that is made again later places logs by it, and so do results that are computed again."""
    agent = fleet.agent("a")
    name = fleet.begin("a")
    spool = fleet.sessions / name / "spool" / f"{fleet.manifest(name)['fleet']['director_host']}.sqlite"
    wait_for(spool.exists, "the clock is recorded")
    wait_for(lambda: agent.rows.get(name, 0) >= 3, "it samples")
    fleet_record = fleet.end(name)["fleet"]
    assert fleet_record["director_clock_file"] == f"traces/{fleet_record['director_host']}/clock.parquet"
    assert (fleet.sessions / name / fleet_record["director_clock_file"]).exists()


def test_an_agent_called_local_is_no_user_of_the_directors_machine(fleet: ServedFleet) -> None:
    agent = fleet.agent("local")
    fleet.agent("a")
    name = fleet.begin("a")
    agent.ask(SessionRequest(request="r", want="stop", session=name))
    wait_for(lambda: agent.answers, "it is answered")
    (answer,) = agent.answers
    assert answer.state == "refused" and "was not started on local" in answer.reason
    assert fleet.end(name)["fleet"]["state"] == "complete"


def test_a_director_goes_on_where_it_ended(fleet: ServedFleet) -> None:
    agent = fleet.agent("a")
    name = fleet.begin("a")
    wait_for(lambda: agent.rows.get(name), "it samples")
    fleet.stop()
    fleet.start()
    wait_for(lambda: any(f"session {name} goes on: it was measuring" in text for text in fleet.told), "it goes on")
    manifest = fleet.end(name)
    assert states(manifest) == ["preparing", "measuring", "stopping", "collecting", "ingesting", "complete"]
    assert "the director was started again" in fleet.warnings(name)
    assert fleet.rows(name, "a") == agent.rows[name]


def test_where_no_session_can_be_made_that_is_told_and_the_director_goes_on(fleet: ServedFleet) -> None:
    fleet.agent("a")
    away = fleet.sessions.with_name("away")
    fleet.sessions.rename(away)
    refused = fleet.ask("start", hosts=["a"])
    away.rename(fleet.sessions)
    assert refused.state == "refused" and "the director cannot make" in refused.reason
    assert fleet.begin("a")


def test_the_local_socket_is_its_owners_and_takes_noise(fleet: ServedFleet) -> None:
    path = fleet.sessions / SOCKET
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    folder = os.open(fleet.sessions, os.O_RDONLY)
    context = zmq.Context()
    stranger = context.socket(zmq.DEALER)
    stranger.connect(f"ipc:///proc/self/fd/{folder}/{SOCKET}")
    for frame in (b"", b"\xff" * 100, encode(Heartbeat(t_ns=1)), encode(StartSampling(session="s"))):
        stranger.send(frame)
    stranger.send_multipart([b"a", b"b"])
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        raw.sendall(os.urandom(1000))
    wait_for(lambda: fleet.server._local.bad_frames >= 5, "noise came")
    context.destroy(linger=0)
    os.close(folder)
    assert "keeps no session" in fleet.ask("stop", "nothing").reason
    assert "no agent is connected" in fleet.ask("start").reason


def test_without_a_director_it_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(NoDirector, match="power-director serve --sessions"):
        DirectorClient(tmp_path)
    with pytest.raises(NoDirector, match="cannot be read"):
        DirectorClient(tmp_path / "nowhere")
