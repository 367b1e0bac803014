"""A host with an agent whose device keeps a journal of what it read, and a place for a director: real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import fake_device
from scripted_director import ScriptedDirector, free_ports

from power_agent.spool import SpoolReader
from power_agent.wire.sockets import Address

HOST = "node7"


class Site:
    """A host with an agent, and a place for a director."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = Address("127.0.0.1", free_ports())
        self.state, self.run_dir, self.journal = folder / "state", folder / "run", folder / "journal"
        self.log = folder / "agent.log"
        fake_device.install(folder / "site")
        paths = [str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")]), *sys.path]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XDG_CONFIG_HOME": str(folder / "cfg")}
        self.agents: list[subprocess.Popen[bytes]] = []
        self.directors: list[ScriptedDirector] = []

    def options(self) -> list[str]:
        return [
            *("--director", str(self.address), "--host", HOST, "--state", str(self.state)),
            *("--run-dir", str(self.run_dir), "--driver", "fake", "--set", f"fake.journal={self.journal}"),
        ]

    def serve(self, *more: str, **options: object) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            agent = subprocess.Popen(  # type: ignore[call-overload]
                [sys.executable, "-m", "power_agent.cli", "serve", *self.options(), *more],
                env=self.environment,
                stderr=log,
                **options,
            )
        self.agents.append(agent)
        return agent  # type: ignore[no-any-return]

    def direct(self, **options: object) -> ScriptedDirector:
        director = ScriptedDirector(self.folder / "store", self.address, **options)  # type: ignore[arg-type]
        self.directors.append(director)
        return director

    def told(self) -> str:
        return self.log.read_text()

    def journaled(self) -> list[int]:
        """The instants (ns) of all readings that the device gave."""
        return [int(line) for line in self.journal.read_text().split()] if self.journal.exists() else []

    def close(self) -> None:
        for agent in self.agents:
            agent.kill()
            agent.wait()
        for session in self.state.glob("*/*.sqlite"):
            kill_sampler(session)
        for director in self.directors:
            director.close()


def sampler_pid(spool: Path) -> int:
    reader = SpoolReader(spool)
    try:
        return int(reader.meta()["pid"])
    finally:
        reader.close()


def kill_sampler(spool: Path) -> None:
    with contextlib.suppress(Exception):
        os.kill(sampler_pid(spool), signal.SIGKILL)
