"""What a director takes: durable readings per second, and the cost and the delay of up to a thousand agents at once.

Method. The director's listener and store run in a process of their own, held to one core, on real sockets and on the
disk of the working directory. Simulated agents share another process: each has a bulk socket, a stream of 64 power
channels at 10 Hz, and sends a batch every 0.7 s, as a sampler does; the batches are spread evenly over that time.

- Throughput: agents send long batches as fast as credit permits. Readings that were acknowledged, which is after they
  were synced to the disk, are divided by the processor time that the director used: what one core takes. Its memory is
  looked at after a tenth of the time and at the end.
- Fleet: for each number of agents, the delay from a reading's instant to the arrival of its acknowledgement at the
  agent, over all readings (a batch holds readings of 0 … 0.6 s of age when it is due); the processor time per agent.
  The director's own loops and syncs cost something with few agents, too, so what each agent more than in the line above
  costs is printed besides: that is the figure that has to stay constant.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import statistics
import tempfile
import time
import zlib
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import zmq

from director.fleet.listener import Listener
from director.fleet.store import FleetStore
from drivers.contract import Channel
from power_agent.messages import Stream
from power_agent.row_format import row_struct
from power_agent.wire import frames
from power_agent.wire.frames import encode
from power_agent.wire.messages import Ack, BatchFrame, Credit, StreamsDeclared
from power_agent.wire.sockets import BULK_MESSAGES, Address, limit

CHANNELS = 64
RATE_HZ = 10.0
FLUSH_S = 0.7
STREAM = Stream(
    id=0,
    driver="made",
    group="power",
    rate_hz=RATE_HZ,
    channels=[
        Channel(name=f"made/{i}/power", device=f"d{i}", quantity="power", unit="W", kind="gauge")
        for i in range(CHANNELS)
    ],
)
ROW = row_struct(STREAM.channels)
ADDRESS = Address("127.0.0.1", 5670)


def serve(folder: Path, pipe: Connection) -> None:
    """The director's process: until the pipe closes, answers each question with (processor s, resident bytes)."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    store = FleetStore(print)
    store.admit("s", folder)
    listener = Listener(
        ADDRESS,
        store,
        own=None,
        keyring=None,
        on_control=lambda host, message: [],
        on_exchange=lambda host, exchange: None,
        tell=print,
    )
    listener.start()
    process = psutil.Process()
    pipe.send(None)
    while True:
        try:
            pipe.recv()
        except EOFError:
            break
        times = process.cpu_times()
        pipe.send((times.user + times.system, process.memory_info().rss))
    listener.close()
    store.close()


class Director:
    """The other process."""

    def __init__(self, folder: Path) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=serve, args=(folder, theirs))
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def usage(self) -> tuple[float, int]:
        """Processor seconds so far, and resident bytes."""
        self.pipe.send(None)
        used: tuple[float, int] = self.pipe.recv()
        return used

    def close(self) -> None:
        self.pipe.close()
        self.process.join()


class Agent:
    """One simulated agent: a bulk socket and what was sent on it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], number: int) -> None:
        self.host = f"node{number:04}"
        self.socket = context.socket(zmq.DEALER)
        limit(self.socket, BULK_MESSAGES, frames.MAX_FRAME_BYTES)
        self.socket.connect(ADDRESS.endpoint(1))
        self.socket.send(encode(StreamsDeclared(session="s", host=self.host, streams=[STREAM])))
        self.sent = 0
        self.acked = -1  # not declared yet
        self.credit_bytes = 0
        self.pending: list[tuple[int, list[float]]] = []  # (seq, instants of its readings)
        self.next_s = 0.0

    def send(self, payload: bytes, rows: int, crc32: int, instants_s: list[float]) -> None:
        self.sent += 1
        message = BatchFrame(
            session="s",
            host=self.host,
            seq=self.sent,
            previous=self.sent - 1,
            stream=0,
            rows=rows,
            crc32=crc32,
            payload=payload,
        )
        self.socket.send(encode(message))
        self.pending.append((self.sent, instants_s))

    def receive(self, delays_s: list[float]) -> None:
        """Take the answers; add the delays of what they acknowledge."""
        while True:
            try:
                message = frames.bulk_from_director.decode(self.socket.recv(zmq.DONTWAIT))
            except zmq.Again:
                return
            if isinstance(message, Credit):
                self.credit_bytes = message.bytes
            elif isinstance(message, Ack):
                now_s = time.monotonic()
                assert not message.resend
                self.acked = max(self.acked, message.seq)
                while self.pending and self.pending[0][0] <= message.seq:
                    delays_s += [now_s - at_s for at_s in self.pending.pop(0)[1]]


def start_agents(context: zmq.Context[zmq.Socket[bytes]], count: int) -> tuple[list[Agent], zmq.Poller]:
    """Agents whose streams are known to the director."""
    context.set(zmq.MAX_SOCKETS, count + 10)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    agents, poller = [Agent(context, number) for number in range(count)], zmq.Poller()
    for agent in agents:
        poller.register(agent.socket, zmq.POLLIN)
    while any(agent.acked < 0 or not agent.credit_bytes for agent in agents):
        poller.poll(1000)
        for agent in agents:
            agent.receive([])
    return agents, poller


def packed(rows: int) -> bytes:
    """Rows of random milliwatts."""
    values = random.Random(1)
    return b"".join(
        ROW.pack(k, 0, *[values.uniform(0, 4e5) for _ in range(CHANNELS)], bytes(CHANNELS)) for k in range(rows)
    )


def throughput(folder: Path, seconds: float, agents: int = 16, rows: int = 256) -> None:
    """Print how many readings per second one core makes durable."""
    director = Director(folder)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    fleet, poller = start_agents(context, agents)
    payload = packed(rows)
    crc32 = zlib.crc32(payload)
    begin_s, (cpu_s, _) = time.monotonic(), director.usage()
    early = 0
    while (elapsed_s := time.monotonic() - begin_s) < seconds:
        for agent in fleet:
            while (len(agent.pending) + 1) * len(payload) <= agent.credit_bytes:
                agent.send(payload, rows, crc32, [])
        poller.poll(10)
        for agent in fleet:
            agent.receive([])
        if not early and elapsed_s > seconds / 10:
            early = director.usage()[1]
    readings = sum(agent.acked for agent in fleet) * rows * CHANNELS
    elapsed_s = time.monotonic() - begin_s
    used_s = director.usage()[0] - cpu_s
    late = director.usage()[1]
    context.destroy(linger=0)
    director.close()
    print(
        f"throughput: {readings / elapsed_s / 1e6:.2f} million readings/s durable; "
        f"{readings / used_s / 1e6:.2f} million per second of the director's processor time"
    )
    print(f"memory: {early / 2**20:.0f} MiB early, {late / 2**20:.0f} MiB after {readings / 1e6:.0f} million readings")


def fleet(folder: Path, count: int, seconds: float, before: tuple[int, float]) -> tuple[int, float]:
    """Print cost and delay of `count` agents at 10 Hz × 64 channels, against those of fewer `before`.

    Returns the number of agents, and the director's share of a core.
    """
    director = Director(folder)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    agents, poller = start_agents(context, count)
    rows = round(RATE_HZ * FLUSH_S)
    payload = packed(rows)
    crc32 = zlib.crc32(payload)
    delays_s: list[float] = []
    begin_s, (cpu_s, _) = time.monotonic(), director.usage()
    for number, agent in enumerate(agents):
        agent.next_s = begin_s + FLUSH_S * number / count
    while (now_s := time.monotonic()) < begin_s + seconds:
        for agent in agents:
            if now_s >= agent.next_s:
                # Readings at each tick up to the flush, by its due instant: a late flush is a longer delay.
                agent.send(payload, rows, crc32, [agent.next_s - k / RATE_HZ for k in range(rows)])
                agent.next_s += FLUSH_S
        wait_s = min(agent.next_s for agent in agents) - time.monotonic()
        ready = dict(poller.poll(max(0, wait_s * 1000)))
        for agent in agents:
            if agent.socket in ready:
                agent.receive(delays_s)
    elapsed_s = time.monotonic() - begin_s
    used_s, memory = director.usage()
    used_s -= cpu_s
    context.destroy(linger=0)
    director.close()
    quantiles = statistics.quantiles(delays_s, n=100)
    cores = used_s / elapsed_s
    more = (cores - before[1]) / (count - before[0])
    print(
        f"{count:5} agents: {count * RATE_HZ * CHANNELS:9,.0f} readings/s; reading to store p50 {quantiles[49]:.3f} s, "
        f"p99 {quantiles[98]:.3f} s; director {cores:.3f} cores, {cores / count * 1e6:.0f} µs of processor per agent "
        f"and second, {more * 1e6:.0f} µs for each one more, {memory / 2**20:.0f} MiB",
        flush=True,
    )
    return count, cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--agents", type=int, nargs="*", default=[10, 30, 100, 300, 1000], metavar="N")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        throughput(Path(folder), arguments.seconds)
        before = (0, 0.0)
        for count in sorted(arguments.agents):
            session = Path(folder, str(count))
            session.mkdir()
            before = fleet(session, count, arguments.seconds, before)


if __name__ == "__main__":
    main()
