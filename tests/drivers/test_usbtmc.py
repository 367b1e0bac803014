"""A meter behind USB-TMC: the kernel's own driver between ours and a simulated device."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from analyzer_helpers import opened, read_until, refused, values
from meter_core import MeterCore
from metered_load import SquareLoad
from usbip_device import why_no_usb
from usbtmc_meter import UsbTmcMeter
from yokogawa_meter import Wt300

from drivers.contract import DeviceLost, ReadFailed
from drivers.line_port import open_port
from drivers.links import SerialSettings

pytestmark = pytest.mark.machine
WATTS = 600.0
SLOW_S = "3"  # an answer takes as long as the emulated machine does


@pytest.fixture
def meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UsbTmcMeter]:
    why = why_no_usb()
    if why:
        pytest.skip(why)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    core = MeterCore(time.monotonic, [SquareLoad(0.0, WATTS)], period_s=0.5, amperes_range=20.0, auto_volts=True)
    made = UsbTmcMeter(Wt300(core))
    yield made
    if made.path.exists():
        made.unplug()


def powers(found: object, number: int) -> list[float]:
    (group,) = found.driver.groups  # type: ignore[attr-defined]
    return [values(group, row)["power"] for row in read_until(group, lambda rows: len(rows) >= number)]


def test_a_wt310e_is_identified_set_read_and_put_back(meter: UsbTmcMeter) -> None:
    core = meter.meter.core  # type: ignore[attr-defined]
    found = opened("wt310e", port=str(meter.path), volts="230", amps="4", timeout_s=SLOW_S)
    (power,) = [channel for channel in found.driver.groups[0].channels if channel.quantity == "power"]
    assert "YOKOGAWA,WT310E,C2WA21018V" in power.description
    assert (core.volts_range, core.amperes_range, core.auto_volts) == (300.0, 5.0, False)
    assert powers(found, 5) == pytest.approx([WATTS] * 5)
    found.driver.close()
    assert (core.amperes_range, core.auto_volts) == (20.0, True)
    assert (meter.clears, meter.halts) == (0, 0)


def test_pulling_the_cable_loses_the_meter_and_plugging_in_finds_it_and_puts_it_back(meter: UsbTmcMeter) -> None:
    core = meter.meter.core  # type: ignore[attr-defined]
    found = opened("wt310e", port=str(meter.path), volts="230", amps="4", timeout_s=SLOW_S)
    powers(found, 1)
    meter.unplug()
    failures: list[Exception] = []
    read_until(found.driver.groups[0], lambda rows: False, failures)
    assert isinstance(failures[-1], DeviceLost)
    found.driver.close()
    path = str(meter.path)
    assert refused("wt310e", port=path).reason == f"there is no {path}"
    assert core.amperes_range == 5.0
    meter.plug_in()
    again = opened("wt310e", port=path, volts="230", amps="4", timeout_s=SLOW_S)
    assert powers(again, 2) == pytest.approx([WATTS] * 2)
    again.driver.close()
    assert (core.amperes_range, core.auto_volts) == (20.0, True)


def test_an_answer_that_does_not_come_fails_a_reading_and_the_next_one_is_right(meter: UsbTmcMeter) -> None:
    found = opened("wt310e", port=str(meter.path), volts="230", amps="4", timeout_s="1")
    (group,) = found.driver.groups
    meter.mute = True
    with pytest.raises(ReadFailed):
        group.read()
    meter.mute = False
    assert powers(found, 3) == pytest.approx([WATTS] * 3)
    assert meter.clears > 0 and meter.halts == 0
    found.driver.close()


def test_a_meter_that_answers_nothing_is_told(meter: UsbTmcMeter) -> None:
    meter.mute = True
    told = refused("wt310e", port=str(meter.path), timeout_s="0.3")
    assert told.reason == f"nobody answers at {meter.path}"
    assert told.fix == "check that the meter is on, and set to this interface"


def test_a_message_in_several_transfers_is_one_line(meter: UsbTmcMeter) -> None:
    meter.most_bytes = 7
    found = opened("wt310e", port=str(meter.path), volts="230", amps="4", timeout_s=SLOW_S)
    assert powers(found, 2) == pytest.approx([WATTS] * 2)
    found.driver.close()


@pytest.mark.parametrize("size", [499, 500, 501, 4084, 8180])
def test_lines_of_any_length_come_whole(meter: UsbTmcMeter, size: int) -> None:
    """Around one packet of 512 bytes, the kernel's buffer of 4096, and more, each with a header of 12."""

    class Long:
        def handle(self, line: str) -> str:
            return line[0] * (size - 1)  # and a line end

    meter.meter = Long()
    port = open_port(str(meter.path), SerialSettings())
    for letter in "ab":
        port.write(letter)
        assert port.read_line(10.0) == letter.encode() * (size - 1)
    port.close()


def test_what_a_killed_process_asked_for_does_not_hold_up_the_next_one(meter: UsbTmcMeter) -> None:
    meter.mute = True
    code = (
        "import sys\n"
        "from drivers.line_port import open_port\n"
        "from drivers.links import SerialSettings\n"
        "port = open_port(sys.argv[1], SerialSettings())\n"
        "port.write(':RATE?')\n"
        "print('asks', flush=True)\n"
        "port.read_line(2.0)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(meter.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "asks\n"
    in_use = refused("wt310e", port=str(meter.path))
    assert in_use.reason == f"{meter.path} is in use by another program"
    while not meter.asked:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    meter.mute = False
    found = opened("wt310e", port=str(meter.path), timeout_s=SLOW_S)
    assert powers(found, 2) == pytest.approx([WATTS] * 2)
    assert meter.halts == 1
    found.driver.close()
