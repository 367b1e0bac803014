"""A run that can only estimate says so at once, in one line, with the way to real readings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from powercap_tree import write_cpuinfo, write_topology

from director.running.estimate_notice import estimate_notice
from drivers.contract import Channel
from power_agent.messages import DriverState, Ready, Stream

DEADLINE_S = 60.0


def stream(driver: str, *, estimate: bool) -> Stream:
    power = Channel(name=f"{driver}/d/power", device="d", quantity="power", unit="W", kind="gauge", estimate=estimate)
    clock = Channel(name=f"{driver}/d/clock", device="d", quantity="clock", unit="MHz", kind="gauge")
    return Stream(id=0, driver=driver, group="power", rate_hz=10.0, channels=[power, clock])


def notice(streams: list[Stream], *refused: tuple[str, str]) -> str:
    drivers = [DriverState(driver=name, usable=False, reason="why", fix=fix) for name, fix in refused]
    return estimate_notice(Ready(version="1", streams=streams, drivers=drivers, tail_s=0.0))


def test_the_first_step_of_the_first_way_is_told_in_one_line() -> None:
    estimated = stream("estimate", estimate=True)
    ways = (("nvml", "install the driver"), ("rapl", "run `sudo chmod a+r X`; to keep that, put the line\n  into Y"))
    text = notice([estimated], *ways)
    assert text.startswith("ESTIMATE only:")
    assert "For real readings (rapl): run `sudo chmod a+r X`; more: `power-agent devices`" in text
    assert "\n" not in text
    assert "leave out --drivers" in notice([estimated])


@pytest.mark.parametrize("streams", [[], [stream("nvml", estimate=False)]])
def test_where_something_is_measured_or_nothing_at_all_there_is_no_such_line(streams: list[Stream]) -> None:
    assert notice(streams, ("rapl", "do this")) == ""
    assert notice([*streams, stream("nvml", estimate=False), stream("estimate", estimate=True)]) == ""


def test_a_run_on_a_virtual_machine_says_what_its_user_can_do(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_cpuinfo(root, "GenuineIntel", "Xeon", flags="fpu hypervisor")
    write_topology(root, 0, package=0)
    nothing = " 0 0 0 0 0 0 0 0 0 0"
    (root / "proc/stat").write_text(f"cpu {nothing}\ncpu0{nothing}\n")
    line = [sys.executable, "-m", "director.cli", "run", "--root", root, "--drivers", "rapl,estimate", "--output=s"]
    result = subprocess.run(
        [*map(str, line), "--", "true"], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert result.returncode == 0, result.stderr
    (told,) = [line for line in result.stderr.splitlines() if "ESTIMATE only" in line]
    assert "For real readings (rapl): in a cloud take a bare-metal instance" in told
