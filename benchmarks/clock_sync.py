"""How exactly two processes' clocks are tied over loopback, on an idle machine and with every core spinning.

Method. A director's clock service and an agent's asker run in processes of their own on real loopback sockets, as in
a fleet. Both read one clock, so the true offset is 0. After the time, the exchanges that the director kept are made a
clock model, as in a session, and asked every 10 ms between the first and the last burst: the estimate's error, and the
bound that is stated. With load, as many processes as there are cores count without a pause.

The least that any bound can be on this machine is half the round trip of the messages. For comparison, two processes
exchange the same instants over plain UDP as fast as they can, for as long, and half of their least round trip of every
12 is told: what a program without ZeroMQ, keys, or other work could reach.

Then one process asks as 1,000 agents would, at their rate; told is the director's processor time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import statistics
import struct
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil
import zmq

from director.fleet.clock_sync import ClockSync
from director.fleet.listener import Listener
from director.fleet.store import FleetStore
from director.session.clock_model import SyncedClock
from director.session.sync_file import Exchanges
from power_agent.service.clock_asker import ASKS, PERIOD_S, ClockAsker
from power_agent.wire.frames import MAX_CLOCK_FRAME_BYTES, encode
from power_agent.wire.messages import ClockAsk
from power_agent.wire.sockets import CLOCK_MESSAGES, Address, connect, limit

ADDRESS = Address("127.0.0.1", 5690)
_spawn = multiprocessing.get_context("spawn")


def serve(pipe: Connection) -> None:
    """The director: until the pipe closes, answers with (kept exchanges of node0, processor seconds so far)."""
    sync = ClockSync("director", print)
    listener = Listener(
        ADDRESS,
        FleetStore(print),
        own=None,
        keyring=None,
        on_control=lambda host, message: [],
        on_exchange=sync.on_exchange,
        tell=print,
    )
    listener.start()
    pipe.send(None)
    while True:
        try:
            pipe.recv()
        except EOFError:
            break
        known = sync._hosts.get("node0")
        rows = [(e.t1_ns, e.t2_ns, e.t3_ns, e.t4_ns) for e in known.recent] if known is not None else []
        times = psutil.Process().cpu_times()
        pipe.send((rows, times.user + times.system))
    listener.close()


def ask(seconds: float) -> None:
    """The agent."""
    context: zmq.Context[Any] = zmq.Context()
    asker = ClockAsker(connect(context, ADDRESS, None, None).clock, "node0")
    asker.start()
    time.sleep(seconds)
    asker.close()
    context.destroy(linger=0)


def spin() -> None:
    while True:
        pass


def echo(port: int) -> None:
    """Answer each datagram of t1 with t2 and t3."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind(("127.0.0.1", port))
        while True:
            _, peer = here.recvfrom(64)
            t2 = time.monotonic_ns()
            here.sendto(struct.pack("<qq", t2, time.monotonic_ns()), peer)


def udp_half_trips_us(seconds: float) -> list[float]:
    """Half of the least round trip of every 12, in µs."""
    port = ADDRESS.port + 5
    process = _spawn.Process(target=echo, args=(port,), daemon=True)
    process.start()
    found: list[float] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.settimeout(0.2)
        here.connect(("127.0.0.1", port))
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            trips = []
            while len(trips) < ASKS and time.monotonic() < end_s:
                t1 = time.monotonic_ns()
                try:
                    here.send(struct.pack("<q", t1))
                    t2, t3 = struct.unpack("<qq", here.recv(64))
                except OSError:  # it has not begun to listen, or a datagram was lost
                    continue
                trips.append((time.monotonic_ns() - t1) - (t3 - t2))
            if len(trips) == ASKS:
                found.append(min(trips) / 2e3)
            time.sleep(0.05)
    process.kill()
    process.join()
    return found


def under(load: int, seconds: float) -> None:
    """Print the bounds with so many processes that spin."""
    busy = [_spawn.Process(target=spin, daemon=True) for _ in range(load)]
    for process in busy:
        process.start()
    pipe, director = started(serve)
    agent = _spawn.Process(target=ask, args=(seconds,))
    agent.start()
    agent.join()
    pipe.send(None)
    rows, _ = pipe.recv()
    pipe.close()
    director.join()
    udp = udp_half_trips_us(min(seconds, 10.0))
    for process in busy:
        process.kill()
        process.join()
    model = SyncedClock(Exchanges(*np.array(rows, np.int64).T))
    at = np.arange(rows[0][0], rows[-1][3], 10_000_000)
    off, bound = np.abs(model.offset(at)) / 1e3, model.bound(at) / 1e3
    name = f"{load} cores spin" if load else "idle"
    print(
        f"{name}: bound p50 {np.median(bound):.0f} µs, p99 {np.quantile(bound, 0.99):.0f} µs; "
        f"error p50 {np.median(off):.1f} µs, most {off.max():.0f} µs, within the bound at {(off <= bound).mean():.2%} "
        f"of instants; UDP's least half trip p50 {statistics.median(udp):.0f} µs: the bound is "
        f"{np.median(bound) / statistics.median(udp):.1f} times that",
        flush=True,
    )


def started(target: Callable[[Connection], None]) -> tuple[Connection, Any]:
    """A process that has told that it is ready, and the pipe to it."""
    pipe, theirs = multiprocessing.Pipe()
    process = _spawn.Process(target=target, args=(theirs,))
    process.start()
    theirs.close()
    pipe.recv()
    return pipe, process


def fleet(agents: int, seconds: float) -> None:
    """Print what so many agents' questions cost the director."""
    pipe, director = started(serve)
    context: zmq.Context[Any] = zmq.Context()
    sockets = []
    for _ in range(25):  # connections; each asks for many agents, within what a peer may
        dealer = context.socket(zmq.DEALER)
        limit(dealer, CLOCK_MESSAGES, MAX_CLOCK_FRAME_BYTES)
        dealer.connect(ADDRESS.endpoint(2))
        sockets.append(dealer)
    rate = agents * ASKS / PERIOD_S
    pipe.send(None)
    _, before_s = pipe.recv()
    begin_s, asked = time.monotonic(), 0
    while (elapsed_s := time.monotonic() - begin_s) < seconds:
        while asked < rate * elapsed_s:
            dealer = sockets[asked % len(sockets)]
            dealer.send(encode(ClockAsk(host=f"n{asked % agents}", number=asked, t1_ns=time.monotonic_ns())))
            dealer.recv()
            asked += 1
        time.sleep(0.001)
    pipe.send(None)
    _, after_s = pipe.recv()
    context.destroy(linger=0)
    pipe.close()
    director.join()
    print(
        f"{agents} agents: {asked / elapsed_s:,.0f} questions per second of {rate:,.0f} due; director "
        f"{(after_s - before_s) / elapsed_s:.3f} cores, {(after_s - before_s) / asked * 1e6:.0f} µs per question"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement of the bound")
    arguments = parser.parse_args()
    for load in (0, multiprocessing.cpu_count()):
        under(load, arguments.seconds)
    fleet(1000, min(arguments.seconds, 10.0))


if __name__ == "__main__":
    main()
