"""The thread that hands over an agent's sessions: what it holds open, whom it serves first, whom it keeps waiting."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

zmq = pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from made_spool import MadeSpool, read_instants  # noqa: E402
from scripted_director import ScriptedDirector, free_ports, wait_for  # noqa: E402

from power_agent.service.bulk_sender import MOST_OPEN, BulkSender  # noqa: E402
from power_agent.service.own_thread import OwnThread  # noqa: E402
from power_agent.wire.frames import bulk_from_agent, encode  # noqa: E402
from power_agent.wire.messages import Ack, BatchFrame, Credit, StreamsDeclared  # noqa: E402
from power_agent.wire.sockets import Address, connect  # noqa: E402


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def address() -> Address:
    return Address("127.0.0.1", free_ports())


def open_spools(folder: Path) -> list[str]:
    """Which of the folder's files this process holds open, by descriptor."""
    return [file.path for file in psutil.Process().open_files() if file.path.startswith(str(folder))]


def test_many_sessions_wait_with_few_files_open(context: zmq.Context[Any], address: Address, tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(3 * MOST_OPEN)]
    sender = BulkSender(connect(context, address, None, None).bulk, "node0")
    for name in names:
        spool = MadeSpool(tmp_path / "agent" / name / "node0.sqlite")
        spool.add(2)
        spool.writer.close()
        sender.add(name, spool.writer.path, {})
        sender.finish(name)
    live = MadeSpool(tmp_path / "agent" / "live" / "node0.sqlite")
    before = set(open_spools(tmp_path / "agent"))
    sender.add("live", live.writer.path, {})
    sender.start()
    wait_for(lambda: open_spools(tmp_path / "agent").count(str(live.writer.path)) > 1, "one that goes on has its place")
    assert len(set(open_spools(tmp_path / "agent")) - before) <= MOST_OPEN
    sender.forget("live")
    director = ScriptedDirector(tmp_path / "director", address)
    try:
        for turn in range(3):  # those in the way are not taken yet
            for name in names[turn::3]:
                director.admit(name)
            wait_for(lambda turn=turn: all(sender.is_whole(name) for name in names[turn::3]), "they are handed over")
    finally:
        sender.close()
        director.close()
    assert set(open_spools(tmp_path / "agent")) == before
    assert all(read_instants(tmp_path / "director" / n / "spool" / "node0.sqlite") == list(range(14)) for n in names)


def test_a_long_backlog_does_not_keep_another_session_waiting(
    context: zmq.Context[Any], address: Address, tmp_path: Path
) -> None:
    rogue = context.socket(zmq.ROUTER)
    rogue.rcvtimeo = 20_000
    rogue.bind(address.endpoint(1))
    backlog, live = (MadeSpool(tmp_path / name / "node0.sqlite") for name in ("backlog", "live"))
    backlog.add(300, rows=100)
    live.add(1)
    sender = BulkSender(connect(context, address, None, None).bulk, "node0")
    sender.add("backlog", backlog.writer.path, {})
    sender.add("live", live.writer.path, {})
    sender.start()
    came: list[str] = []
    while came.count("backlog") < 300:
        route, frame = rogue.recv_multipart()
        message = bulk_from_agent.decode(frame)
        if isinstance(message, StreamsDeclared):
            rogue.send_multipart([route, encode(Ack(session=message.session, seq=0))])
            rogue.send_multipart([route, encode(Credit(bytes=5000))])
        elif isinstance(message, BatchFrame):
            came.append(message.session)
            rogue.send_multipart([route, encode(Ack(session=message.session, seq=message.seq))])
    sender.close()
    assert "live" in came[:100]


HOLD_SPOOL = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def test_nobody_waits_for_a_spool_that_cannot_be_read_now(
    context: zmq.Context[Any], address: Address, tmp_path: Path
) -> None:
    spool = MadeSpool(tmp_path / "agent" / "node0.sqlite")
    spool.add(2)
    spool.writer.close()
    words = [sys.executable, "-c", HOLD_SPOOL, str(spool.writer.path)]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin and other.stdout and other.stdout.readline() == b"held\n"
    sender = BulkSender(connect(context, address, None, None).bulk, "node0")
    sender.add("s", spool.writer.path, {})
    sender.start()
    wait_for(lambda: open_spools(tmp_path / "agent"), "it has opened the spool, and waits")
    assert sender.unsent_bytes() > 0 and not sender.is_whole("s")
    sender.finish("s")
    assert open_spools(tmp_path / "agent"), "it still waits, and we did not wait for it"
    other.communicate()
    sender.close()


def test_no_mistake_ends_a_thread_and_each_is_told_once() -> None:
    told: list[str] = []
    turns: list[int] = []

    def turn() -> None:
        turns.append(len(turns))
        if len(turns) <= 2:
            raise OSError(24, "Too many open files")
        thread.sleep(0.01)

    thread = OwnThread("bulk", turn, told.append)
    thread.start()
    wait_for(lambda: len(turns) > 5, "it goes on")
    thread.close()
    count = len(turns)
    assert told == ["a mistake of this program (bulk): OSError: [Errno 24] Too many open files"]
    assert len(turns) == count, "no turn after its end"
