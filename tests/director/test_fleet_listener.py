from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from made_spool import MadeSpool, read_instants

zmq = pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from scripted_director import DEADLINE_S, free_ports, wait_for  # noqa: E402

from director.fleet.listener import Listener  # noqa: E402
from director.fleet.peer_limits import MUTE_AFTER, MUTE_S, PeerLimits  # noqa: E402
from director.fleet.store import FleetStore  # noqa: E402
from power_agent.service.bulk_sender import BulkSender  # noqa: E402
from power_agent.wire import frames  # noqa: E402
from power_agent.wire.frames import MAX_FRAME_BYTES, encode  # noqa: E402
from power_agent.wire.keys import KeyPair, Keyring, make_secret  # noqa: E402
from power_agent.wire.messages import (  # noqa: E402
    Ack,
    ClockAsk,
    ClockExchange,
    Credit,
    FromAgent,
    Heartbeat,
    Hello,
    Refused,
    StartSampling,
    StreamsDeclared,
    Welcome,
)
from power_agent.wire.sockets import Address, AddressProblem, AgentSockets, connect  # noqa: E402


class Director:
    """A listener with its store, and what it told."""

    def __init__(self, folder: Path, own: KeyPair | None = None, keyring: Keyring | None = None) -> None:
        self.address = Address("127.0.0.1", free_ports())
        self.folder = folder / "session"
        self.folder.mkdir(exist_ok=True)
        self.told: list[str] = []
        self.heard: list[tuple[str, FromAgent]] = []
        self.exchanges: list[tuple[str, ClockExchange]] = []
        self.store = FleetStore(self.told.append)
        self.store.admit("s", self.folder)
        self.listener = Listener(
            self.address,
            self.store,
            own=own,
            keyring=keyring,
            on_control=self._hear,
            on_exchange=lambda host, exchange: self.exchanges.append((host, exchange)),
            tell=self.told.append,
        )
        self.listener.start()
        self.context: zmq.Context[Any] = zmq.Context()

    def _hear(self, host: str, message: FromAgent) -> list[Any]:
        if isinstance(message, Heartbeat) and message.unsent_bytes == 666:
            raise RuntimeError("a handler's mistake")
        self.heard.append((host, message))
        return []

    def connect(self, own: KeyPair | None = None, director: bytes | None = None) -> AgentSockets:
        return connect(self.context, self.address, own, director)

    def close(self) -> None:
        self.context.destroy(linger=0)
        self.listener.close()
        self.store.close()


@pytest.fixture
def director(tmp_path: Path) -> Iterator[Director]:
    made = Director(tmp_path)
    yield made
    made.close()


def hello(host: str = "node0", **more: Any) -> Hello:
    return Hello(**{"host": host, "agent": "a", "boot_id": "b", "tool_version": "1", **more})


def ask(sockets: AgentSockets, message: Any) -> Any:
    """Send on the control socket; the answer."""
    assert sockets.control.raw.poll(int(DEADLINE_S * 1000), zmq.POLLOUT)
    sockets.control.raw.send(encode(message))
    return answer(sockets)


def answer(sockets: AgentSockets) -> Any:
    assert sockets.control.raw.poll(int(DEADLINE_S * 1000)), "no answer"
    return frames.from_director.decode(sockets.control.raw.recv())


def is_served(director: Director) -> bool:
    """Whether a new agent is welcomed."""
    sockets = director.connect()
    try:
        return isinstance(ask(sockets, hello("honest", agent=str(random.random()))), Welcome)
    finally:
        sockets.close()


def test_an_agent_is_welcomed_and_heard(director: Director) -> None:
    agent = director.connect()
    assert isinstance(ask(agent, Heartbeat(t_ns=1)), Refused), "Hello comes first"
    assert isinstance(ask(agent, hello()), Welcome)
    assert isinstance(ask(agent, Heartbeat(t_ns=1, unsent_bytes=5)), Heartbeat)
    heartbeat = director.listener.agents()["node0"].heartbeat
    assert heartbeat is not None and heartbeat.unsent_bytes == 5
    assert director.listener.send("node0", StartSampling(session="s"))
    assert answer(agent) == StartSampling(session="s")
    assert not director.listener.send("node1", StartSampling(session="s"))


def test_another_version_and_another_machine_of_that_name_are_refused(director: Director) -> None:
    one, two = director.connect(), director.connect()
    refused = ask(one, hello(protocol=99))
    assert isinstance(refused, Refused) and "version 99" in refused.reason
    assert isinstance(ask(one, hello()), Welcome)
    refused = ask(two, hello(boot_id="another"))
    assert isinstance(refused, Refused) and "--host NAME" in refused.reason
    assert isinstance(ask(two, hello(agent="restarted")), Welcome), "the same machine may start it again"


def test_a_handlers_mistake_ends_nothing(director: Director) -> None:
    agent = director.connect()
    assert isinstance(ask(agent, hello()), Welcome)
    assert isinstance(ask(agent, Heartbeat(t_ns=1, unsent_bytes=666)), Heartbeat)
    assert isinstance(ask(agent, Heartbeat(t_ns=1)), Heartbeat)
    assert any("could not be handled" in text for text in director.told)


def test_clocks_are_answered_and_exchanges_told(director: Director) -> None:
    agent = director.connect()
    exchange = ClockExchange(t1_ns=1, t2_ns=2, t3_ns=3, t4_ns=4)
    agent.clock.raw.poll(int(DEADLINE_S * 1000), zmq.POLLOUT)
    before_ns = time.monotonic_ns()
    agent.clock.raw.send(encode(ClockAsk(host="node0", number=7, t1_ns=before_ns, last=exchange)))
    assert agent.clock.raw.poll(int(DEADLINE_S * 1000))
    told = frames.clock_from_director.decode(agent.clock.raw.recv())
    assert told.number == 7 and before_ns == told.t1_ns <= told.t2_ns <= told.t3_ns <= time.monotonic_ns()
    wait_for(lambda: director.exchanges == [("node0", exchange)], "the exchange is told")


def test_a_spool_goes_over_while_it_grows(director: Director, tmp_path: Path) -> None:
    spool = MadeSpool(tmp_path / "agent" / "node0.sqlite", channels=8)
    agent = director.connect()
    sender = BulkSender(agent.bulk, "node0")
    sender.add("s", spool.writer.path, {})
    sender.start()
    replica = director.folder / "spool" / "node0.sqlite"
    for _ in range(5):
        spool.add(20)
        wait_for(lambda: replica.is_file() and director.store.readings_rows >= spool.rows, "what was recorded arrives")
    sender.finish("s")
    wait_for(lambda: sender.is_whole("s"), "all is handed over")
    sender.close()
    assert read_instants(replica) == list(range(spool.rows))


def test_a_session_that_is_not_here_yet_is_handed_over_later(director: Director, tmp_path: Path) -> None:
    spool = MadeSpool(tmp_path / "agent" / "node0.sqlite")
    spool.add(3)
    sender = BulkSender(director.connect().bulk, "node0")
    sender.add("later", spool.writer.path, {})
    sender.start()
    wait_for(lambda: any("no session later" in text for text in sender.problems()), "it is refused")
    (tmp_path / "later").mkdir()
    director.store.admit("later", tmp_path / "later")
    sender.finish("later")
    wait_for(lambda: sender.is_whole("later"), "it is taken now")
    sender.close()
    assert read_instants(tmp_path / "later" / "spool" / "node0.sqlite") == list(range(21))


def test_only_pinned_keys_come_in(tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "agents")
    own = make_secret(tmp_path / "director.secret")
    known, stranger = make_secret(tmp_path / "a.secret"), make_secret(tmp_path / "b.secret")
    keyring.add("node0", known.public)
    director = Director(tmp_path, own, Keyring(tmp_path / "agents"))
    try:
        bad = director.connect(stranger, own.public)
        bad.control.raw.poll(500, zmq.POLLOUT)
        good = director.connect(known, own.public)
        assert isinstance(ask(good, hello()), Welcome)
        wait_for(lambda: any(stranger.public.hex() in text for text in director.told), "the stranger is told of")
        assert not bad.control.raw.poll(0, zmq.POLLOUT), "no connection"
        plain = director.connect()
        assert not plain.control.raw.poll(500, zmq.POLLOUT), "no connection without CURVE"
        # A key speaks for its own name alone, and not after it was removed.
        good.control.raw.send(encode(hello("node9")))
        wait_for(lambda: director.listener.bad_frames == 1, "another's name is refused")
        assert "node9" not in director.listener.agents()
        keyring.remove("node0")
        good.control.raw.send(encode(Heartbeat(t_ns=1)))
        wait_for(lambda: director.listener.bad_frames == 2, "a removed key is not heard")
    finally:
        director.close()


def test_an_agent_whose_key_is_added_after_it_was_refused_comes_in(tmp_path: Path) -> None:
    """ZeroMQ itself never tries again after a refused key, and no connection is renewed here for want of a director."""
    keyring = Keyring(tmp_path / "agents")
    own, late = make_secret(tmp_path / "director.secret"), make_secret(tmp_path / "a.secret")
    director = Director(tmp_path, own, Keyring(tmp_path / "agents"))
    agent = connect(director.context, director.address, late, own.public, renew_s=3600.0)

    def connected() -> bool:
        links = (agent.control, agent.bulk, agent.clock)
        for link in links:
            link.keep()
        return all(link.is_connected for link in links)

    try:
        wait_for(lambda: connected() or any(late.public.hex() in text for text in director.told), "it is refused")
        keyring.add("node0", late.public)
        wait_for(connected, "it is let in")
        assert isinstance(ask(agent, hello()), Welcome)
    finally:
        agent.close()
        director.close()


def test_a_director_off_loopback_needs_keys(tmp_path: Path) -> None:
    with pytest.raises(AddressProblem, match="power-director keys init"):
        Listener(
            Address("0.0.0.0", 5570),
            FleetStore(print),
            own=None,
            keyring=None,
            on_control=lambda host, message: [],
            on_exchange=lambda host, exchange: None,
            tell=print,
        )


def test_limits_of_a_peer() -> None:
    limits = PeerLimits(per_s=10, burst=5)
    assert [limits.allows(b"a", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert limits.allows(b"b", 0.0), "another one is not touched"
    assert limits.allows(b"a", 0.1) and not limits.allows(b"a", 0.1)
    assert [limits.note_bad(b"b", 1.0) for _ in range(MUTE_AFTER)] == [False] * (MUTE_AFTER - 1) + [True]
    assert not limits.allows(b"b", 1.0 + MUTE_S - 0.1) and limits.allows(b"b", 1.0 + MUTE_S + 0.1)
    assert limits.dropped == 4


def attack(director: Director, count: int, seed: int) -> None:
    """Throw `count` frames at all three ports: noise, good messages that were changed, many parts, and torn TCP."""
    chance = random.Random(seed)
    declared = StreamsDeclared(session="s", host="evil", streams=[])
    good = [
        encode(hello("evil")),
        encode(Heartbeat(t_ns=1)),
        encode(declared),
        encode(ClockAsk(host="e", number=1, t1_ns=1)),
    ]
    sockets = director.connect()
    for number in range(count):
        raws = [one.raw for one in (sockets.control, sockets.bulk, sockets.clock)]
        target = chance.choice(raws)
        frame = bytearray(chance.choice(good))
        for _ in range(chance.randint(0, 3)):
            frame[chance.randrange(len(frame))] = chance.randrange(256)
        parts = [bytes(frame)] if chance.random() < 0.9 else [chance.randbytes(chance.randint(0, 50)) for _ in range(3)]
        while not target.poll(100, zmq.POLLOUT):
            target.poll(10)
        target.send_multipart(parts)
        for one in raws:
            while one.poll(0):
                one.recv_multipart()
        if number % 1000 == 999:  # another peer: the last one is muted by now
            sockets.close()
            sockets = director.connect()
            with socket.create_connection((director.address.host, director.address.port + chance.randrange(3))) as raw:
                raw.sendall(chance.randbytes(100))
    with socket.create_connection((director.address.host, director.address.port + 1)) as raw:
        raw.sendall(b"\xff\0\0\0\0\0\0\0\x01\x7f")
    sockets.bulk.raw.send(bytes(MAX_FRAME_BYTES + 1))
    sockets.close()


def endless_message(director: Director) -> None:
    """Speak ZeroMQ's protocol (ZMTP 3.0, RFC 23) by hand: one message of parts without end, until we are cut off."""
    with socket.create_connection((director.address.host, director.address.port + 1)) as raw:
        raw.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
        ready = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
        raw.sendall(b"\x04" + bytes([len(ready)]) + ready)
        part = b"\x03" + struct.pack(">Q", 1 << 20) + bytes(1 << 20)
        for _ in range(20_000):
            raw.sendall(part)


def test_a_message_without_an_end_is_cut_off(director: Director) -> None:
    for count in (1, 2, 3):
        with pytest.raises(OSError):
            endless_message(director)
        assert is_served(director)
        assert director.listener.ended_connections == count
    assert any("no messages" in text for text in director.told)


def test_an_agents_end_takes_noise_and_goes_on(tmp_path: Path) -> None:
    spool = MadeSpool(tmp_path / "node0.sqlite")
    spool.add(3)
    context: zmq.Context[Any] = zmq.Context()
    address = Address("127.0.0.1", free_ports())
    rogue = context.socket(zmq.ROUTER)
    rogue.rcvtimeo = int(DEADLINE_S * 1000)
    rogue.bind(address.endpoint(1))
    agent = connect(context, address, None, None)
    sender = BulkSender(agent.bulk, "node0")
    sender.add("s", spool.writer.path, {})
    sender.start()
    route, _ = rogue.recv_multipart()
    chance = random.Random(1)
    good = [
        encode(Ack(session="s", seq=2**62, resend=True)),
        encode(Credit(bytes=2**62)),
        encode(Ack(session="s", seq=0)),
    ]
    for _ in range(5000):
        frame = bytearray(chance.choice(good))
        frame[chance.randrange(len(frame))] = chance.randrange(256)
        rogue.send_multipart([route, bytes(frame)])
    wait_for(lambda: agent.bulk.bad_frames > 100, "noise arrives")
    sender.forget("s")
    sender.add("s", spool.writer.path, {})
    wait_for(lambda: b"StreamsDeclared" in rogue.recv_multipart()[1], "it still speaks")
    sender.close()
    context.destroy(linger=0)


def test_noise_harms_nobody(director: Director) -> None:
    attack(director, 3000, 1)
    assert is_served(director)
    assert director.listener.bad_frames > 0


@pytest.mark.long
def test_a_million_frames_of_noise_harm_nobody_and_take_no_memory(director: Director) -> None:
    process = psutil.Process()
    attack(director, 50_000, 1)
    before = process.memory_info().rss
    for part in range(19):
        attack(director, 50_000, 2 + part)
        assert is_served(director)
    assert process.memory_info().rss - before < 50 << 20
