"""Beside the official client, server and checker, run unmodified where a checkout of them is named."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlperf_bench import (
    DEADLINE_S,
    ROOT,
    WORKLOAD,
    Bench,
    agent,
    wait_for,
)
from official_power_scripts import environment, needs_official_scripts, official, official_outcomes

from director.mlperf.inference.checker_versions import checker_of_round
from director.mlperf.inference.official_checks import official_checks


@needs_official_scripts
def test_the_official_checker_agrees(bench: Bench) -> None:
    with bench.serving() as server:
        done = subprocess.run(agent(server, bench), capture_output=True, text=True)
    session = Path(done.stdout.strip())
    version = checker_of_round("6.1")
    assert version is not None
    own = {result.name: result.outcome != "FAIL" for result in official_checks(session, version)}
    assert official_outcomes(session) == own


@needs_official_scripts
def test_the_official_client_measures_with_our_server(bench: Bench) -> None:
    from ntp_server import NtpServer

    logs = bench.folder / "logs"
    workload = shlex.join([sys.executable, str(WORKLOAD), str(logs), "1"])
    try:
        ntp = NtpServer()
    except OSError:
        pytest.skip("the official client asks an NTP server, and UDP port 123 cannot be bound here")
    with ntp, bench.serving() as server:
        words = ["-a", "127.0.0.1", "-p", str(server.port), "-n", "127.0.0.1", "-w", workload]
        command = official("client", [*words, "-L", str(logs), "-o", str(bench.folder / "out")])
        done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    (session,) = (bench.folder / "out").iterdir()
    outcomes = official_outcomes(session)
    assert {name for name, passes in outcomes.items() if not passes} == {"Check server sources checksum"}


@needs_official_scripts
@pytest.mark.long
def test_our_client_measures_with_the_official_server(tmp_path: Path) -> None:
    from ntp_server import NtpServer

    try:
        ntp = NtpServer()
    except OSError:
        pytest.skip("the official server asks an NTP server, and UDP port 123 cannot be bound here")
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ports.append(listener.getsockname()[1])
    ptd = tmp_path / "ptd"
    ptd.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests/simulators/ptdaemon_server.py"} "$@"\n')
    ptd.chmod(0o755)
    (tmp_path / "server.conf").write_text(
        f"[server]\nntpServer: 127.0.0.1\nlisten: 127.0.0.1 {ports[0]}\n[ptd]\nptd: {ptd}\nanalyzerCount: 1\n"
        f"[analyzer1]\ndeviceType: 77\ninterfaceFlag: -y\ndevicePort: 10.0.0.1\nchannel: 1,3\nnetworkPort: {ports[1]}\n"
    )
    logs = tmp_path / "logs"
    workload = shlex.join([sys.executable, str(WORKLOAD), str(logs), "3"])
    with ntp, (tmp_path / "server.out").open("w") as out:
        command = official("server", ["-c", str(tmp_path / "server.conf")])
        server = subprocess.Popen(command, stdout=out, stderr=out, cwd=tmp_path, env=environment())
        try:
            wait_for(lambda: "Ready to accept" in (tmp_path / "server.out").read_text())
            client = [sys.executable, "-m", "power_agent.cli", "mlperf", "--server", f"127.0.0.1:{ports[0]}"]
            client += ["--run-workload", workload, "--loadgen-logs", str(logs), "--output", str(tmp_path / "results")]
            done = subprocess.run([*client, "--stop-server"], capture_output=True, text=True)
            server.wait(DEADLINE_S)
        finally:
            server.kill()
    assert done.returncode == 0, done.stderr
    outcomes = official_outcomes(Path(done.stdout.strip()))
    assert {name for name, passes in outcomes.items() if not passes} == {"Check client sources checksum"}
