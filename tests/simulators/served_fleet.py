"""A director that serves in a thread of this process, with agents whose behaviour a test chooses."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from scripted_agent import ScriptedAgent

from director.fleet.finish_session import finish_session
from director.fleet.fleet_session import Bounds
from director.fleet.local_socket import DirectorClient, new_request
from director.fleet.serve import ServeOptions, Server
from power_agent.wire.messages import SessionAnswer, SessionRequest
from power_agent.wire.sockets import Address, AddressProblem

DEADLINE_S = 30.0
QUICK = Bounds(ready_s=1.0, stop_s=1.0, hand_over_s=1.0, silent_s=1.0, repeat_s=0.2, away_s=1.0)


def wait_for(is_so: Callable[[], object], what: str) -> None:
    """Wait, but not for ever."""
    end_s = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < end_s, f"waited for: {what}"
        time.sleep(0.01)


def free_address() -> Address:
    """Three ports in a row that nobody uses."""
    from test_fleet_listener import free_ports

    return Address("127.0.0.1", free_ports())


class WorkHere:
    """Computes a session's results in a thread: a process of its own would have to load all that is loaded here."""

    def __init__(self, session: Path) -> None:
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, args=(session,))
        self._thread.start()

    def _run(self, session: Path) -> None:
        try:
            finish_session(session)
        except Exception as error:
            self._failure = str(error)

    def poll(self) -> bool | None:
        """None: not yet; whether it went well."""
        return None if self._thread.is_alive() else self._failure is None

    def output(self) -> str:
        """Why it did not."""
        return self._failure or ""

    def end(self) -> None:
        """A thread cannot be ended."""
        self._thread.join()


class ServedFleet:
    """`agent` starts an agent; `ask` is what commands on the director's machine do."""

    def __init__(self, folder: Path, bounds: Bounds = QUICK) -> None:
        self.folder = folder
        self.sessions = folder / "sessions"
        self.sessions.mkdir(exist_ok=True)
        self.address = free_address()
        self.told: list[str] = []
        self.agents: list[ScriptedAgent] = []
        self._bounds = bounds
        self.start()

    def start(self) -> None:
        """Serve, after `stop` too."""
        options = ServeOptions(self.address, self.sessions, None, None, self._bounds, WorkHere)
        end_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                self.server = Server(options, self.told.append)
                break
            except AddressProblem:  # the one before is not quite gone
                assert time.monotonic() < end_s
                time.sleep(0.05)
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()
        self.client = DirectorClient(self.sessions)

    def stop(self) -> None:
        """End in order."""
        self.client.close()
        self.server.stop()
        self._thread.join()

    def close(self) -> None:
        """End all."""
        for agent in self.agents:
            agent.close()
        self.stop()

    def agent(self, host: str, **more: Any) -> ScriptedAgent:
        """Start an agent, and wait until it is known."""
        before = sum(f"{host}" in text for text in self.told)
        agent = ScriptedAgent(self.address, self.folder / "agents", host, **more)
        self.agents.append(agent)
        wait_for(lambda: sum(f"{host}" in text for text in self.told) > before, f"{host} is here")
        return agent

    def ask(self, want: Any, session: str | None = None, until: str | None = None, **more: Any) -> SessionAnswer:
        """An answer: the first one, or the first with this state, or a refusal."""
        request = SessionRequest(request=new_request(), want=want, session=session, **more)
        answer = self.client.follow(request, lambda answer: until in (None, answer.state), DEADLINE_S)
        assert answer is not None
        return answer

    def begin(self, *hosts: str, **more: Any) -> str:
        """Start a session, and wait until it measures. Its name."""
        answer = self.ask("start", until="measuring", hosts=list(hosts), **more)
        assert answer.state == "measuring" and answer.session is not None, answer
        return answer.session

    def end(self, session: str) -> dict[str, Any]:
        """Stop a session and wait for its end. Its manifest."""
        assert self.ask("stop", session, until="complete").state == "complete"
        return self.manifest(session)

    def manifest(self, session: str) -> dict[str, Any]:
        """As it is on the disk."""
        found: dict[str, Any] = json.loads((self.sessions / session / "manifest.json").read_text())
        return found

    def warnings(self, session: str) -> str:
        """Of the report."""
        return "\n".join(json.loads((self.sessions / session / "summary.json").read_text())["warnings"])

    def rows(self, session: str, host: str) -> int:
        """Readings of a host in a session that is complete; each instant once."""
        instants = pq.read_table(self.sessions / session / "traces" / host / "made.g0.parquet")["t_ns"].to_pylist()
        assert instants == sorted(set(instants))
        return len(instants)


def states(manifest: dict[str, Any]) -> list[str]:
    """Through which a session came."""
    return [transition["state"] for transition in manifest["fleet"]["transitions"]]


def own_boot_id() -> str:
    """Of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def environment() -> dict[str, str]:
    """For commands that a test starts."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
