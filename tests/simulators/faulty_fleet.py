"""A served director and two served agents with a journal of every reading, and the faults that befall them.

Everything is a process as users start it. Each agent reaches the director through a relay of its own; sessions and
recordings lie on small disks where they may be mounted, and wall clocks are set where a compiler is there.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import fake_device
import msgspec
import pyarrow.parquet as pq
from agent_site import kill_sampler, sampler_pid
from cut_relay import CutRelay
from nvml_stub import compiler
from scripted_director import free_ports
from served_fleet import environment, wait_for
from small_disk import SmallDisk
from test_fleet_commands import Site
from wall_clock import WallClock, build

from power_agent.messages import TickCount
from power_agent.row_format import row_struct
from power_agent.spool import SpoolDamaged, SpoolReader

RATE_HZ = 200
WHILE_JOBS_END = {  # faults that may still last when the job ends: what it needs to be measured to its end is there
    *("agent killed", "agent stopped", "director killed", "director stopped"),
    *("network cut", "network of all cut", "connections reset"),
}
UNSAVED_NS = 1_000_000_000  # what a killed sampler may have held in memory
HOUR_S = 3600
JOB = """
import sys, time
from power_agent import phase
before_ns = time.monotonic_ns()
with phase("work"):
    begin_ns = time.monotonic_ns()
    print("begun", flush=True)
    sys.stdin.readline()
    end_ns = time.monotonic_ns()
print(end_ns - begin_ns, time.monotonic_ns() - before_ns)
sys.exit(int(sys.argv[1]))
"""


@dataclass
class Lasting:
    """How long faults last, in seconds."""

    stopped: float = 3.0
    cut: float = 3.0
    full: float = 2.0


@dataclass
class Counts:
    """What became of the readings of all sessions."""

    faults: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    due: int = 0
    missed: int = 0  # of those due: nobody read the device, as while its sampler was stopped
    read: int = 0  # the device gave them
    recorded: int = 0
    acknowledged: int = 0  # of those recorded: durable at the director when a fault came
    acknowledged_lost: int = 0
    lost: int = 0  # unacknowledged
    most_lost_s: float = 0.0  # before one kill
    duplicates: int = 0
    wrong_exits: int = 0

    def add(self, other: Counts) -> None:
        """Of another fleet."""
        for name, number in vars(other).items():
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update(number)
            else:
                setattr(self, name, max(mine, number) if name == "most_lost_s" else mine + number)


class Host:
    """A measured machine: its agent, its device's journal, its cable, disk and wall clock."""

    def __init__(self, folder: Path, name: str, director: int, library: Path | None) -> None:
        self.name = name
        self.disk = SmallDisk(folder / f"disk-{name}", 16)
        self.state, self.run_dir = self.disk.path / "state", folder / f"run-{name}"
        self.log, self._journal = folder / f"{name}.log", folder / f"journal-{name}"
        self.clock = WallClock(library, folder / f"offset-{name}")
        port = free_ports()
        self.relays = [CutRelay(port + offset, director + offset) for offset in range(3)]
        self.address = f"127.0.0.1:{port}"
        fake_device.install(folder / f"site-{name}")
        paths = [str(folder / f"site-{name}"), str(Path(fake_device.__file__).parent), environment()["PYTHONPATH"]]
        self.environment = {**os.environ, **self.clock.environment, "PYTHONPATH": os.pathsep.join(paths)}
        self.serve()

    def own(self) -> list[str]:
        """Options of every command here."""
        words = ["--director", self.address, "--host", self.name, "--state", str(self.state)]
        return [*words, "--run-dir", str(self.run_dir)]

    def serve(self) -> None:
        """Start the agent."""
        words = ["serve", *self.own(), "--driver", "fake", "--rate", f"fake={RATE_HZ}"]
        words += ["--set", f"fake.journal={self._journal}", "--set", 'fake.channel={"scope": "node"}']
        with self.log.open("ab") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", "power_agent.cli", *words],
                env=self.environment,
                stderr=log,
            )

    def spool(self, session: str) -> Path:
        """Of a session, here."""
        return self.state / session / f"{self.name}.sqlite"

    def journaled(self) -> list[int]:
        """The instants (ns) of all readings that the device gave."""
        return [int(line) for line in self._journal.read_bytes().split()] if self._journal.exists() else []

    def close(self) -> None:
        """End all here."""
        self.agent.kill()
        self.agent.wait()
        for spool in self.state.glob("*/*.sqlite"):
            kill_sampler(spool)
        for relay in self.relays:
            relay.close()
        self.disk.close()


class Durable:
    """Follows what is durable of a host's readings at the director while a session runs."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._seq = 0
        self.instants: list[int] = []

    def look(self) -> list[int]:
        """All instants so far."""
        try:
            reader = SpoolReader(self._spool)
        except SpoolDamaged:  # not yet made
            return self.instants
        try:
            layouts = {stream.id: row_struct(stream.channels) for stream in reader.streams()}
            for batch in reader.batches_after(self._seq, 100_000):
                self.instants += [row[0] for row in layouts[batch.stream].iter_unpack(batch.payload)]
                self._seq = batch.seq
        finally:
            reader.close()
        return self.instants


class FaultyFleet(Site):
    """One fleet; `measure` runs a session in which faults happen, and judges what became of it."""

    def __init__(self, folder: Path, seed: int, lasting: Lasting) -> None:
        library = build(folder) if compiler() else None
        self.counts = Counts()
        self._chance = random.Random(seed)
        self._seed = seed
        self._lasting = lasting
        self._clock = WallClock(library, folder / "offset")
        self._disk = SmallDisk(folder / "sessions", 64)
        super().__init__(folder, **self._clock.environment)
        self.hosts: dict[str, Host] = {}
        for name in "ab":
            self.hosts[name] = Host(folder, name, self.address.port, library)
        self.run_dir = self.hosts["a"].run_dir
        try:
            wait_for(lambda: all(f"{name} is here" in self.log.read_text() for name in "ab"), "both are here")
        except AssertionError as late:
            told = "\n".join(f"{path.name}:\n{path.read_text()}" for path in folder.glob("*.log"))
            raise AssertionError(f"{late}; what was told:\n{told}") from None
        self.faults: dict[str, Callable[[Host], None]] = {
            "agent killed": self._kill_agent,
            "sampler killed": self._kill_sampler,
            "agent and sampler killed": self._kill_both,
            "director killed": self._kill_director,
            "agent and sampler killed, files deleted": self._lose_files,
            "agent stopped": lambda host: self._stop(host.agent.pid),
            "sampler stopped": lambda host: self._stop(sampler_pid(host.spool(self._session))),
            "director stopped": lambda host: self._stop(self.director.pid),
            "network cut": lambda host: self._cut([host], reset=False),
            "network of all cut": lambda host: self._cut(list(self.hosts.values()), reset=False),
            "connections reset": lambda host: self._cut([host], reset=True),
        }
        if self._disk.is_small:
            self.faults["agent's disk full"] = self._fill_agents
            self.faults["director's disk full"] = lambda host: self._fill(self._disk)
        if library is not None:
            self.faults["agent's clock set"] = lambda host: self._step(host.clock)
            self.faults["director's clock set"] = lambda host: self._step(self._clock)

    def measure(self, faults: list[str]) -> None:
        """One session of both hosts around a job with a known end, and these faults one after the other.

        Raises:
            AssertionError: something was lost that must not be, or did not come about.
        """
        chance, hosts = self._chance, list(self.hosts.values())
        before = {host.name: len(host.journaled()) for host in hosts}
        known = set(self.names())
        self._windows: dict[str, list[tuple[int, int]]] = {host.name: [] for host in hosts}
        steps = {host.name: host.clock.offset_s for host in hosts}
        code = chance.choice((0, 1, 3, 77, 255))
        job = self._start_job(code, own=chance.random() < 0.5)
        assert job.stdin is not None and job.stdout is not None
        assert job.stdout.readline(), job.stderr.read().decode() if job.stderr else ""
        (self._session,) = set(self.names()) - known
        durable = {
            host.name: Durable(self.sessions / self._session / "spool" / f"{host.name}.sqlite") for host in hosts
        }
        acknowledged: dict[str, set[int]] = {host.name: set() for host in hosts}
        self._wait_until_here(durable)
        lasting: threading.Thread | None = None
        full_disk_of: Host | None = None
        files_lost_of: Host | None = None
        for fault in faults:
            time.sleep(chance.uniform(0.0, 1.0))
            victim = chance.choice(hosts)
            for name, at_director in durable.items():
                acknowledged[name] |= set(at_director.look())
            began_ns = time.monotonic_ns()
            self.counts.faults[fault] += 1
            if fault is faults[-1] and fault in WHILE_JOBS_END and chance.random() < 0.5:
                lasting = threading.Thread(target=self.faults[fault], args=(victim,))
                lasting.start()
                time.sleep(chance.uniform(0.0, 1.0))
                break
            if fault == "agent's disk full":
                full_disk_of = victim
            self.faults[fault](victim)
            self._wait_until_here(durable)
            if "sampler killed" in fault:
                self._windows[victim.name].append((began_ns, time.monotonic_ns()))
            if "deleted" in fault:
                files_lost_of = victim
        rest, errors = job.communicate(b"\n", timeout=180)
        if lasting is not None:
            lasting.join()
        self.counts.wrong_exits += job.returncode != code
        assert job.returncode == code, errors.decode()
        self._wait_for_end()
        self.counts.sessions += 1
        for host in hosts:
            read = host.journaled()[before[host.name] :]
            self._judge(host, read, acknowledged[host.name], counted=host is not files_lost_of)
            moved_s = host.clock.offset_s - steps[host.name]
            events = self._events(host.name)
            assert (host is files_lost_of) == ("were deleted while it measured" in events), events
            assert not moved_s or self._tells_step(host.name, moved_s), (moved_s, faults, self._seed)
            assert (host is full_disk_of) <= ("is full" in events or "No space" in events), events
        if not any("sampler" in fault for fault in faults):
            least_ns, most_ns = map(int, rest.split())
            self._judge_energy(least_ns * 1e-9, most_ns * 1e-9)

    def close(self) -> None:
        """End all."""
        for host in self.hosts.values():
            host.close()
        try:
            super().close()
        finally:
            self._disk.close()

    def _start_job(self, code: int, *, own: bool) -> subprocess.Popen[bytes]:
        """From the director's machine, or on host a through its agent."""
        job = ["--", sys.executable, "-c", JOB, str(code)]
        if not own:
            return self.start("run", "--hosts", "a,b", *job, stdin=subprocess.PIPE)
        host = self.hosts["a"]
        words = ["run", *host.own(), "--hosts", "a,b", *job]
        return subprocess.Popen(
            [sys.executable, "-m", "power_agent.cli", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=host.environment,
            cwd=self.folder,
        )

    def _wait_until_here(self, durable: dict[str, Durable]) -> None:
        """Until readings of every host that were made from now on are durable at the director."""
        now_ns = time.monotonic_ns()
        for name, at_director in durable.items():
            wait_for(lambda d=at_director: (d.look() or [0])[-1] > now_ns, f"readings of {name} arrive again")

    def _wait_for_end(self) -> None:
        """The command waits for it, too, but not for ever where its director was gone."""

        def is_whole() -> bool:
            fleet = self.manifest(self._session)["fleet"]
            return fleet["state"] == "complete" and all(agent["whole"] for agent in fleet["agents"])

        end_s = time.monotonic() + 10.0
        while not is_whole() and time.monotonic() < end_s:
            time.sleep(0.05)
        if not is_whole():
            self.do("session", "stop", self._session)
        wait_for(is_whole, "all is handed over")

    # --- faults --------------------------------------------------------------------------------------------------

    def _kill_agent(self, host: Host) -> None:
        host.agent.kill()
        host.agent.wait()
        time.sleep(self._chance.uniform(0.0, 1.0))
        host.serve()

    def _kill_sampler(self, host: Host) -> None:
        os.kill(sampler_pid(host.spool(self._session)), signal.SIGKILL)

    def _kill_both(self, host: Host) -> None:
        pid = sampler_pid(host.spool(self._session))
        host.agent.kill()
        os.kill(pid, signal.SIGKILL)
        host.agent.wait()
        time.sleep(self._chance.uniform(0.0, 1.0))
        host.serve()

    def _lose_files(self, host: Host) -> None:
        """What is not at the director is gone."""
        pid = sampler_pid(host.spool(self._session))
        host.agent.kill()
        os.kill(pid, signal.SIGKILL)
        host.agent.wait()
        shutil.rmtree(host.state)
        host.serve()

    def _kill_director(self, _host: Host) -> None:
        self.kill()
        time.sleep(self._chance.uniform(0.0, 1.0))
        self.serve()

    def _stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self._lasting.stopped)
        os.kill(pid, signal.SIGCONT)

    def _cut(self, hosts: list[Host], *, reset: bool) -> None:
        relays = [relay for host in hosts for relay in host.relays]
        for relay in relays:
            relay.cut(reset=reset)
        time.sleep(self._lasting.cut)
        for relay in relays:
            relay.mend()

    def _fill(self, disk: SmallDisk) -> None:
        disk.fill(self._lasting.full)
        disk.free()

    def _fill_agents(self, host: Host) -> None:
        """Until its sampler must have noticed, however little of the processor it gets."""
        before = len(host.journaled())
        host.disk.fill(self._lasting.full)
        wait_for(lambda: len(host.journaled()) > before + 2 * RATE_HZ, f"readings of {host.name} on a full disk")
        host.disk.free()

    def _step(self, clock: WallClock) -> None:
        clock.step(HOUR_S if clock.offset_s <= 0 else -HOUR_S)
        time.sleep(0.5)

    # --- what became of it ---------------------------------------------------------------------------------------

    def _judge(self, host: Host, read: list[int], acknowledged: set[int], *, counted: bool) -> None:
        """`counted`: the ledger came over with the last readings."""
        counts, where = self.counts, f"{self._session} {host.name} seed {self._seed}"
        (found,) = [entry for entry in self.manifest(self._session)["hosts"] if entry["name"] == host.name]
        stored = pq.read_table(self.sessions / self._session / found["streams"][0]["file"])["t_ns"].to_pylist()
        (ticks,) = msgspec.convert(found["ticks"], list[TickCount])
        lost = sorted(set(read) - set(stored))
        unexplained = []
        for lost_ns in lost:
            kills_ns = [
                began_ns
                for began_ns, again_ns in self._windows[host.name]
                if began_ns - UNSAVED_NS <= lost_ns <= again_ns
            ]
            if kills_ns:
                counts.most_lost_s = max(counts.most_lost_s, (min(kills_ns) - lost_ns) * 1e-9)
            else:
                unexplained.append(lost_ns)
        counts.due += ticks.due
        counts.missed += ticks.missed
        counts.read += len(read)
        counts.recorded += len(stored)
        counts.acknowledged += len(acknowledged)
        counts.acknowledged_lost += len(acknowledged - set(stored))
        counts.lost += len(lost)
        counts.duplicates += len(stored) - len(set(stored))
        assert stored == sorted(set(stored)), f"{where}: nothing twice"
        assert set(stored) <= set(read), f"{where}: nothing is made up"
        assert acknowledged <= set(stored), f"{where}: what was acknowledged is there"
        assert not unexplained, f"{where}: {len(unexplained)} of {len(lost)} lost readings are of no kill"
        assert ticks.due == ticks.taken + ticks.late + ticks.missed, where
        if counted:
            over = ticks.taken + ticks.late + ticks.extra - ticks.dropped_rows - len(stored)
            # A sampler that is killed between taking rows and counting reads has counted some whose rows are lost.
            assert 0 <= over <= RATE_HZ * len(self._windows[host.name]), f"{where}: {over} of {ticks}"

    def _events(self, host: str) -> str:
        (found,) = [entry for entry in self.manifest(self._session)["hosts"] if entry["name"] == host]
        return "\n".join(event["text"] for event in found["events"])

    def _tells_step(self, host: str, moved_s: int) -> bool:
        """Whether the sampler noticed a step of the wall clock, or, where it was killed just then, the report does."""
        warnings = json.loads((self.sessions / self._session / "summary.json").read_text())["warnings"]
        told = [f"the wall clock was set by {moved_s:+d}.", f"the wall clock of {host} was set by {moved_s:+d}."]
        return told[0] in self._events(host) or any(told[1] in warning for warning in warnings)

    def _judge_energy(self, least_s: float, most_s: float) -> None:
        """A device that always shows the same power: the energy of the work, by how long it took, is known."""
        summary = json.loads((self.sessions / self._session / "summary.json").read_text())
        (work,) = [group for group in summary["phases"] if group["name"] == "work"]
        joules, watts = work["total"]["joules"], 2 * fake_device.POWER_W
        known = (0.99 * watts * least_s, 1.01 * watts * most_s)
        assert known[0] < joules < known[1], (joules, known, self._session, self._seed)


def run_faults(folder: Path, seed: int, lasting: Lasting, kinds: Collection[str] = (), each: int = 2) -> Counts:
    """Sessions with `each` faults, until every kind (of these; empty: all) has come about once, in an order drawn.

    Raises:
        AssertionError: as `measure`; the text has the seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fleet = FaultyFleet(folder, seed, lasting)
    try:
        found = [kind for kind in sorted(fleet.faults) if kind in kinds or not kinds]
        random.Random(seed).shuffle(found)
        for first in range(0, len(found), each):
            fleet.measure(found[first : first + each])
        return fleet.counts
    finally:
        fleet.close()
