"""What an agent does when things go wrong around it: kills, full disks, reboots, strangers, noise, wrong keys."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

zmq = pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from agent_site import HOST, Site, kill_sampler, sampler_pid  # noqa: E402
from made_spool import MadeSpool, read_instants  # noqa: E402
from scripted_director import instants, wait_for  # noqa: E402
from test_agent_run import ended, start  # noqa: E402

from power_agent.service.bulk_sender import BulkSender  # noqa: E402
from power_agent.service.control_link import ControlLink  # noqa: E402
from power_agent.service.session_folder import SessionFolder, SessionRecord  # noqa: E402
from power_agent.wire.frames import MAX_FRAME_BYTES, encode, from_agent  # noqa: E402
from power_agent.wire.keys import Keyring, make_secret, write_pin  # noqa: E402
from power_agent.wire.messages import (  # noqa: E402
    Heartbeat,
    Hello,
    Refused,
    SamplingState,
    SessionAnswer,
    StopSampling,
    Welcome,
    WorkloadEvent,
)
from power_agent.wire.sockets import connect  # noqa: E402

UNSAVED_NS = 1_000_000_000  # what a killed sampler may have held in memory


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


def problems(site: Site) -> str:
    return "\n".join(text for d in site.directors for m in d.of(SamplingState) for text in m.problems)  # type: ignore[attr-defined]


def assert_only_lost(site: Site, kills_ns: list[tuple[int, int]]) -> None:
    """All that was read is stored once and in order, but for what a kill (killed at, sampled again at) may take."""
    stored = instants(site.directors[-1].folder / "s1" / "spool" / f"{HOST}.sqlite")["fake.power"]
    assert stored == sorted(set(stored)), "nothing twice"
    read = site.journaled()
    assert set(stored) <= set(read)
    for lost_ns in set(read) - set(stored):
        assert any(killed_ns - UNSAVED_NS <= lost_ns <= again_ns for killed_ns, again_ns in kills_ns)


def run_kills(site: Site, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    director = site.direct()
    agent = site.serve()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    director.start_session(HOST, "s1")
    wait_for(lambda: director.store.readings_rows > 0, "readings arrive")
    spool = site.state / "s1" / f"{HOST}.sqlite"
    kills_ns = []
    for _ in range(rounds):
        time.sleep(chance.uniform(0.0, 1.0))
        both = chance.random() < 0.5
        hellos = len(director.of(Hello))
        agent.kill()
        killed_ns = time.monotonic_ns()
        if both:
            kill_sampler(spool)
        agent.wait()
        read = len(site.journaled())
        agent = site.serve()
        wait_for(lambda hellos=hellos: len(director.of(Hello)) > hellos, "the next one says Hello")
        wait_for(lambda read=read: len(site.journaled()) > read + 3, "it samples")
        if both:
            kills_ns.append((killed_ns, time.monotonic_ns()))
    director.stop_session(HOST, "s1")
    wait_for(lambda: not (site.state / "s1").exists(), "all is handed over")
    assert_only_lost(site, kills_ns)


def test_kills_lose_at_most_what_a_sampler_held_in_memory(site: Site) -> None:
    run_kills(site, 3, 4)


@pytest.mark.long
def test_fifty_kills_lose_at_most_what_a_sampler_held_in_memory(site: Site) -> None:
    run_kills(site, 50, 5)


def test_a_sampler_that_is_killed_is_started_again(site: Site) -> None:
    director = site.direct()
    site.serve()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    director.start_session(HOST, "s1")
    wait_for(lambda: director.store.readings_rows > 0, "readings arrive")
    killed_ns = time.monotonic_ns()
    kill_sampler(site.state / "s1" / f"{HOST}.sqlite")
    wait_for(lambda: "was started again" in problems(site), "it is told")
    director.stop_session(HOST, "s1")
    wait_for(lambda: not (site.state / "s1").exists(), "all is handed over")
    assert_only_lost(site, [(killed_ns, time.monotonic_ns())])
    log = director.folder / "s1" / "logs" / HOST / "agent.log"
    assert "the sampler died" in log.read_text()


def test_a_full_disk_keeps_what_is_there(site: Site) -> None:
    director = site.direct()
    site.serve("--rate", "fake=500")
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    director.start_session(HOST, "s1")
    wait_for(lambda: director.store.readings_rows > 100, "readings arrive")
    spool = site.state / "s1" / f"{HOST}.sqlite"
    wal = spool.with_name(spool.name + "-wal")
    resource.prlimit(sampler_pid(spool), resource.RLIMIT_FSIZE, (wal.stat().st_size, wal.stat().st_size))
    read = len(site.journaled())
    wait_for(lambda: len(site.journaled()) > read + 1000, "sampling goes on")
    director.stop_session(HOST, "s1")
    wait_for(lambda: "is the disk full?" in problems(site), "it is told")
    wait_for(lambda: not (site.state / "s1").exists(), "what there is is handed over")
    stored = instants(director.folder / "s1" / "spool" / f"{HOST}.sqlite")["fake.power"]
    assert stored == site.journaled()[: len(stored)] and len(stored) > 100


def test_no_room_to_begin_is_told(site: Site) -> None:
    director = site.direct()
    agent = site.serve()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    limit = resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    director.start_session(HOST, "s1")
    wait_for(lambda: director.states("s1") == ["failed"], "it is told")
    assert "cannot record: File too large" in problems(site)
    resource.prlimit(agent.pid, resource.RLIMIT_FSIZE, limit)
    director.start_session(HOST, "s1")
    wait_for(lambda: "sampling" in director.states("s1"), "asked again, it samples")


def test_a_session_that_a_reboot_ended_is_handed_over_and_not_gone_on_with(site: Site) -> None:
    site.state.mkdir()
    marks = site.run_dir / "s1"
    record = SessionRecord(session="s1", host=HOST, stage="testing", boot_id="another", marks=str(marks))
    folder = SessionFolder.create(site.state, record)
    MadeSpool(folder.spool).add(5)
    director = site.direct()
    site.serve()
    wait_for(lambda: not folder.path.exists(), "it is handed over")
    (hello,) = director.of(Hello)
    assert isinstance(hello, Hello) and (hello.recording, hello.unsent) == ([], ["s1"])
    assert director.states("s1") == ["stopped"] and "the machine was started anew" in problems(site)
    assert read_instants(director.folder / "s1" / "spool" / f"{HOST}.sqlite") == list(range(35))


def test_what_cannot_be_sampled_is_told_and_the_rest_is(site: Site) -> None:
    director = site.direct()
    site.serve("--driver", "no-such-driver", "--root", "/nowhere")
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    (site.state / "s1" / "x").mkdir(parents=True)  # nobody's: it is in the way
    director.start_session(HOST, "s1")
    wait_for(lambda: director.states("s1") == ["failed"], "it is told")
    director.start_session(HOST, "s2")
    wait_for(lambda: "sampling" in director.states("s2"), "others are sampled")
    states = [m for m in director.of(SamplingState) if isinstance(m, SamplingState) and m.state == "sampling"]
    assert {state.driver: state.usable for state in states[0].drivers} == {"fake": True, "no-such-driver": False}


def test_a_wrong_key_does_not_stop_the_job(site: Site) -> None:
    keys = site.folder / "cfg" / "power-agent"
    own = make_secret(site.folder / "director.secret")
    make_secret(keys / "agent.secret")
    write_pin(keys, str(site.address), own.public)
    director = site.direct(own=own, keyring=Keyring(site.folder / "agents"))
    status, output, errors = ended(start(site))
    assert (status, output) == (3, b"to stdout\n")
    assert "no director answers" in errors
    assert any("is not known here" in text for text in director.told) and director.heard == []


def test_a_pinned_key_is_let_in(site: Site) -> None:
    keys = site.folder / "cfg" / "power-agent"
    own, agent = make_secret(site.folder / "director.secret"), make_secret(keys / "agent.secret")
    write_pin(keys, str(site.address), own.public)
    Keyring(site.folder / "agents").add(HOST, agent.public)
    director = site.direct(own=own, keyring=Keyring(site.folder / "agents"))
    status, output, errors = ended(start(site))
    assert (status, output) == (3, b"to stdout\n") and "warning" not in errors
    assert instants(next(director.folder.glob("*/spool/*.sqlite")))["fake.power"] == site.journaled()


def test_another_agent_in_the_same_folders_is_refused(site: Site) -> None:
    director = site.direct()
    site.serve()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    assert site.serve().wait(30) == 1
    assert site.serve("--state", str(site.folder / "other")).wait(30) == 1
    assert "another agent keeps its recordings in" in site.told() and "another agent serves in" in site.told()


def test_a_refused_agent_asks_again(site: Site) -> None:
    context = zmq.Context()
    fake = context.socket(zmq.ROUTER)
    fake.rcvtimeo = 20_000
    fake.bind(site.address.endpoint(0))
    site.serve()
    route, frame = fake.recv_multipart()
    assert isinstance(from_agent.decode(frame), Hello)
    fake.send_multipart([route, encode(Refused(reason="not today"))])
    wait_for(lambda: "the director refuses this agent: not today" in site.told(), "it is told")
    context.destroy(linger=0)
    director = site.direct()
    wait_for(lambda: director.of(Hello), "it asks again")


def test_noise_from_a_director_harms_nothing(site: Site) -> None:
    context = zmq.Context()
    fake = context.socket(zmq.ROUTER)
    fake.rcvtimeo = 20_000
    fake.sndhwm = 0  # nothing is dropped on our side
    fake.bind(site.address.endpoint(0))
    agent = site.serve()
    route, _ = fake.recv_multipart()
    chance = random.Random(1)
    good = [
        encode(Welcome(director="d", boot_id="b")),
        encode(Heartbeat(t_ns=1)),
        encode(StopSampling(session="../../etc")),  # a name that this side would refuse to send
        encode(StopSampling(session="s")),
        encode(SessionAnswer(request="r", state="complete", session="s", report="x" * 100)),
        encode(Refused(reason="go")),
    ]
    fake.send_multipart([route, good[0]])
    for _ in range(3000):
        frame = bytearray(chance.choice(good))
        for _ in range(chance.randint(0, 3)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        fake.send_multipart([route, bytes(frame)])
    fake.send_multipart([route, good[0]])  # or what it has learnt of heartbeats decides when it looks for another
    context.destroy(linger=20_000)
    director = site.direct()
    wait_for(lambda: director.of(Hello), "it looks for a director again")
    director.start_session(HOST, "s1")
    wait_for(lambda: "sampling" in director.states("s1"), "it works on")
    assert agent.poll() is None and "a mistake of this program" not in site.told()
    assert sorted(path.name for path in site.state.iterdir()) == ["s1"]


def test_messages_of_several_parts_harm_nothing(site: Site) -> None:
    """A connection that ends between two parts aborts libzmq, if it is read on after the first one."""
    agent = site.serve()
    for _ in range(3):
        context = zmq.Context()
        fake = context.socket(zmq.ROUTER)
        fake.rcvtimeo = 20_000
        fake.sndhwm = 0
        fake.bind(site.address.endpoint(0))
        route, _ = fake.recv_multipart()
        for _ in range(2000):
            fake.send_multipart([route, b"a", b"b", b"c"])
        context.destroy(linger=1000)
    director = site.direct()
    wait_for(lambda: director.of(Hello), "it looks for a director again")
    assert agent.poll() is None


def test_who_sends_too_long_a_message_is_not_given_up_for_good(site: Site) -> None:
    """ZeroMQ itself would never connect to that address again."""
    context: zmq.Context[Any] = zmq.Context()
    sockets = connect(context, site.address, None, None, renew_s=0.5)
    link = ControlLink(
        sockets.control,
        hello=lambda: Hello(host=HOST, agent="a", boot_id="b", tool_version="1"),
        heartbeat=lambda: Heartbeat(t_ns=1),
        on_message=lambda message: None,
        retell=list,
        tell=lambda text: None,
        unanswered="",
    )
    bulk = BulkSender(sockets.bulk, HOST)
    spool = MadeSpool(site.folder / f"{HOST}.sqlite")
    spool.add(3)
    bulk.add("s", spool.writer.path, {})
    bulk.finish("s")
    theirs: zmq.Context[Any] = zmq.Context()
    fakes = [theirs.socket(zmq.ROUTER) for _ in range(2)]
    for offset, fake in enumerate(fakes):
        fake.rcvtimeo = 20_000
        fake.bind(site.address.endpoint(offset))
    link.start()
    bulk.start()
    for fake in fakes:
        route, _ = fake.recv_multipart()
        fake.send_multipart([route, bytes(MAX_FRAME_BYTES + 1)])
    theirs.destroy(linger=20_000)
    director = site.direct()
    director.admit("s")
    wait_for(lambda: director.of(Hello), "it says Hello all the same")
    wait_for(lambda: bulk.is_whole("s"), "it hands over all the same")
    link.close()
    bulk.close()
    context.destroy(linger=0)


def test_noise_from_users_of_this_host_harms_nothing(site: Site) -> None:
    director = site.direct()
    agent = site.serve()
    wait_for(lambda: director.of(Hello), "the agent says Hello")
    chance = random.Random(2)
    idle = []
    for number in range(150):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(site.run_dir / "agent.sock"))
        content = chance.randbytes(chance.randint(0, 300))
        with contextlib.suppress(OSError):  # it has hung up already
            connection.sendall(content if number % 2 else len(content).to_bytes(4, "big") + content)
        if number < 30:
            idle.append(connection)  # and says nothing more
        else:
            connection.close()
    assert agent.poll() is None
    for connection in idle:
        connection.close()
    status, output, _ = ended(start(site))
    assert (status, output) == (3, b"to stdout\n")
    wait_for(lambda: not [path for path in site.state.iterdir() if path.is_dir()], "all is handed over")


def test_an_agent_of_ones_own_ends_with_the_job_that_it_was_started_for(site: Site) -> None:
    director = site.direct()
    process = start(site, job="echo $$; exec sleep 600")
    assert process.stdout is not None
    job = int(process.stdout.readline())
    wait_for(lambda: director.of(WorkloadEvent), "the agent knows the job")
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.kill(job, 0)
    read = len(site.journaled())
    wait_for(lambda: len(site.journaled()) > read + 10, "the job is measured on")
    os.kill(job, signal.SIGKILL)
    wait_for(lambda: not (site.run_dir / "agent.sock").exists(), "the agent ends after the job")
    spool = next(director.folder.glob("*/spool/*.sqlite"))
    assert instants(spool)["fake.power"] == site.journaled()
