"""From any sequence of messages, failures, pauses and crashes each session that was acknowledged ends complete."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from made_spool import made_rows, made_stream, read_instants

from director.fleet.clock_sync import ClockSync
from director.fleet.fleet_session import Bounds, Presence
from director.fleet.kept_session import Surroundings
from director.fleet.session_folder import LOCAL
from director.fleet.session_keeper import SessionKeeper
from director.fleet.store import FleetStore
from director.session.files import load_manifest, spool_path, store_manifest
from power_agent.spool import SpoolReader
from power_agent.wire.messages import (
    Ack,
    BatchFrame,
    FromDirector,
    HandOver,
    Hello,
    SamplingState,
    SessionAnswer,
    SessionRequest,
    StartSampling,
    StopSampling,
    StreamsDeclared,
)

HOSTS = ("a", "b", "c")
BOUNDS = Bounds()
NEXT = {
    "preparing": {"ranging", "measuring", "stopping"},
    "ranging": {"ranged", "stopping"},
    "ranged": {"measuring", "stopping"},
    "measuring": {"stopping"},
    "stopping": {"collecting"},
    "collecting": {"ingesting"},
    "ingesting": {"complete"},
    "complete": {"ingesting"},
}
OFTEN_DONE = ("obey", "obey", "record", "record", "hand_over", "hand_over", "fail", "hello", "reboot", "vanish")
hosts = st.sampled_from(HOSTS)


class FinishedWork:
    """What computes results, without the results: it takes a few looks, and may fail."""

    def __init__(self, session: Path, looks: int, fails: bool) -> None:
        self._session, self._looks, self._fails = session, looks, fails

    def poll(self) -> bool | None:
        self._looks -= 1
        if self._looks > 0:
            return None
        if not self._fails:
            manifest = load_manifest(self._session)
            assert manifest.state != "measuring"
            try:
                store_manifest(self._session, msgspec.structs.replace(manifest, state="complete"))
            except OSError:
                return False
        return not self._fails

    def output(self) -> str:
        return "it failed" if self._fails else ""

    def end(self) -> None:
        self._looks = 1 << 30


class FoundRanges(FinishedWork):
    def poll(self) -> bool | None:
        self._looks -= 1
        return None if self._looks > 0 else not self._fails

    def output(self) -> str:
        return '{"wt310e":{"volts":230,"amps":2}}'


class Agent:
    """What an agent remembers; the machine decides what it does of it."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.starts = 0
        self.boot_id = "boot"
        self.heard: list[StartSampling | StopSampling] = []
        self.batches: dict[str, int] = {}  # recorded, by session
        self.acked: dict[str, int] = {}
        self.kept: set[str] = set()  # sessions whose data is here
        self.running: dict[str, Any] = {}  # stage of sessions that it samples
        self.ended: set[str] = set()


class KeptSessions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.sessions = Path(self.folder.name)
        self.now_ns = 10**9
        self.present: dict[str, Presence] = {}
        self.agents = {host: Agent(host) for host in HOSTS}
        self.promised: set[str] = set()  # sessions that somebody was told of
        self.asked = 0
        self.looks, self.fails = 1, False
        self.up()

    def teardown(self) -> None:
        try:
            self.finish_all()
        finally:
            self.keeper.close()
            self.store.close()
            self.folder.cleanup()

    # --- the director --------------------------------------------------------------------------------------------

    def up(self) -> None:
        self.store = FleetStore(lambda text: None, lambda session, host: self.whole.append((session, host)))
        self.whole: list[tuple[str, str]] = []
        around = Surroundings(
            store=self.store,
            send=self.send,
            tell=lambda text: None,
            bounds=BOUNDS,
            clocks=ClockSync("director's boot", lambda text: None),
            finish=lambda session: FinishedWork(session, self.looks, self.fails),
            find_ranges=lambda session: FoundRanges(session, self.looks, self.fails),
        )
        self.keeper = SessionKeeper(self.sessions, around, lambda: self.now_ns)

    def send(self, host: str, message: FromDirector) -> None:
        if isinstance(message, (StartSampling, StopSampling)):
            state = load_manifest(self.sessions / message.session).fleet
            assert state is not None
            ends = state.state in ("stopping", "collecting", "ingesting", "complete")
            assert ends == isinstance(message, StopSampling), "what is asked is durable before"
            if host in self.present and not self.present[host].silent:
                self.agents[host].heard.append(message)

    def answered(self, answer: SessionAnswer) -> None:
        if answer.state != "refused":
            assert answer.session is not None
            fleet = load_manifest(self.sessions / answer.session).fleet
            assert fleet is not None, "what is told is durable before"
            if answer.state == "complete":
                assert fleet.state in ("complete", "ingesting")
            elif answer.state == "measuring":
                assert fleet.state in ("ranging", "measuring")
            self.promised.add(answer.session)

    def turn(self) -> None:
        for session, host in self.whole:
            self.keeper.handed_over(session, host)
        self.whole.clear()
        self.keeper.turn(self.present)

    # --- what may come about -------------------------------------------------------------------------------------

    @initialize(looks=st.integers(1, 3))
    def begin(self, looks: int) -> None:
        self.looks = looks
        for host in HOSTS:
            self.hello(host)

    @rule(chosen=st.sets(hosts, min_size=1), ranging=st.booleans(), by=st.sampled_from((LOCAL, *HOSTS)))
    def start(self, chosen: set[str], ranging: bool, by: str) -> None:
        self.asked += 1
        stages: list[Any] = ["ranging", "testing"] if ranging else []
        request = SessionRequest(request=f"r{self.asked}", want="start", hosts=sorted(chosen), stages=stages)
        self.keeper.ask(by, by, request, self.answered)
        self.keeper.ask(by, by, request, self.answered)  # repeated harmlessly

    @rule(data=st.data(), want=st.sampled_from(("stop", "stop", "next", "state")))
    def change(self, data: st.DataObject, want: Any) -> None:
        names = sorted(self.promised) or ["nothing"]
        request = SessionRequest(request="x", want=want, session=data.draw(st.sampled_from(names)))
        self.keeper.ask(LOCAL, b"route", request, self.answered)

    @rule(host=hosts, acts=st.lists(st.sampled_from(OFTEN_DONE), min_size=1, max_size=5))
    def act(self, host: str, acts: list[str]) -> None:
        for what in acts:
            getattr(self, what)(host)

    @rule()
    def all_act(self) -> None:
        """As they mostly do."""
        self.turn()
        for host in HOSTS:
            for what in ("obey", "record", "hand_over"):
                getattr(self, what)(host)
        self.turn()

    @rule(seconds=st.sampled_from((0.1, 1.0, 3.0, 31.0, 100.0)), turns=st.integers(1, 3))
    def time_passes(self, seconds: float, turns: int) -> None:
        for _ in range(turns):
            self.now_ns += round(seconds * 1e9 / turns)
            self.turn()

    def obey(self, host: str) -> None:
        agent = self.agents[host]
        for message in agent.heard:
            name = message.session
            if isinstance(message, StartSampling) and name not in agent.ended:
                agent.kept.add(name)
                agent.running[name] = message.stage
            elif isinstance(message, StopSampling):
                agent.running.pop(name, None)
                agent.ended.add(name)
            state: Any = "sampling" if name in agent.running else "stopped"
            stage = agent.running.get(name, "testing")
            self.keeper.hear(host, SamplingState(session=name, stage=stage, state=state, t_ns=1))
        agent.heard.clear()

    def fail(self, host: str) -> None:
        agent = self.agents[host]
        for name in list(agent.running):
            del agent.running[name]
            agent.ended.add(name)
            state = SamplingState(session=name, stage="testing", state="failed", t_ns=1, problems=["broken"])
            self.keeper.hear(host, state)

    def record(self, host: str) -> None:
        for name in self.agents[host].running:
            self.agents[host].batches[name] = self.agents[host].batches.get(name, 0) + 1

    def hand_over(self, host: str) -> None:
        """All that is not acknowledged goes over, and the end where it has ended."""
        agent = self.agents[host]
        for name in sorted(agent.kept):
            messages: list[Any] = [StreamsDeclared(session=name, host=host, streams=[made_stream()])]
            for seq in range(agent.acked.get(name, 0) + 1, agent.batches.get(name, 0) + 1):
                payload = made_rows(made_stream(), seq, 1)
                messages.append(
                    BatchFrame(
                        session=name,
                        host=host,
                        seq=seq,
                        previous=seq - 1,
                        stream=0,
                        rows=1,
                        crc32=zlib.crc32(payload),
                        payload=payload,
                    )
                )
            if name in agent.ended:
                messages.append(HandOver(session=name, host=host, last_seq=agent.batches.get(name, 0), tables=0))
            answers: list[Any] = [self.store.take(host.encode(), message) for message in messages]
            answers += [reply for _, reply in self.store.commit()]
            for answer in answers:
                if isinstance(answer, Ack) and answer.session == name:
                    agent.acked[name] = max(answer.seq, agent.acked.get(name, 0))
                    if answer.whole:
                        assert name in agent.ended, "nothing is whole before its end"
                        agent.acked[name] = agent.batches.get(name, 0)
                        agent.kept.discard(name)

    def hello(self, host: str) -> None:
        """It is started, or started again."""
        agent = self.agents[host]
        agent.starts += 1
        agent.heard.clear()
        self.present[host] = Presence(f"{host}{agent.starts}", agent.boot_id)
        unsent = sorted(agent.kept - agent.running.keys())
        hello = Hello(
            host=host,
            agent=f"{host}{agent.starts}",
            boot_id=agent.boot_id,
            tool_version="1",
            recording=sorted(agent.running),
            unsent=unsent,
        )
        self.keeper.hear(host, hello)
        for name, stage in agent.running.items():
            self.keeper.hear(host, SamplingState(session=name, stage=stage, state="sampling", t_ns=1))
        for name in unsent:
            self.keeper.hear(host, SamplingState(session=name, stage="testing", state="stopped", t_ns=1))

    def reboot(self, host: str) -> None:
        agent = self.agents[host]
        agent.boot_id += "*"
        agent.ended |= agent.running.keys()
        agent.running.clear()
        self.hello(host)

    def vanish(self, host: str) -> None:
        if host in self.present:
            self.present[host] = msgspec_silent(self.present[host])

    @rule(again=st.sets(hosts), flush=st.booleans())
    def crash(self, again: set[str], flush: bool) -> None:
        """The director dies, and the next one starts. The kernel lets go of what it held."""
        if flush:
            self.store.commit()
        for kept in self.keeper.sessions().values():
            kept.folder.release()
        self.store.close()
        self.present.clear()
        self.up()
        for host in sorted(again):
            self.hello(host)

    @rule(data=st.data(), fails=st.booleans())
    def trouble(self, data: st.DataObject, fails: bool) -> None:
        """Results fail from now on, or not; and no manifest of a session can be written for some time."""
        self.fails = fails
        if not self.promised:
            return
        path = self.sessions / data.draw(st.sampled_from(sorted(self.promised))) / "manifest.json.part"
        with suppress(OSError):
            path.mkdir()
            with suppress(OSError):
                (path.parent / "spool" / "reserve").unlink()
            self.time_passes(31.0, 3)
            path.rmdir()

    # --- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def a_host_is_in_one_session(self) -> None:
        running: list[str] = []
        for kept in self.keeper.sessions().values():
            if kept.state in ("preparing", "ranging", "ranged", "measuring", "stopping"):
                running += kept.session.hosts
        assert len(running) == len(set(running))

    def finish_all(self) -> None:
        """Everything works again, and everybody is asked to end: all is complete, and all that was taken is there."""
        self.fails = False
        for host in HOSTS:
            self.hello(host)
        for name in sorted(self.promised):
            self.keeper.ask(LOCAL, b"end", SessionRequest(request="e", want="stop", session=name), self.answered)
        for _ in range(60):
            self.time_passes(100.0, 3)
            for host in HOSTS:
                self.obey(host)
                self.hand_over(host)
        for name in self.promised:
            manifest = load_manifest(self.sessions / name)
            fleet = manifest.fleet
            assert fleet is not None and fleet.state == "complete" and manifest.state == "complete"
            states = [transition.state for transition in fleet.transitions]
            for before, after in itertools.pairwise(states):
                assert after in NEXT[before], states
            assert all(span.end_ns is not None and span.end_ns >= span.begin_ns for span in fleet.spans)
        for host, agent in self.agents.items():
            assert agent.kept == set(), "all was handed over"
            for name, count in agent.batches.items():
                assert read_instants(spool_path(self.sessions / name, host)) == list(range(1, count + 1))


def msgspec_silent(presence: Presence) -> Presence:
    return Presence(presence.agent, presence.boot_id, silent=True)


KeptSessions.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestKeptSessions = KeptSessions.TestCase


@pytest.mark.long
def test_kept_sessions_at_length() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        KeptSessions,
        settings=settings(
            max_examples=2000, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


class Kept:
    """A keeper with its store, and what it told and sent."""

    def __init__(self, folder: Path) -> None:
        self.told: list[str] = []
        self.now_ns = 0
        self.store = FleetStore(lambda text: None)
        around = Surroundings(
            store=self.store,
            send=lambda host, message: None,
            tell=self.told.append,
            bounds=BOUNDS,
            clocks=ClockSync("director's boot", lambda text: None),
            finish=lambda session: FinishedWork(session, 1, False),
            find_ranges=lambda session: FoundRanges(session, 1, False),
        )
        self.keeper = SessionKeeper(folder, around, lambda: self.now_ns)

    def turn(self, present: dict[str, Presence]) -> None:
        self.now_ns += 10**9
        self.keeper.turn(present)

    def close(self) -> None:
        self.keeper.close()
        self.store.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.close()


def test_two_agents_that_speak_under_one_name_are_not_told_of_for_ever(kept: Kept) -> None:
    for turn in range(50):
        kept.turn({"a": Presence(f"agent {turn % 2}", "boot")})
    assert kept.told[:4] == ["a is here", *["a: its agent was started again"] * 3]
    assert len(kept.told) == 5 and "two agents speak under this name" in kept.told[4]


def test_a_host_that_brings_sessions_without_end_leaves_room_for_others(kept: Kept) -> None:
    present = {host: Presence("x", "boot") for host in ("greedy", "honest")}
    of = {"agent": "x", "boot_id": "boot", "tool_version": "1"}
    for turn in range(20):
        unsent = [f"made-up-{turn}-{number}" for number in range(1000)]
        kept.keeper.hear("greedy", Hello(host="greedy", unsent=unsent, **of))
        if turn == 10:
            kept.keeper.hear("honest", Hello(host="honest", unsent=["mine"], **of))
        kept.turn(present)
    hosts = [session.session.hosts for session in kept.keeper.sessions().values()]
    assert hosts.count(["greedy"]) == 10
    assert "mine" in kept.keeper.sessions()


def test_a_session_that_cannot_be_used_stops_no_director(tmp_path: Path) -> None:
    first = Kept(tmp_path)
    request = SessionRequest(request="r", want="start", hosts=["a"], label="x")
    first.keeper.ask(LOCAL, b"", request, lambda answer: None)
    (name,) = first.keeper.sessions()
    first.close()
    shutil.rmtree(tmp_path / name / "spool")
    (tmp_path / name / "spool").write_text("no folder")
    second = Kept(tmp_path)
    assert second.keeper.sessions() == {}
    assert any("does not go on" in text for text in second.told)
    second.keeper.ask(LOCAL, b"", request, lambda answer: None)
    assert len(second.keeper.sessions()) == 1
    second.close()


def test_whoever_asked_last_hears_of_the_end(kept: Kept) -> None:
    """However many asked before, and are gone."""
    request = SessionRequest(request="r", want="start", hosts=["a"])
    kept.keeper.ask(LOCAL, b"", request, lambda answer: None)
    (name,) = kept.keeper.sessions()
    heard: list[str] = []
    for number in range(150):
        look = SessionRequest(request=f"look {number}", want="state", session=name)
        kept.keeper.ask(LOCAL, b"%d" % number, look, lambda answer: heard.append(answer.request))
    heard.clear()
    kept.keeper.ask(LOCAL, b"", SessionRequest(request="e", want="stop", session=name), lambda answer: None)
    kept.turn({})
    assert "look 149" in heard and "look 0" not in heard


def test_the_directors_clock_is_recorded_again_when_the_disk_has_room(kept: Kept, tmp_path: Path) -> None:
    request = SessionRequest(request="r", want="start", hosts=["a"])
    kept.keeper.ask(LOCAL, b"", request, lambda answer: None)
    (session,) = kept.keeper.sessions().values()
    path = spool_path(session.folder.path, session.session.fleet.director_host)
    path.mkdir()
    for _ in range(3):
        kept.turn({})
    assert sum("wall clock is not recorded" in text for text in kept.told) == 1
    path.rmdir()
    path.touch()  # as where it could not be filled
    kept.turn({})
    reader = SpoolReader(path)
    assert len(reader.clock()) == 1
    reader.close()
