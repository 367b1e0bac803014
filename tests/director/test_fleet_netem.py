"""A director and an agent as processes, in two network namespaces with a network that delays, reorders and loses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

import fake_device
import msgspec
import pyarrow.parquet as pq
from faulty_fleet import Durable
from network_namespaces import DIRECTOR_IP, namespaces, why_no_namespaces
from served_fleet import environment

from director.commands.keys import SECRET as DIRECTOR_SECRET
from power_agent.messages import TickCount
from power_agent.service.enroll import SECRET
from power_agent.wire.keys import Keyring, make_secret, write_pin

pytestmark = pytest.mark.machine
ADDRESS = f"tcp://{DIRECTOR_IP}:5570"
NETEM = "delay 20ms 10ms loss 5%"
RATE_HZ = 20
READINGS = 400
DEADLINE_S = 900.0  # an emulated machine takes minutes over what takes seconds


def wait_for(is_so: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < end_s, f"waited for: {what}"
        time.sleep(0.1)


class Fleet:
    """The director in one namespace, the agent `a` in the other; keys as `keys init` and `enroll` make them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.sessions, self.state = folder, folder / "sessions", folder / "state"
        self._journal = folder / "journal"
        director, agent = stack.enter_context(namespaces(NETEM, NETEM))
        keys = {name: folder / f"keys-{name}" for name in ("director", "agent")}
        director_key = make_secret(keys["director"] / DIRECTOR_SECRET).public
        Keyring(keys["director"] / "agents").add("a", make_secret(keys["agent"] / SECRET).public)
        write_pin(keys["agent"], f"{DIRECTOR_IP}:5570", director_key)
        fake_device.install(folder / "site")
        paths = [str(folder / "site"), str(Path(fake_device.__file__).parent), environment()["PYTHONPATH"]]
        self._environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        words = ["serve", "--listen", ADDRESS, "--sessions", str(self.sessions), "--keys", str(keys["director"])]
        self._start(stack, "director", [*director, sys.executable, "-m", "director.cli", *words])
        words = [
            "serve",
            "--director",
            ADDRESS,
            "--host",
            "a",
            "--keys",
            str(keys["agent"]),
            "--state",
            str(self.state),
        ]
        words += ["--run-dir", str(folder / "run"), "--driver", "fake", "--rate", f"fake={RATE_HZ}"]
        words += ["--set", f"fake.journal={self._journal}", "--set", 'fake.channel={"scope": "node"}']
        self._start(stack, "agent", [*agent, sys.executable, "-m", "power_agent.cli", *words])
        wait_for(lambda: "a is here" in self.log("director"), "the agent")

    def log(self, role: str) -> str:
        return (self.folder / f"{role}.log").read_text()

    def begin(self) -> str:
        """Start a session that measures. In an emulated machine the first sampler is slower than an agent waits."""
        while True:
            failed = self.log("agent").count("the sampler did not start")
            self._before = len(self._instants())
            name = self.session("start", "--hosts", "a")
            if self.log("agent").count("the sampler did not start") == failed:
                return name
            self.session("stop", name)

    def session(self, *words: str) -> str:
        """What `power-director session` prints."""
        line = [sys.executable, "-m", "director.cli", "session", *words, "--sessions", str(self.sessions)]
        done = subprocess.run(line, env=self._environment, capture_output=True, text=True, timeout=DEADLINE_S)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def journaled(self) -> list[int]:
        """The instants (ns) of all readings that the device gave in this session."""
        return self._instants()[self._before :]

    def _instants(self) -> list[int]:
        return [int(line) for line in self._journal.read_bytes().split()] if self._journal.exists() else []

    def _start(self, stack: ExitStack, role: str, line: list[str]) -> None:
        log = stack.enter_context((self.folder / f"{role}.log").open("ab"))
        process = subprocess.Popen(line, env=self._environment, stderr=log)
        stack.callback(process.wait, DEADLINE_S)
        stack.callback(process.terminate)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    why = why_no_namespaces()
    if why:
        pytest.skip(why)
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack)


def test_a_bad_network_loses_no_reading(fleet: Fleet) -> None:
    name = fleet.begin()
    durable = Durable(fleet.sessions / name / "spool" / "a.sqlite")
    wait_for(lambda: len(fleet.journaled()) >= READINGS // 2, "readings")
    wait_for(lambda: len(durable.look()) > 0, "readings that are acknowledged")
    acknowledged = set(durable.look())
    wait_for(lambda: len(fleet.journaled()) >= READINGS, "more readings")
    fleet.session("stop", name)
    manifest = json.loads((fleet.sessions / name / "manifest.json").read_text())
    assert manifest["fleet"]["state"] == "complete" and manifest["fleet"]["agents"][0]["whole"]
    (host,) = manifest["hosts"]
    stored = pq.read_table(fleet.sessions / name / host["streams"][0]["file"])["t_ns"].to_pylist()
    read = fleet.journaled()
    assert stored == sorted(set(stored)), "nothing comes twice"
    assert acknowledged <= set(stored), "what was acknowledged is there"
    assert stored == read, "nothing is lost, and nothing made up"
    (ticks,) = msgspec.convert(host["ticks"], list[TickCount])
    assert ticks.due == ticks.taken + ticks.late + ticks.missed
    assert len(stored) == ticks.taken + ticks.late + ticks.extra
