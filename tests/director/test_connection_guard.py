"""What the guard of the director's sockets ends, and what it leaves alone."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

zmq = pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from scripted_director import DEADLINE_S, wait_for  # noqa: E402

from director.fleet.connection_guard import HELD_BYTES, ConnectionGuard, _received  # noqa: E402


class Guarded:
    """A socket and its guard, and peers of it."""

    def __init__(self, **limits: int) -> None:
        self.told: list[str] = []
        self.context: zmq.Context[Any] = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.socket.rcvtimeo = int(DEADLINE_S * 1000)
        self.guard = ConnectionGuard(self.told.append, **limits)
        self.guard.watch(self.socket)
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.peers: list[Any] = []

    def peer(self) -> Any:
        """Connect one."""
        made = self.context.socket(zmq.DEALER)
        made.connect(f"tcp://127.0.0.1:{self.port}")
        self.peers.append(made)
        return made

    def take(self) -> int:
        """Receive a message; the descriptor of its connection."""
        _, part = self.socket.recv_multipart(copy=False)
        descriptor = int(part.get(zmq.SRCFD))
        self.guard.delivered(descriptor, 1, len(part))
        return descriptor

    def close(self) -> None:
        self.guard.close()
        self.context.destroy(linger=0)


@pytest.fixture
def make() -> Iterator[Callable[..., Guarded]]:
    made: list[Guarded] = []

    def one(**limits: int) -> Guarded:
        made.append(Guarded(**limits))
        return made[-1]

    yield one
    for guarded in made:
        guarded.close()


def test_what_was_delivered_before_the_guard_knew_of_the_connection_is_not_held_against_it(
    make: Callable[..., Guarded],
) -> None:
    guarded = make()
    peer = guarded.peer()
    for _ in range(HELD_BYTES // (1 << 20) + 8):
        peer.send(bytes(1 << 20))
        guarded.take()
    guarded.guard.start()
    wait_for(lambda: len(guarded.guard._connections) == 1, "the guard has seen it")
    looks = time.monotonic() + 1.0
    while time.monotonic() < looks:  # it looks four times a second
        peer.send(b"x")
        guarded.take()
    assert guarded.guard.ended == 0


def test_connections_beyond_the_limit_are_ended_and_the_others_go_on(make: Callable[..., Guarded]) -> None:
    guarded = make(most_connections=3)
    guarded.guard.start()
    honest = guarded.peer()
    honest.send(b"one")
    guarded.take()
    crowd = [socket.create_connection(("127.0.0.1", guarded.port)) for _ in range(8)]
    wait_for(lambda: guarded.guard.ended >= 6, "the crowd is ended")
    honest.send(b"two")
    guarded.take()
    assert len(guarded.told) == 1 and "there are 3 already" in guarded.told[0]
    for one in crowd:
        one.close()


def test_many_that_hold_little_are_ended_where_all_hold_much(make: Callable[..., Guarded]) -> None:
    guarded = make(all_held_bytes=8 << 20)
    guarded.guard.start()
    honest = guarded.peer()
    honest.send(b"one")
    guarded.take()
    crowd = [guarded.peer() for _ in range(6)]
    wait_for(lambda: len(guarded.guard._connections) == 7, "the guard has seen them")
    for one in crowd:
        one.send(bytes(2 << 20))
    wait_for(lambda: guarded.guard.ended >= 2, "those that hold most are ended")
    for _ in range(6):
        guarded.take()  # what was whole is delivered all the same
    honest.send(b"two")
    guarded.take()
    assert guarded.guard.ended <= 4


def test_a_number_that_is_a_files_by_now_costs_no_descriptor(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    assert [_received(descriptor) for _ in range(10)] == [None] * 10
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before
    os.close(descriptor)
