"""A director and an agent that are killed at random instants lose nothing and double nothing. Real processes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_spool import MadeSpool, read_instants

pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

DIRECTOR = """
import sys, time
from pathlib import Path
from director.fleet.listener import Listener
from director.fleet.store import FleetStore
from power_agent.wire.sockets import Address, AddressProblem
store = FleetStore(print)
store.admit("s", Path(sys.argv[1]))
while True:
    try:
        listener = Listener(Address.parse(sys.argv[2]), store, own=None, keyring=None, on_control=lambda h, m: [],
                            on_exchange=lambda h, e: None, tell=print)
        break
    except AddressProblem:  # the one before is not quite gone
        time.sleep(0.05)
listener.start()
time.sleep(600)
"""
AGENT = """
import sys, time, zmq
from pathlib import Path
from power_agent.service.bulk_sender import BulkSender
from power_agent.wire.sockets import Address, connect
folder = Path(sys.argv[1])
sender = BulkSender(connect(zmq.Context(), Address.parse(sys.argv[2]), None, None).bulk, "node0")
sender.add("s", folder / "node0.sqlite", {"marks": folder / "marks"})
sender.start()
while not sender.is_whole("s"):
    if (folder / "ended").exists():
        sender.finish("s")
    time.sleep(0.02)
sender.close()
"""


def free_address() -> str:
    from scripted_director import free_ports

    return f"127.0.0.1:{free_ports()}"


def run_rounds(folder: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    session, agent = folder / "session", folder / "agent"
    session.mkdir()
    spool = MadeSpool(agent / "node0.sqlite", channels=4)
    (agent / "marks").mkdir()
    address = free_address()
    text = b""

    def start(program: str, where: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", program, str(where), address], stdout=subprocess.DEVNULL)

    running = {"director": start(DIRECTOR, session), "agent": start(AGENT, agent)}
    programs = {"director": (DIRECTOR, session), "agent": (AGENT, agent)}
    try:
        for _ in range(rounds):
            end_s = time.monotonic() + chance.uniform(0.1, 1.2)
            while time.monotonic() < end_s:
                spool.add(chance.randint(1, 5), rows=chance.randint(1, 200))
                text += b"mark %d\n" % spool.rows
                with (agent / "marks" / "1.marks").open("ab") as file:
                    file.write(b"mark %d\n" % spool.rows)
                time.sleep(0.01)
            victim = chance.choice(["director", "agent"])
            if chance.random() < 0.2:
                running[victim].send_signal(signal.SIGSTOP)
                time.sleep(0.3)
                running[victim].send_signal(signal.SIGCONT)
            else:
                running[victim].kill()
                running[victim].wait()
                running[victim] = start(*programs[victim])
        (agent / "ended").touch()
        assert running["agent"].wait(timeout=60) == 0
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    spool.writer.close()
    assert read_instants(session / "spool" / "node0.sqlite") == list(range(spool.rows))
    assert (session / "marks" / "node0" / "1.marks").read_bytes() == text


def test_killing_either_side_loses_nothing(tmp_path: Path) -> None:
    run_rounds(tmp_path, 4, 1)


@pytest.mark.long
def test_killing_either_side_200_times_loses_nothing(tmp_path: Path) -> None:
    run_rounds(tmp_path, 200, 2)
