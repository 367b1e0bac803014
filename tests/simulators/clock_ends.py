"""One end of a clock exchange as a process of its own: `director` or `agent`, with keys from a folder.

python clock_ends.py director FOLDER ADDRESS      prints a SyncState as JSON, one a line, and ends with its input
python clock_ends.py agent FOLDER ADDRESS
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from pathlib import Path

import zmq

from director.fleet.clock_sync import ClockSync
from director.fleet.listener import Listener
from director.fleet.store import FleetStore
from power_agent.service.clock_asker import ClockAsker
from power_agent.wire.keys import Keyring, load_secret
from power_agent.wire.sockets import Address, connect

HOST = "node0"


def serve(folder: Path, address: Address, until: threading.Event) -> None:
    """Print how the agent's clock stands, ten times a second."""
    sync = ClockSync("director", print)
    listener = Listener(
        address,
        FleetStore(print),
        own=load_secret(folder / "director.secret"),
        keyring=Keyring(folder / "agents"),
        on_control=lambda host, message: [],
        on_exchange=sync.on_exchange,
        tell=print,
    )
    listener.start()
    while not until.wait(0.1):
        state = sync.state(HOST)
        if state is not None:
            print(json.dumps(dataclasses.asdict(state)), flush=True)
    listener.close()


def ask(folder: Path, address: Address, until: threading.Event) -> None:
    """Ask until the input ends."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    own, director = load_secret(folder / "agent.secret"), load_secret(folder / "director.secret")
    sockets = connect(context, address, own, director.public)
    asker = ClockAsker(sockets.clock, HOST)
    asker.start()
    until.wait()
    asker.close()
    time.sleep(0.2)
    context.destroy(linger=0)


if __name__ == "__main__":
    role, keys, where = sys.argv[1:]
    ended = threading.Event()
    work = threading.Thread(target=serve if role == "director" else ask, args=(Path(keys), Address.parse(where), ended))
    work.start()
    sys.stdin.read()
    ended.set()
    work.join()
