"""A director and agents as processes, as users start them: measured here through the driver that estimates."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")
pytest.importorskip("power_agent.service.serve", reason="needs power-agent serve")

from served_fleet import environment, wait_for
from test_fleet_commands import Site

pytestmark = pytest.mark.long
JOB = "from power_agent import phase\nimport time\nwith phase('run'): time.sleep(2)\nraise SystemExit(5)"


class RealSite(Site):
    """With agents that are processes."""

    def serve_agent(self, host: str) -> subprocess.Popen[bytes]:
        words = ["serve", "--director", str(self.address), "--host", host, "--driver", "estimate", *self.own(host)]
        with (self.folder / f"{host}.log").open("ab") as log:
            agent = subprocess.Popen([sys.executable, "-m", "power_agent.cli", *words], stderr=log, env=environment())
        self.processes.append(agent)
        return agent

    def own(self, host: str) -> list[str]:
        return ["--state", str(self.folder / host), "--run-dir", str(self.folder / f"run-{host}")]

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(timeout=60)
        super().close()

    def __init__(self, folder: Path) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        super().__init__(folder)
        self.agents_by_host = {host: self.serve_agent(host) for host in ("a", "b")}
        wait_for(lambda: all(f"{host} is here" in self.log.read_text() for host in "ab"), "both are here")


@pytest.fixture
def real(tmp_path: Path) -> Iterator[RealSite]:
    site = RealSite(tmp_path)
    yield site
    site.close()


def energies(site: Site, name: str, phase: str) -> float:
    summary = json.loads((site.sessions / name / "summary.json").read_text())
    (found,) = [group for group in summary["phases"] if group["name"] == phase]
    return float(found["total"]["joules"])


def test_a_job_is_measured_by_real_agents(real: RealSite) -> None:
    real.run_dir = real.folder / "run-a"  # its agent is on this machine
    status, _, errors = real.do("run", "--hosts", "a,b", "--", sys.executable, "-c", JOB)
    assert status == 5, errors
    (name,) = real.names()
    assert energies(real, name, "run") > 0
    assert {host["name"]: bool(host["sync_file"]) for host in real.manifest(name)["hosts"]} == {"a": True, "b": True}
    assert "tied by wall time" not in errors and "never heard" not in errors


def test_an_agent_runs_a_job_in_a_directors_session(real: RealSite) -> None:
    words = ["run", "--director", str(real.address), *real.own("a"), "--", sys.executable, "-c", JOB]
    done = subprocess.run(
        [sys.executable, "-m", "power_agent.cli", *words], capture_output=True, text=True, env=environment(), timeout=90
    )
    assert done.returncode == 5 and "exit code 5" in done.stderr + done.stdout
    (name,) = real.names()
    work = real.manifest(name)["workload"]
    assert work["host"] == "a" and work["exit_code"] == 5 and energies(real, name, "run") > 0


def test_director_and_agent_are_killed_while_they_measure(real: RealSite) -> None:
    name = real.do("session", "start", "--hosts", "a,b")[1].strip()
    real.kill()
    real.agents_by_host["b"].send_signal(signal.SIGKILL)
    real.agents_by_host["b"].wait()
    real.serve_agent("b")
    real.serve()
    wait_for(lambda: real.log.read_text().count("b is here") == 2, "b is back")
    wait_for(lambda: real.log.read_text().count("a is here") == 2, "a is back")
    status, _, errors = real.do("session", "stop", name)
    assert status == 0, errors
    assert "the director was started again" in errors and "b: its agent was started again" in errors
    manifest = real.manifest(name)
    assert all(agent["whole"] for agent in manifest["fleet"]["agents"])
    assert all(file["rows"] for host in manifest["hosts"] for file in host["streams"])
