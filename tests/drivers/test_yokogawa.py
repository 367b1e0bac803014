"""Yokogawa meters, simulated behind a real pty: found, set, read, put back, and lost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from analyzer_helpers import opened, read_until, refused, statuses, values
from meter_core import MeterCore
from meter_wire import Faults, PtyMeter
from metered_load import SquareLoad
from yokogawa_meter import Wt210, Wt300

from drivers.contract import DeviceLost, ReadFailed, Status

STEADY = SquareLoad(0.0, 600.0)

Plug = Callable[..., PtyMeter]


def core(*loads: SquareLoad, **state: float) -> MeterCore:
    return MeterCore(time.monotonic, loads or (STEADY,), **{"period_s": 0.25, **state})  # type: ignore[arg-type]


def test_wt310e_is_found_read_and_put_back(plug: Plug) -> None:
    meter = Wt300(core(amperes_range=20.0, volts_range=600.0))
    before = dict(meter.set)
    line = plug(meter)
    found = opened("wt310e", port=str(line.path), volts="230", amps="3.2", crest_factor="3", line_filter="on")
    (group,) = found.driver.groups
    assert [c.name for c in group.channels] == [
        "wt310e/wall/voltage",
        "wt310e/wall/current",
        "wt310e/wall/power",
        "wt310e/wall/power_factor",
        "wt310e/wall/uncertainty",
    ]
    power = group.channels[2]
    assert (power.scope, power.update_period_s, power.window_s, power.stamped) == ("wall", 0.25, 0.25, True)
    # 230 V fit the range of 300 V, 3.2 A that of 5 A; 0.05 % of 1500 W; 0.3 % for the line filter, 0.2 % · tan φ at 0.9
    assert power.accuracy is not None
    assert power.accuracy.absolute == pytest.approx(0.75)
    assert power.accuracy.reading_fraction == pytest.approx(0.004 + 0.002 * math.sqrt(1 - 0.81) / 0.9)
    assert power.description.startswith("YOKOGAWA,WT310E,C2WA21018V,F1.04; rate 0.25; crest factor 3; mode rms")
    assert "line filter on" in power.description and "voltage range 300 V; current range 5 A" in power.description
    assert (meter.core.volts_range, meter.core.amperes_range, meter.set[":INP:FILT:LINE"]) == (300.0, 5.0, "1")
    rows = read_until(group, lambda rows: len(rows) >= 5)
    assert [values(group, row)["power"] for row in rows] == [600.0] * 5
    assert all(a.t_ns < b.t_ns for a, b in pairwise(rows))
    shown = values(group, rows[-1])
    assert (shown["voltage"], shown["power_factor"]) == (230.0, 0.95)
    # PTDaemon's formula and the line filter: 0.004 + 0.0005 · 1500 / (230 · 2.746) + 0.002 · tan φ(0.95)
    assert shown["uncertainty"] == pytest.approx(100 * (0.004 + 0.75 / (230 * 2.746) + 0.002 * 0.32868), rel=1e-3)
    found.driver.close()
    line.close()
    assert meter.set == before and not meter.errors
    assert (meter.core.volts_range, meter.core.amperes_range) == (600.0, 20.0)
    assert line.heard[-1] == ":COMM:REM OFF"


def test_wt210_is_read_in_its_own_words(plug: Plug) -> None:
    meter = Wt210(core())
    before = dict(meter.set)
    line = plug(meter)
    found = opened("wt210", port=str(line.path), power_factor="0.95")
    (group,) = found.driver.groups
    assert group.channels[2].accuracy is not None
    # 0.15 % + 0.2 % · tan φ(0.95) of reading and 0.1 % of 1500 W
    assert group.channels[2].accuracy.reading_fraction == pytest.approx(0.0015 + 0.002 * 0.32868, rel=1e-4)
    assert group.channels[2].accuracy.absolute == pytest.approx(1.5)
    shown = values(group, read_until(group, bool)[0])
    assert (shown["voltage"], shown["power"], shown["power_factor"]) == (230.0, 600.0, 0.95)
    assert shown["uncertainty"] == pytest.approx(100 * (0.0015 + 1.5 / 600 + 0.002 * 0.32868), rel=1e-4)
    found.driver.close()
    line.close()
    assert meter.set == before and not meter.errors


def test_an_integrator_that_begins_with_too_much_is_not_believed(plug: Plug) -> None:
    class Spoiled(Wt300):
        told = 0

        def _item(self, item: str) -> str:
            if item.startswith("WH"):
                self.told += 1
                return "77.0000E+00" if self.told <= 2 else super()._item(item)  # one is asked for while it is set up
            return super()._item(item)

    line = plug(Spoiled(core()))
    found = opened("wt310e", port=str(line.path), integrate="on")
    (group,) = found.driver.groups
    rows = read_until(group, lambda rows: len(rows) >= 4)
    assert [statuses(group, row)["energy"] for row in rows] == [Status.INVALID, Status.INVALID, Status.NEW, Status.NEW]
    found.driver.close()


def test_headers_are_put_back(plug: Plug) -> None:
    meter = Wt300(core())
    assert meter.header
    line = plug(meter)
    found = opened("wt310e", port=str(line.path))
    assert not meter.header
    found.driver.close()
    line.close()
    assert meter.header


def test_direct_current_has_limits_of_its_own(plug: Plug) -> None:
    line = plug(Wt300(core()))
    found = opened("wt310e", port=str(line.path), mode="dc", volts="230", amps="4")
    accuracy = found.driver.groups[0].channels[2].accuracy
    assert accuracy is not None  # 0.1 % of reading, 0.2 % of 300 V times 5 A
    assert (accuracy.reading_fraction, accuracy.absolute) == (pytest.approx(0.001), pytest.approx(3.0))
    found.driver.close()
    line = plug(Wt210(core()))
    found = opened("wt210", port=str(line.path), mode="dc", volts="230", amps="4")
    assert found.driver.groups[0].channels[2].accuracy is None
    assert found.driver.notes[0].reason.startswith("no limits of Yokogawa WT210 in DC are known")
    found.driver.close()


def test_a_slow_meter_is_asked_often_enough_to_place_its_updates(plug: Plug) -> None:
    line = plug(Wt300(core(period_s=20.0)))
    found = opened("wt310e", port=str(line.path))
    (group,) = found.driver.groups
    assert group.channels[0].update_period_s == 20.0 and group.default_hz == 5.0
    found.driver.close()


def test_the_meters_integrator_counts(plug: Plug) -> None:
    meter = Wt300(core())
    line = plug(meter)
    found = opened("wt310e", port=str(line.path), integrate="on")
    (group,) = found.driver.groups
    energy = group.channels[-1]
    assert (energy.name, energy.kind, energy.unit) == ("wt310e/wall/energy", "counter", "J")
    rows = read_until(group, lambda rows: len(rows) >= 5)
    joules = [row.values[-1] * energy.scale for row in rows]
    updates = [(b - a) / (600 * 0.25) for a, b in pairwise(joules[1:])]
    assert updates == pytest.approx([max(round(each), 1) for each in updates], abs=0.003)  # six digits of 0.1 … 1 Wh
    found.driver.close()
    assert not meter.core.holds_integral  # stopped and reset, as it was found


def test_a_foreign_integration_is_left_alone(plug: Plug) -> None:
    meter = Wt300(core())
    meter.core.start_integration()
    line = plug(meter)
    told = refused("wt310e", port=str(line.path), volts="230")
    assert told.reason.startswith("an integration is under way on the meter") and "stop it and reset it" in told.fix
    found = opened("wt310e", port=str(line.path))
    assert [note.fix for note in found.driver.notes] == ["it is left alone"]
    found.driver.close()
    assert meter.core.integrating


def test_clipping_is_said_and_warned_of(plug: Plug) -> None:
    meter = Wt300(core(SquareLoad(0.0, 600.0), amperes_range=2.0))  # 2.75 A, more than 130 % of the range
    line = plug(meter)
    found = opened("wt310e", port=str(line.path))
    (group,) = found.driver.groups
    row = read_until(group, bool)[0]
    assert statuses(group, row)["power"] == Status.OVER_RANGE
    assert statuses(group, row)["uncertainty"] == Status.MISSING
    assert any("above the meter's range" in remark for remark in group.remarks())
    meter.core.amperes_range = 5.0
    row = read_until(group, lambda rows: len(rows) >= 2)[-1]
    assert statuses(group, row)["power"] == Status.NEW
    found.driver.close()


def test_automatic_ranges_are_told_and_cost_accuracy(plug: Plug) -> None:
    meter = Wt300(core(auto_amperes=True, amperes_range=0.5, period_s=1.0))
    line = plug(meter)
    found = opened("wt310e", port=str(line.path))
    (note,) = found.driver.notes
    assert note.reason.startswith("a range is automatic, or not known")
    (group,) = found.driver.groups
    assert group.channels[2].accuracy is not None
    assert group.channels[2].accuracy.absolute == pytest.approx(0.0005 * 600 * 20)
    rows = read_until(group, lambda rows: bool(rows) and statuses(group, rows[-1])["power"] == Status.NEW)
    assert statuses(group, rows[0])["power"] == Status.OVER_RANGE  # it had not ranged up yet
    found.driver.close()


def test_a_probe_finds_the_lowest_range_that_does_not_clip(plug: Plug) -> None:
    # at most 1.83 A: 1.1 times that are 2.01 A, so 5 A
    meter = Wt300(core(SquareLoad(200.0, 400.0, 0.5), amperes_range=20.0, volts_range=600.0))
    line = plug(meter)
    found = opened("wt310e", port=str(line.path), probe_s="1")
    assert (meter.core.volts_range, meter.core.amperes_range) == (300.0, 5.0)
    assert not (meter.core.auto_volts or meter.core.auto_amperes)
    found.driver.close()
    assert (meter.core.volts_range, meter.core.amperes_range) == (600.0, 20.0)


def test_a_meter_that_is_opened_again_keeps_the_ranges_of_its_probe(plug: Plug) -> None:
    meter = Wt300(core(SquareLoad(0.0, 300.0), amperes_range=20.0))
    line = plug(meter)
    settings = {"port": str(line.path), "probe_s": "1"}
    found = opened("wt310e", **settings)
    assert meter.core.amperes_range == 2.0  # 1.37 A, and a tenth more
    line.unplug()
    with pytest.raises(DeviceLost):
        read_until(found.driver.groups[0], lambda rows: False)
    found.driver.close()
    meter.core.loads = [SquareLoad(0.0, 50.0)]  # a probe would find 0.5 A now, and U would be that of 2 A
    line.plug_in()
    again = opened("wt310e", **settings)
    assert meter.core.amperes_range == 2.0
    again.driver.close()


def test_a_probe_sees_what_clips_now_and_then(plug: Plug) -> None:
    class Peaks(Wt300):
        """In 2 A each second update clips with its peaks, which the probe's own readings do not show."""

        def _condition(self) -> int:
            peak = self.core.amperes_range <= 2 and not self.core.auto_amperes and self.core.updates % 2
            return super()._condition() | (1 << 8 if peak else 0)

    meter = Peaks(core(SquareLoad(0.0, 300.0), period_s=0.1))  # 1.37 A, of which 1.1 times fit 2 A
    line = plug(meter, baud=115200)
    found = opened("wt310e", port=str(line.path), baud="115200", probe_s="1")
    assert meter.core.amperes_range == 5.0
    found.driver.close()


def test_more_than_one_percent_is_warned_of(plug: Plug) -> None:
    line = plug(Wt300(core(SquareLoad(0.0, 50.0), amperes_range=5.0)))  # 0.75 W of 50 W
    found = opened("wt310e", port=str(line.path))
    (group,) = found.driver.groups
    read_until(group, bool)
    assert any("above 1%" in remark and "lower ranges" in remark for remark in group.remarks())
    found.driver.close()


def test_a_low_power_factor_is_warned_of(plug: Plug) -> None:
    line = plug(Wt300(core(SquareLoad(0.0, 600.0, power_factor=0.8))))
    found = opened("wt310e", port=str(line.path))
    (group,) = found.driver.groups
    read_until(group, bool)
    assert any("power factor is below 0.9" in remark for remark in group.remarks())
    found.driver.close()


def test_an_unplugged_meter_is_lost_and_comes_back_as_it_was_set(plug: Plug) -> None:
    meter = Wt300(core(amperes_range=20.0))
    line = plug(meter)
    settings = {"port": str(line.path), "amps": "4"}
    found = opened("wt310e", **settings)
    line.unplug()
    with pytest.raises(DeviceLost):
        read_until(found.driver.groups[0], lambda rows: False)
    found.driver.close()  # cannot reach it
    told = refused("wt310e", **settings)
    assert told.reason == f"there is no {line.path}"
    line.plug_in()
    assert meter.core.amperes_range == 5.0
    found = opened("wt310e", **settings)
    assert read_until(found.driver.groups[0], bool)
    found.driver.close()
    line.close()
    assert meter.core.amperes_range == 20.0  # as before the first time


@pytest.mark.parametrize(
    ("forgotten", "told"),
    [
        (Wt300.settings, "it has told of no new value for "),
        ({":NUM:NORM:NUM": "3"}, "it answers something else than it was set to"),
    ],
    ids=["all", "items"],
)
def test_a_meter_that_forgets_what_it_was_set_to_is_opened_again(
    plug: Plug, forgotten: dict[str, str], told: str
) -> None:
    meter = Wt300(core())
    line = plug(meter)
    found = opened("wt310e", port=str(line.path))
    (group,) = found.driver.groups
    read_until(group, bool)
    meter.set, meter.header = {**meter.set, **forgotten}, True  # as after a power cut
    failures: list[Exception] = []
    read_until(group, lambda rows: False, failures)
    assert isinstance(failures[-1], DeviceLost)
    assert str(failures[-1]).startswith(told)
    found.driver.close()
    again = opened("wt310e", port=str(line.path))
    assert values(again.driver.groups[0], read_until(again.driver.groups[0], bool)[0])["power"] == 600.0
    again.driver.close()


def test_a_meter_that_falls_silent_is_given_up_after_three_readings(plug: Plug) -> None:
    line = plug(Wt300(core()))
    found = opened("wt310e", port=str(line.path), timeout_s="0.2")
    (group,) = found.driver.groups
    line.faults.mute = True
    failures: list[Exception] = []
    read_until(group, lambda rows: False, failures)
    assert [type(error) for error in failures] == [ReadFailed, ReadFailed, DeviceLost]
    assert str(failures[0]) == "the meter did not answer in time"
    found.driver.close()


@pytest.mark.parametrize(
    "faults",
    [
        Faults(terminator=b"\r\n"),
        Faults(terminator=b"\r"),
        Faults(echo=True),
        Faults(latency_s=0.05),
        Faults(fragments=True),
    ],
    ids=["CR+LF", "CR", "echo", "slow", "fragments"],
)
def test_odd_lines_are_understood(plug: Plug, faults: Faults) -> None:
    line = plug(Wt300(core()), faults)
    found = opened("wt310e", port=str(line.path))
    (group,) = found.driver.groups
    rows = read_until(group, lambda rows: len(rows) >= 3)
    assert [values(group, row)["power"] for row in rows] == [600.0] * 3
    found.driver.close()


def test_a_noisy_line_loses_readings_and_never_gives_a_wrong_one(plug: Plug) -> None:
    faults = Faults(seed=5)
    line = plug(Wt300(core(period_s=0.1)), faults)
    found = opened("wt310e", port=str(line.path), timeout_s="0.2")
    (group,) = found.driver.groups
    faults.garbage, faults.mutation, faults.truncation, faults.doubled = 0.02, 0.02, 0.005, 0.02
    failures: list[Exception] = []
    rows = read_until(group, lambda rows: len(rows) >= 20, failures)
    shown = [values(group, row)["power"] for row in rows if statuses(group, row)["power"] == Status.NEW]
    assert len(shown) >= 10 and faults.spoiled > 5
    assert shown == pytest.approx([600.0] * len(shown), rel=0.012)
    found.driver.close()


def test_crest_factor_6_has_half_the_ranges_and_twice_their_share(plug: Plug) -> None:
    meter = Wt300(core(volts_range=600.0, amperes_range=20.0))
    line = plug(meter)
    found = opened("wt310e", port=str(line.path), crest_factor="6", volts="140", amps="4.5")
    assert (meter.core.volts_range, meter.core.amperes_range) == (150.0, 5.0)
    accuracy = found.driver.groups[0].channels[2].accuracy
    assert accuracy is not None and accuracy.absolute == pytest.approx(0.001 * 150 * 5)
    found.driver.close()
