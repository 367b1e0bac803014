"""Analyzers of other makers, and what all of them do, against simulated meters behind real lines."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from analyzer_helpers import opened, read_until, refused, statuses, values
from meter_core import MeterCore
from meter_wire import Faults, PtyMeter
from metered_load import SquareLoad
from other_meters import Chroma, Gpm, Hioki, Lmg
from unprivileged import folder_for_all, no_privileges
from vxi11_meter import Vxi11Meter
from yokogawa_meter import Wt210, Wt300

from drivers.contract import DeviceLost, Status

STEADY = SquareLoad(0.0, 600.0)
DESCRIPTION = """
title = "Acme 900"
identity = "HIOKI,PW3335"
terminator = "\\r\\n"
begin = [":HEAD ON", ":TRAN:SEP 0"]
read = ":MEAS? P,U,I,PF"
separator = ";"
number = '[+-]\\d+\\.\\d+E[+-]\\d'
over = '[+-]9+\\.9+E\\+9'
items = [
    {quantity = "watts", header = "P"}, {quantity = "volts", header = "U"},
    {quantity = "amperes", header = "I"}, {quantity = "power_factor", header = "PF"},
]
period_s = 0.2
[ranges]
volts = [150, 300, 600]
amperes = [1, 5, 20]
ask_volts = ":VOLT:RANG?"
set_volts = ":VOLT:RANG {value}"
ask_amperes = ":CURR:RANG?"
set_amperes = ":CURR:RANG {value}"
[specification]
reading = 0.002
range = 0.001
source = "its manual"
"""

Plug = Callable[..., PtyMeter]


def core(*loads: SquareLoad, **state: Any) -> MeterCore:
    return MeterCore(time.monotonic, loads or (STEADY,), **{"period_s": 0.2, **state})


SINGLE = {
    "wt210": (Wt210, {}),
    "wt310e": (Wt300, {}),
    "gpm83xx": (Gpm, {}),
    "pw333x": (Hioki, {}),
    "chroma6620x": (Chroma, {"volts": "300", "amps": "8"}),
    "lmg": (Lmg, {"accuracy_percent": "0.1"}),
    "scpi": (Hioki, {"description": DESCRIPTION}),
}


@pytest.fixture(params=SINGLE)
def single(
    request: pytest.FixtureRequest, plug: Plug, tmp_path: Path
) -> tuple[str, PtyMeter, dict[str, str], MeterCore]:
    """Each driver with its meter, the settings to open it, and what the meter does."""
    make, settings = SINGLE[request.param]
    of = core()
    line = plug(make(of), baud=115200)
    given = {"port": str(line.path), "baud": "115200", "timeout_s": "0.3", **settings}
    if "description" in given:
        (tmp_path / "acme.toml").write_text(given["description"])
        given["description"] = str(tmp_path / "acme.toml")
    return request.param, line, given, of


def test_power_is_read_with_its_accuracy(single: tuple[str, PtyMeter, dict[str, str], MeterCore]) -> None:
    name, _, settings, _ = single
    found = opened(name, **settings)
    (group,) = found.driver.groups
    (power,) = [channel for channel in group.channels if channel.quantity == "power"]
    assert (power.name, power.scope, power.update_period_s or 0) == (
        f"{name}/wall/power",
        "wall",
        pytest.approx(0.2, abs=0.3),
    )
    assert power.accuracy is not None and power.accuracy.reading_fraction > 0
    rows = read_until(group, lambda rows: len(rows) >= 3)
    assert [values(group, row)["power"] for row in rows] == pytest.approx([600.0] * 3)
    assert values(group, rows[0])["voltage"] == 230.0
    found.driver.close()


def test_clipping_is_never_a_value(single: tuple[str, PtyMeter, dict[str, str], MeterCore]) -> None:
    name, _, settings, meter = single
    found = opened(name, **settings)
    (group,) = found.driver.groups
    read_until(group, bool)
    meter.amperes_range = 1.0  # 2.75 A
    rows = read_until(group, lambda rows: bool(rows) and statuses(group, rows[-1])["power"] == Status.OVER_RANGE)
    assert any("above the meter's range" in remark for remark in group.remarks())
    meter.amperes_range = 5.0
    rows = read_until(group, lambda rows: bool(rows) and statuses(group, rows[-1])["power"] == Status.NEW)
    assert values(group, rows[-1])["power"] == pytest.approx(600.0)
    found.driver.close()


def test_pulling_the_plug_loses_the_meter_and_plugging_in_finds_it(
    single: tuple[str, PtyMeter, dict[str, str], MeterCore],
) -> None:
    name, line, settings, _ = single
    found = opened(name, **settings)
    read_until(found.driver.groups[0], bool)
    line.unplug()
    failures: list[Exception] = []
    read_until(found.driver.groups[0], lambda rows: False, failures)
    assert isinstance(failures[-1], DeviceLost)
    found.driver.close()
    assert refused(name, **settings).reason == f"there is no {line.path}"
    line.plug_in()
    again = opened(name, **settings)
    assert read_until(again.driver.groups[0], bool)
    again.driver.close()


def test_a_meter_at_another_baud_rate_is_told_from_silence(
    single: tuple[str, PtyMeter, dict[str, str], MeterCore],
) -> None:
    name, line, settings, _ = single
    told = refused(name, **{**settings, "baud": "9600"})
    assert told.reason.startswith(f"what answers at {line.path} makes no sense")
    assert told.fix == f"it is probably set to another rate than 9600 baud: give {name}.baud=RATE as in its menu"
    line.faults.mute = True
    told = refused(name, **settings)
    assert told.reason == f"nobody answers at {line.path} at 115200 baud"
    assert "check that the meter is on" in told.fix


def test_a_gpm_without_status_registers_is_read_without_them(plug: Plug) -> None:
    line = plug(Gpm(core(), has_status=False))
    found = opened("gpm83xx", port=str(line.path), timeout_s="0.1", volts="230", amps="4")
    (note,) = found.driver.notes
    assert note.reason.startswith("it does not tell when it has a new value")
    (group,) = found.driver.groups
    assert not group.channels[0].stamped
    rows = read_until(group, lambda rows: len(rows) >= 4)
    assert {statuses(group, row)["power"] for row in rows} <= {Status.NEW, Status.STALE}
    found.driver.close()


def test_hioki_elements_are_added_up(plug: Plug) -> None:
    line = plug(Hioki(core(SquareLoad(0, 300), SquareLoad(0, 200), SquareLoad(0, 100))), tcp=True)
    found = opened("pw333x", port=line.place, elements="1,3", volts="230", amps="4", integrate="on")
    (group,) = found.driver.groups
    row = read_until(group, bool)[0]
    shown = dict(zip([channel.name for channel in group.channels], row.values, strict=True))
    assert shown["pw333x/wall/power"] == pytest.approx(400.0)
    assert [c.name for c in group.channels if c.quantity == "energy"] == [
        "pw333x/wall-1/energy",
        "pw333x/wall-3/energy",
    ]
    found.driver.close()


def test_an_lmg600_streams_over_tcp(plug: Plug) -> None:
    meter = Lmg(core(SquareLoad(0, 300), SquareLoad(0, 200), SquareLoad(0, 100)))
    line = plug(meter, tcp=True)
    found = opened("lmg", port=line.place, elements="1,2")
    (group,) = found.driver.groups
    row = read_until(group, bool)[0]
    shown = dict(zip([channel.name for channel in group.channels], row.values, strict=True))
    assert shown["lmg/wall/power"] == pytest.approx(500.0)
    line.drop()
    failures: list[Exception] = []
    read_until(group, lambda rows: False, failures)
    assert isinstance(failures[-1], DeviceLost)
    found.driver.close()


@pytest.mark.parametrize(
    ("settings", "reason", "fix"),
    [
        ({}, "nobody said where the meter is", "set wt310e.port=/dev/ttyUSB0 or tcp:HOST:PORT"),
        ({"port": "ttyUSB0"}, "'ttyUSB0' is no place of a device", "write /dev/ttyUSB0"),
        ({"port": "tcp:127.0.0.1"}, "'tcp:127.0.0.1' names no port", "write tcp:HOST:PORT"),
        ({"port": "/dev/no-such"}, "there is no /dev/no-such", "plug the meter in"),
        ({"port": "/dev/null"}, "/dev/null cannot be opened", "check that it is a serial line"),
        ({"port": "/dev/usbtmc99"}, "there is no /dev/usbtmc99", "sudo modprobe usbtmc"),
        ({"port": "tcp:no-such-host.invalid:1"}, "no host is called 'no-such-host.invalid'", "check the name"),
        ({"port": "x", "prot": "y"}, "it has no setting 'prot'", "use one of: wt310e.port, wt310e.baud"),
        ({"port": "x", "volts": "many"}, "wt310e.volts is 'many', which is not a number of volts", "give it as"),
        ({"port": "x", "crest_factor": "4"}, "wt310e.crest_factor is '4'", "use one of: 3, 6, 6a"),
        ({"port": "x", "elements": "2"}, "wt310e.elements is '2'", "give some of 1"),
        ({"port": "x", "probe_s": "5", "amps": "1"}, "wt310e.probe_s finds the ranges", "give one"),
        ({"port": "x", "timeout_s": "100"}, "wt310e.timeout_s is 100", "give at most 30 s"),
        ({"port": "x", "power_factor": "2"}, "wt310e.power_factor is 2", "give the least"),
        ({"port": "x", "accuracy_percent": "2"}, "wt310e.accuracy_percent is set, but the accuracy", "leave it out"),
    ],
)
def test_mistakes_are_told_with_what_to_do(settings: dict[str, str], reason: str, fix: str) -> None:
    told = refused("wt310e", **settings)
    assert told.reason.startswith(reason) and fix in told.fix, told


def test_a_meter_that_sends_by_itself_is_refused_where_a_meter_must_be_asked(tmp_path: Path) -> None:
    (tmp_path / "usbtmc0").touch()
    error = refused("lmg", port=f"usbtmc:{tmp_path}/usbtmc0")
    assert "LMG sends readings by itself" in error.reason and "serial line" in error.fix


def test_another_meter_is_named_with_its_driver(plug: Plug) -> None:
    line = plug(Wt300(core()))
    told = refused("wt210", port=str(line.path))
    assert told.reason == "another device answers: YOKOGAWA,WT310E,C2WA21018V,F1.04"
    assert told.fix == "use the driver wt310e: wt310e.port=…"


def test_a_refused_connection_names_the_port() -> None:
    told = refused("pw333x", port="tcp:127.0.0.1:1")
    assert told.reason == "127.0.0.1 refuses connections to port 1" and "one connection only" in told.fix


def test_a_range_that_the_meter_lacks_is_refused_and_nothing_is_changed(plug: Plug) -> None:
    meter = Wt300(core())
    before = dict(meter.set)
    line = plug(meter)
    told = refused("wt310e", port=str(line.path), amps="30", line_filter="on")
    assert told.reason == "Yokogawa WT310E has no range of 30 amperes; its highest is 20"
    line.close()
    assert meter.set == before


def test_a_line_of_others_names_the_group() -> None:
    with folder_for_all() as folder:
        path = folder / "tty"
        path.touch(mode=0)
        path.chmod(0)
        with no_privileges():
            told = refused("wt310e", port=str(path))
    assert told.reason == f"{path} may not be opened by this user" and "dialout" in told.fix


def test_a_line_that_is_in_use_is_told(plug: Plug) -> None:
    line = plug(Wt300(core()))
    first = opened("wt310e", port=str(line.path))
    told = refused("wt310e", port=str(line.path))
    assert told.reason == f"{line.path} is in use by another program"
    first.driver.close()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("[", "at end of document"),
        ('title = "x"', "Object missing required field `identity`"),
        (
            DESCRIPTION.replace("period_s = 0.2", 'period_s = "often"'),
            "Expected `float | null`, got `str` - at `$.period_s`",
        ),
        (DESCRIPTION.replace("period_s", "perlod_s"), "Object contains unknown field `perlod_s`"),
        (DESCRIPTION.replace('"watts"', '"Watts"'), "Invalid enum value 'Watts' - at `$.items[0].quantity`"),
        (DESCRIPTION.replace('"HIOKI,PW3335"', '"("'), "'(' is no regular expression"),
        (DESCRIPTION.replace("[150, 300, 600]", "[300, 150]"), "ranges are numbers above 0, in ascending order"),
        (DESCRIPTION.replace("[150, 300, 600]", "[300, inf]"), "ranges are numbers above 0, in ascending order"),
        (DESCRIPTION.replace("period_s = 0.2", "period_s = 0"), "period_s is 0: it is a number of seconds"),
        (DESCRIPTION.replace("period_s = 0.2", "period_s = nan"), "period_s is nan"),
        (DESCRIPTION.replace("reading = 0.002", "reading = -2.0"), "the specification says -2"),
        (DESCRIPTION.replace('":HEAD ON"', '":HEAD ÖN"'), "':HEAD ÖN' cannot be sent"),
        (DESCRIPTION.replace('":HEAD ON"', '":HEAD ON\\n*RST"'), "cannot be sent"),
        (DESCRIPTION.replace("[ranges]", "baud = 0\n[ranges]"), "baud and tcp_port are whole numbers above 0"),
        (
            DESCRIPTION + '[integrator]\nreset = []\nstart = []\nstop = []\nask_state = "?"\nidle = "("\n',
            "'(' is no regular expression",
        ),
    ],
)
def test_a_broken_description_is_told(tmp_path: Path, broken: str, reason: str) -> None:
    path = tmp_path / "meter.toml"
    path.write_text(broken)
    told = refused("scpi", port="/dev/ttyUSB0", description=str(path))
    assert told.reason.startswith(f"{path} describes no meter: ") and reason in told.reason, told
    assert told.fix == "see docs/devices/scpi-generic.md"


def test_a_wt310e_behind_vxi11_is_read_and_lost(plug: Plug) -> None:
    server = Vxi11Meter(Wt300(core()))
    found = opened("wt310e", port=server.place, volts="230", amps="4")
    (group,) = found.driver.groups
    rows = read_until(group, lambda rows: len(rows) >= 3)
    assert [values(group, row)["power"] for row in rows] == [600.0] * 3
    server.drop()
    failures: list[Exception] = []
    read_until(group, lambda rows: False, failures)
    assert isinstance(failures[-1], DeviceLost)
    found.driver.close()
    again = opened("wt310e", port=server.place)
    assert read_until(again.driver.groups[0], bool)
    again.driver.close()
    assert refused("wt310e", port="vxi11:127.0.0.1:1").reason.startswith("no VXI-11 device answers at 127.0.0.1")


def test_a_meter_that_was_left_set_by_a_killed_process_is_put_back(plug: Plug, tmp_path: Path) -> None:
    meter = Wt300(core(amperes_range=20.0))
    line = plug(meter)
    code = (
        "import os, signal, sys\n"
        "from drivers.discovery import open_drivers\n"
        "open_drivers(['wt310e'], settings={'wt310e': {'port': sys.argv[1], 'amps': '4', 'integrate': 'on'}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(line.path)], check=False, timeout=30)
    assert (meter.core.amperes_range, meter.core.integrating) == (5.0, True)
    found = opened("wt310e", port=str(line.path))  # asks for nothing to be set
    assert (meter.core.amperes_range, meter.core.holds_integral) == (20.0, False)
    found.driver.close()


@pytest.mark.parametrize("name", ["gpm83xx", "pw333x"])
def test_an_integration_of_somebody_else_is_not_reset(plug: Plug, name: str) -> None:
    meter = (Gpm if name == "gpm83xx" else Hioki)(core())
    meter.core.start_integration()
    line = plug(meter)
    told = refused(name, port=str(line.path), integrate="on")
    assert told.reason.startswith("an integration is under way on the meter")
    line.close()
    assert meter.core.integrating


def test_what_a_meter_refuses_to_be_put_back_to_is_told(plug: Plug, tmp_path: Path) -> None:
    line = plug(Wt300(core()))
    kept = tmp_path / "state/ml-power-agent/meters"
    kept.mkdir(parents=True, mode=0o700)
    (kept / "YOKOGAWA_WT310E_C2WA21018V_F1.04.json").write_text('{"x": [":INP:CURR:RANG 3"]}')
    found = opened("wt310e", port=str(line.path))
    (note,) = found.driver.notes
    assert note.reason == (
        'it refused to be put back as it was before an earlier session, which was cut off: 222,"Data out of range"'
    )
    found.driver.close()


def test_an_lmg_that_a_killed_process_left_sending_is_opened_again(plug: Plug) -> None:
    class Interrupting(Lmg):
        """It sends a reading just before it answers."""

        def handle(self, line: str) -> str | None:
            answer = super().handle(line)
            return f"{next(iter(map(self._item, self.actions)))};1;2;3\n{answer}" if self.sends and answer else answer

    meter = Interrupting(core())
    line = plug(meter, baud=115200)
    settings = {"port": str(line.path), "baud": "115200", "accuracy_percent": "0.1"}
    found = opened("lmg", **settings)
    read_until(found.driver.groups[0], bool)
    assert meter.sends and meter.is_short
    found.driver._meter.dialog.port.close()  # type: ignore[attr-defined]  # as when its process is killed
    again = opened("lmg", **settings)
    (group,) = again.driver.groups
    assert values(group, read_until(group, bool)[0])["power"] == pytest.approx(600.0)
    again.driver.close()
    line.close()
    assert not meter.sends and not meter.is_short


def test_lines_that_had_to_wait_are_placed_a_period_apart(plug: Plug) -> None:
    class Late(Lmg):
        """Its lines come ten at a time, as to somebody who was held up."""

        waiting = 0

        def unasked(self) -> Iterator[str]:
            for line in super().unasked():
                self.waiting += 1
                if self.waiting == 10:
                    self.waiting = 0
                    yield from [line] * 10

    line = plug(Late(core(period_s=0.1)), baud=115200)
    found = opened("lmg", port=str(line.path), baud="115200", accuracy_percent="0.1")
    (group,) = found.driver.groups
    rows = read_until(group, lambda rows: len(rows) >= 20)
    steps = sorted(b.t_ns - a.t_ns for a, b in pairwise(rows))
    assert steps[0] > 0 and 0.05e9 < steps[len(steps) // 2] <= 0.1e9
    found.driver.close()


def test_a_device_that_never_stops_talking_is_given_up(plug: Plug) -> None:
    class Chatter(Hioki):
        talks = False

        def handle(self, line: str) -> str | None:
            return None if self.talks else super().handle(line)

        def unasked(self) -> Iterator[str]:
            if self.talks:
                yield "U +230.12E+0"

    meter = Chatter(core())
    line = plug(meter, baud=115200)
    found = opened("pw333x", port=str(line.path), baud="115200", timeout_s="0.1", volts="230", amps="4")
    (group,) = found.driver.groups
    meter.talks = True
    failures: list[Exception] = []
    read_until(group, lambda rows: False, failures)
    assert isinstance(failures[-1], DeviceLost)
    found.driver.close()


def test_what_others_may_write_is_not_told_to_a_meter(plug: Plug, tmp_path: Path) -> None:
    meter = Wt300(core(amperes_range=20.0))
    line = plug(meter)
    kept = tmp_path / "state/ml-power-agent/meters"
    kept.mkdir(parents=True)
    for mode in (0o777, 0o700):
        (kept / "YOKOGAWA_WT310E_C2WA21018V_F1.04.json").write_text('{"x": [":INP:CURR:RANG 0.5"]}')
        kept.chmod(mode)
        opened("wt310e", port=str(line.path)).driver.close()
        assert (":INP:CURR:RANG 0.5" in line.heard) == (mode == 0o700)


@pytest.mark.parametrize("seed", range(3))
def test_a_noisy_line_gives_no_wrong_power(plug: Plug, seed: int) -> None:
    faults = Faults(seed=seed)
    line = plug(Hioki(core()), faults, tcp=True)
    found = opened("pw333x", port=line.place, timeout_s="0.1", volts="230", amps="4")
    (group,) = found.driver.groups
    faults.garbage, faults.mutation, faults.truncation, faults.doubled, faults.loss = 0.1, 0.2, 0.05, 0.1, 0.05
    failures: list[Exception] = []
    rows = read_until(group, lambda rows: len(rows) >= 30, failures)
    good = [values(group, row)["power"] for row in rows if statuses(group, row)["power"] in (Status.NEW, Status.STALE)]
    assert good == pytest.approx([600.0] * len(good), rel=0.012)
    assert failures or faults.spoiled
    found.driver.close()


def test_the_description_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs/devices/scpi-generic.md"
    path = tmp_path / "acme.toml"
    path.write_text(page.read_text().partition("```toml\n")[2].partition("```")[0])
    told = refused("scpi", port="/dev/no-such", description=str(path), filter="on")
    assert told.reason == "there is no /dev/no-such"  # everything before that was understood
