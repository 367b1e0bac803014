"""Whole runs with sensors over the network: their energy in closed form, and no password in anything that is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import snmp_agents
from emulators import lan_bmcs, redfish_bmcs, snmpsim, write_credentials

DEADLINE_S = 90.0
CANARY = "canary-4711"
JOB = """\
import time
from power_agent.marks import phase
with phase("busy"): time.sleep(2.0)
"""


@dataclass(frozen=True)
class Rack:
    """Emulators, and the options that have them read."""

    options: list[str]
    environment: dict[str, str]


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    """A node whose BMC tells 400 W over IPMI and Redfish, and whose PDU tells 410 W at the wall; one BMC refuses."""
    secrets = write_credentials(tmp_path / "secrets.toml", user="monitor", password=CANARY)
    wrong = write_credentials(tmp_path / "wrong.toml", user="monitor", password=f"{CANARY}-1")
    community = write_credentials(tmp_path / "community.toml", community=CANARY)
    with ExitStack() as stack:
        ipmi, _ = stack.enter_context(lan_bmcs(tmp_path, base=400, swing=0, password=CANARY))
        redfish, trusted = stack.enter_context(redfish_bmcs(tmp_path, base=400, swing=0, password=CANARY, energy=0))
        snmp = stack.enter_context(snmpsim(tmp_path, {CANARY: snmp_agents.apc(device=41, outlets=0)}))
        told = {
            "ipmi.hosts": f"127.0.0.1:{ipmi}",
            "ipmi.credentials": "env:BMC",
            "redfish.hosts": f"127.0.0.1:{redfish}",
            "redfish.credentials": str(secrets),
            "redfish.ca": trusted["ca"],
            "ipmi:other.hosts": f"127.0.0.1:{ipmi}",
            "ipmi:other.credentials": str(wrong),
            "snmp:pdu1.hosts": f"127.0.0.1:{snmp}",
            "snmp:pdu1.credentials": str(community),
        }
        options = [word for key, value in told.items() for word in ("--set", f"{key}={value}")]
        environment = {**os.environ, "BMC_USER": "monitor", "BMC_PASSWORD": CANARY}
        yield Rack(options, environment)


def holders(folder: Path) -> list[str]:
    """Files below that hold the secret."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


def test_a_run_is_right_and_keeps_no_secret(rack: Rack, tmp_path: Path) -> None:
    out = tmp_path / "sessions"
    command = [sys.executable, "-m", "director.cli", "run", "--output", str(out), *rack.options]
    command += ["--drivers", "ipmi,redfish,ipmi:other,snmp:pdu1"]
    process = subprocess.Popen(
        [*command, "--", sys.executable, "-c", JOB],
        env=rack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watched = psutil.Process(process.pid)
    command_lines: set[str] = set()
    while process.poll() is None:
        try:
            command_lines |= {" ".join(one.cmdline()) for one in [watched, *watched.children(recursive=True)]}
            process.wait(0.1)
        except (psutil.Error, subprocess.TimeoutExpired):
            continue
    told_out, told_err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, told_err
    assert CANARY not in told_out + told_err
    assert any("power_agent.sampler" in line for line in command_lines)
    assert not [line for line in command_lines if CANARY in line]
    assert holders(out) == []
    (summary_file,) = out.rglob("summary.json")
    summary = json.loads(summary_file.read_text())
    busy = next(phase for phase in summary["phases"] if phase["name"] == "busy")
    figures = {figure["name"].rpartition("/")[2]: figure for figure in [*busy["components"], *busy["not_explained"]]}
    seconds = busy["duration_s"]
    for name, watts in (("pdu1", 410), ("node", 400), ("pdu1 not explained", 10)):
        assert figures[name]["joules"] == pytest.approx(watts * seconds, rel=1e-3), name
    # ± 5 % and half a step of 10 W, and the ± 2 % that the Redfish sensor states; rectangular, k = 2.
    assert figures["pdu1"]["terms"]["meter"] == pytest.approx((0.05 * 410 + 5) * seconds / 3**0.5, rel=1e-3)
    assert figures["node"]["terms"]["meter"] == pytest.approx(0.02 * 400 * seconds / 3**0.5, rel=1e-3)
    # Two BMC drivers and one machine: one figure, not the sum. A counter of 0.1 kWh is no match for three seconds.
    assert figures["node"]["channels"] == ["redfish/node/power"]
    assert busy["total"]["joules"] == pytest.approx(410 * seconds, rel=1e-3)
    assert [text for text in summary["warnings"] if "ipmi:other" in text and "password is wrong" in text]


def test_the_list_of_devices_keeps_no_secret(rack: Rack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "power_agent.cli", "devices", "--json", *rack.options],
        env=rack.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0 and CANARY not in done.stdout + done.stderr
    usable = {driver["name"]: driver["usable"] for driver in json.loads(done.stdout)["drivers"]}
    assert usable["ipmi"] and usable["redfish"] and usable["snmp:pdu1"] and not usable["ipmi:other"]
