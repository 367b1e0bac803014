"""Clocks over real sockets: loopback under full load, and two network namespaces with delay, jitter and loss.

Both ends read the one clock of this machine, so the true offset is 0, or what the test adds to the agent's clock.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

zmq = pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

import clock_ends  # noqa: E402
from network_namespaces import DIRECTOR_IP, namespaces, why_no_namespaces  # noqa: E402
from slow_relay import SlowRelay, Way  # noqa: E402
from test_fleet_listener import Director, free_ports, wait_for  # noqa: E402

from director.fleet.clock_sync import ClockSync, SyncState  # noqa: E402
from director.fleet.listener import Listener  # noqa: E402
from power_agent.service.clock_asker import ASKS, ClockAsker  # noqa: E402
from power_agent.wire.keys import Keyring, make_secret  # noqa: E402
from power_agent.wire.messages import ClockExchange  # noqa: E402
from power_agent.wire.sockets import Address, connect  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0


@contextmanager
def full_load() -> Iterator[None]:
    """As many processes that only count as there are processors."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.fixture
def director(tmp_path: Path) -> Iterator[Director]:
    made = Director(tmp_path)
    yield made
    made.close()


def test_under_full_load_the_true_offset_lies_within_the_bound(director: Director) -> None:
    """The agent's clock is 1000 s behind."""
    apart_ns = 1_000_000_000_000
    sync = ClockSync("director", director.told.append)
    asker = ClockAsker(
        director.connect().clock, "node0", boot_id="b1", monotonic_ns=lambda: time.monotonic_ns() - apart_ns
    )
    with full_load():
        asker.start()
        taken = itertools.count()
        states: list[SyncState] = []

        def enough() -> bool:
            while len(director.exchanges) > 0:
                sync.on_exchange(*director.exchanges.pop(0))
                next(taken)
            state = sync.state("node0")
            if state is not None:
                states.append(state)
            return asker.exchanges >= 4 * ASKS

        wait_for(enough, "four bursts")
        asker.close()
    wait_for(lambda: next(taken) + len(director.exchanges) >= asker.exchanges - 5, "the last ones")
    assert sync.refused == 0
    assert all(abs(state.offset_ns - apart_ns) <= state.bound_ns for state in states)
    # Loose, for machines that are busier than this load makes them.
    assert min(state.bound_ns for state in states) < 2_000_000


def test_an_agent_asks_again_after_a_restart_of_the_director(tmp_path: Path) -> None:
    first = Director(tmp_path)
    asker = ClockAsker(first.connect().clock, "node0")
    asker.start()
    wait_for(lambda: first.exchanges, "exchanges")
    first.listener.close()
    heard: list[tuple[str, ClockExchange]] = []
    second = Listener(
        first.address,
        first.store,
        own=None,
        keyring=None,
        on_control=lambda host, message: [],
        on_exchange=lambda host, exchange: heard.append((host, exchange)),
        tell=print,
    )
    second.start()
    wait_for(lambda: len(heard) > ASKS, "exchanges with the next director")
    asker.close()
    first.context.destroy(linger=0)
    second.close()
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    now_ns = time.monotonic_ns()
    for host, exchange in heard:
        assert host == "node0" and exchange.boot_id == boot_id
        assert exchange.t1_ns <= exchange.t2_ns <= exchange.t3_ns <= exchange.t4_ns <= now_ns


def test_late_and_foreign_answers_make_no_exchange_or_a_wide_one() -> None:
    """A director that answers the wrong questions, twice, and noise."""
    from power_agent.wire import frames
    from power_agent.wire.frames import encode
    from power_agent.wire.messages import ClockAnswer

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    address = Address("127.0.0.1", free_ports())
    router = context.socket(zmq.ROUTER)
    router.bind(address.endpoint(2))
    socket = connect(context, address, None, None).clock
    asker = ClockAsker(socket, "node0")
    asker.start()
    told: list[ClockExchange] = []
    questions = []
    end_s = time.monotonic() + DEADLINE_S
    while len(told) < 3 and time.monotonic() < end_s:
        if not router.poll(200):
            continue
        route, frame = router.recv_multipart()
        ask = frames.clock_from_agent.decode(frame)
        if ask.last is not None:
            told.append(ask.last)
        questions.append(ask)
        now_ns = time.monotonic_ns()
        for number, t1_ns in ((ask.number + 1, ask.t1_ns), (ask.number, ask.t1_ns - 1)):
            router.send_multipart([route, encode(ClockAnswer(number=number, t1_ns=t1_ns, t2_ns=now_ns, t3_ns=now_ns))])
        router.send_multipart([route, b"\xc1noise"])
        if len(questions) % 2 == 0:  # each second question is answered late, with the one after it, and twice
            for late in questions[-2:]:
                answer = encode(ClockAnswer(number=late.number, t1_ns=late.t1_ns, t2_ns=now_ns, t3_ns=now_ns))
                router.send_multipart([route, answer])
                router.send_multipart([route, answer])
    asker.close()
    context.destroy(linger=0)
    assert len(told) >= 3 and socket.bad_frames > 0
    asked = {question.t1_ns for question in questions}
    for exchange in told:
        assert exchange.t1_ns in asked
        assert exchange.t1_ns <= exchange.t2_ns <= exchange.t4_ns


# Name: each way, and the least and the most that the best bound may be, in ms.
SLOW = {
    "delay": (Way(0.005), Way(0.005), 5.0, 8.0),
    "asymmetric": (Way(0.001), Way(0.006), 3.5, 6.5),
    "jitter": (Way(0.0005, 0.01), Way(0.0005, 0.01), 0.5, 20.0),
}


@pytest.mark.parametrize("name", SLOW)
def test_over_slow_connections_the_true_offset_lies_within_the_bound(director: Director, name: str) -> None:
    there, back, least_ms, most_ms = SLOW[name]
    port = director.address.port + 10
    relay = SlowRelay(port + 2, director.address.port + 2, there, back)
    sync = ClockSync("director", director.told.append)
    asker = ClockAsker(connect(director.context, Address("127.0.0.1", port), None, None).clock, "node0")
    asker.start()
    states: list[SyncState] = []

    def enough() -> bool:
        while director.exchanges:
            sync.on_exchange(*director.exchanges.pop(0))
        state = sync.state("node0")
        if state is not None:
            states.append(state)
        return asker.exchanges >= 3 * ASKS and min(s.bound_ns for s in states) <= most_ms * 1e6

    wait_for(enough, "three bursts, and a bound that is no wider than the network makes it")
    asker.close()
    relay.close()
    assert all(abs(state.offset_ns) <= state.bound_ns for state in states)
    assert least_ms <= min(state.bound_ns for state in states) * 1e-6
    if name == "asymmetric":
        assert states[-1].offset_ns == pytest.approx(-2_500_000, abs=2_000_000)


# --- two network namespaces --------------------------------------------------------------------------------------


@contextmanager
def ends(folder: Path, director: list[str], agent: list[str]) -> Iterator[Callable[[], SyncState]]:
    """Both ends, each in its namespace; call for the next state that the director prints."""
    keys = {name: make_secret(folder / f"{name}.secret") for name in ("director", "agent")}
    Keyring(folder / "agents").add(clock_ends.HOST, keys["agent"].public)
    paths = [str(ROOT), str(ROOT / "tests/simulators")]
    with ExitStack() as stack:
        processes = []
        for inside, role in ((director, "director"), (agent, "agent")):
            process = subprocess.Popen(
                [*inside, sys.executable, clock_ends.__file__, role, str(folder), f"{DIRECTOR_IP}:5570"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        output = processes[0].stdout
        assert output is not None
        yield lambda: SyncState(**json.loads(output.readline()))


# Name: netem of the director and of the agent; the least and the most that the best bound may be, in ms.
# A bound is half of what the fastest question and the fastest answer take together. Least: half of netem's least
# delays; those of a normal distribution may be 0. Most: half of their means, and 6 ms in which an emulated machine
# wakes up both ends four times; what TCP sends again is 200 ms late.
NETEM = {
    "delay": ("delay 10ms", "delay 10ms", 10.0, 16.0),
    "asymmetric": ("delay 1ms", "delay 11ms", 6.0, 12.0),
    "jitter": ("delay 10ms 5ms distribution normal", "delay 10ms 5ms distribution normal", 0.0, 16.0),
    "loss": ("delay 2ms loss 10%", "delay 2ms loss 10%", 2.0, 8.0),
}


@pytest.mark.machine
@pytest.mark.parametrize("name", NETEM)
def test_through_a_bad_network_the_true_offset_lies_within_the_bound(tmp_path: Path, name: str) -> None:
    why = why_no_namespaces()
    if why:
        pytest.skip(why)
    of_director, of_agent, least_ms, most_ms = NETEM[name]
    with namespaces(of_director, of_agent) as (director, agent), ends(tmp_path, director, agent) as next_state:
        states = [next_state()]  # after however long it takes to start
        end_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < end_s and (len(states) < 12 or min(s.bound_ns for s in states) > most_ms * 1e6):
            states.append(next_state())
    best_ms = min(state.bound_ns for state in states) * 1e-6
    assert all(abs(state.offset_ns) <= state.bound_ns for state in states)
    assert least_ms * 0.99 <= best_ms <= most_ms
    if name == "asymmetric":  # 11 ms there and 1 ms back look like an offset of 5 ms
        assert states[-1].offset_ns == pytest.approx(5_000_000, abs=2_000_000)
