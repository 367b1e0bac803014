"""Ranges of each meter: set, checked, found automatic, and put back as they were."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from analyzer_helpers import opened, read_until, refused, values
from meter_core import MeterCore
from meter_wire import PtyMeter
from metered_load import SquareLoad
from other_meters import Chroma, Gpm, Hioki, Lmg
from yokogawa_meter import Wt210, Wt300

from drivers.analyzer_ranges import range_for_seen
from drivers.analyzers.description import Description

Plug = Callable[..., PtyMeter]
THREE = (SquareLoad(0.0, 300.0), SquareLoad(0.0, 200.0), SquareLoad(0.0, 100.0))


def core(*loads: SquareLoad, **state: Any) -> MeterCore:
    return MeterCore(time.monotonic, loads or (SquareLoad(0.0, 600.0),), **{"period_s": 0.2, **state})


class Case(NamedTuple):
    """A meter, how it is left by others, and what 230 V and 3 A make of its ranges."""

    driver: str
    make: Callable[[], Any]
    ranges: tuple[float, float]
    settings: Mapping[str, str] = MappingProxyType({})


def hand_set() -> MeterCore:
    return core(volts_range=600.0, amperes_range=20.0, auto_volts=True)


def lmg(model: str, *loads: SquareLoad) -> Lmg:
    return Lmg(core(*loads), model)


CASES = {
    "wt210": Case("wt210", lambda: Wt210(hand_set()), (300.0, 5.0)),
    "wt310e": Case("wt310e", lambda: Wt300(hand_set()), (300.0, 5.0)),
    "gpm83xx": Case("gpm83xx", lambda: Gpm(hand_set()), (300.0, 5.0)),
    "pw3335": Case("pw333x", lambda: Hioki(hand_set()), (300.0, 5.0)),
    "pw3337": Case(
        "pw333x", lambda: Hioki(core(*THREE, volts_range=600.0, amperes_range=20.0, auto_volts=True)), (300.0, 5.0)
    ),
    "66202": Case("chroma6620x", lambda: Chroma(core()), (300.0, 8.0)),
    "66205": Case("chroma6620x", lambda: Chroma(core(), "66205"), (300.0, 5.0)),
    "lmg95": Case("lmg", lambda: lmg("LMG95"), (250.0, 5.0)),
    "lmg450": Case("lmg", lambda: lmg("LMG450", *THREE), (250.0, 5.0), {"elements": "1,3"}),
    "lmg500": Case("lmg", lambda: lmg("LMG500", *THREE), (250.0, 5.0), {"elements": "2"}),
    "lmg670": Case("lmg", lambda: lmg("LMG670", *THREE), (250.0, 5.0), {"elements": "1,2,3"}),
}


def state(meter: Any) -> dict[str, Any]:
    """All that a meter is set to."""
    of = {name: getattr(meter.core, name) for name in ("volts_range", "amperes_range", "auto_volts", "auto_amperes")}
    if isinstance(meter, Lmg):
        of = {**meter.ranges, **meter.automatic, "is_short": meter.is_short, "sends": meter.sends}
    return {**of, **getattr(meter, "set", {}), "header": getattr(meter, "header", None)}


@pytest.mark.parametrize("name", CASES)
def test_ranges_are_set_checked_and_put_back(plug: Plug, name: str) -> None:
    driver, make, ranges, settings = CASES[name]
    meter = make()
    before = state(meter)
    line = plug(meter, baud=115200)
    settings = {"port": str(line.path), "baud": "115200", **settings}
    found = opened(driver, volts="230", amps="3", **settings)
    assert (meter.core.volts_range, meter.core.amperes_range) == ranges
    assert not found.driver.notes
    (group,) = found.driver.groups
    told = next(
        channel.description for channel in group.channels if channel.quantity == "power" and channel.description
    )
    assert f"voltage range {ranges[0]:g} V; current range {ranges[1]:g} A" in told
    assert read_until(group, bool)
    found.driver.close()
    line.close()
    after = state(meter)
    if name.startswith(("wt", "gpm", "pw")):  # on automatic ranges it has moved on
        before["volts_range"] = after["volts_range"]
    assert after == before


@pytest.mark.parametrize("name", CASES)
def test_ranges_have_room_for_what_a_ranging_stage_saw(plug: Plug, name: str) -> None:
    driver, make, ranges, settings = CASES[name]
    meter = make()
    line = plug(meter, baud=115200)
    settings = {"port": str(line.path), "baud": "115200", "probe_s": "0.0", **settings}
    found = opened(driver, volts_seen="230", amps_seen="2.9", **settings)
    assert (meter.core.volts_range, meter.core.amperes_range) == ranges
    assert not found.driver.notes
    found.driver.close()


@pytest.mark.parametrize(
    ("seen", "chosen"), [(0.9, 1.0), (0.95, 2.0), (17.0, 20.0), (18.5, 40.0), (39.0, 40.0), (45.0, 40.0)]
)
def test_a_range_for_what_was_seen_has_a_tenth_of_room_up_to_the_highest(seen: float, chosen: float) -> None:
    assert range_for_seen((1.0, 2.0, 5.0, 10.0, 20.0, 40.0), seen, 1.1) == chosen


@pytest.mark.parametrize("name", CASES)
def test_automatic_ranges_are_seen_and_cost_accuracy(plug: Plug, name: str) -> None:
    driver, make, _, settings = CASES[name]
    meter = make()
    line = plug(meter, baud=115200)
    settings = {"port": str(line.path), "baud": "115200", **settings}
    found = opened(driver, volts="230", amps="auto", **settings)
    (note,) = found.driver.notes
    assert note.reason.startswith("a range is automatic, or not known") and note.fix.startswith("fix both: volts=")
    (group,) = found.driver.groups
    told = next(
        channel.description for channel in group.channels if channel.quantity == "power" and channel.description
    )
    assert "current range not fixed" in told
    found.driver.close()


def test_all_channels_of_an_lmg_are_set_alike_and_put_back_each(plug: Plug) -> None:
    meter = lmg("LMG670", *THREE)
    meter.ranges["irng2"], meter.automatic["iauto2"] = 1.2, False
    line = plug(meter, baud=115200)
    found = opened("lmg", port=str(line.path), elements="1,2", volts="230", amps="3", accuracy_percent="0.1")
    assert [meter.ranges[f"irng{place}"] for place in (1, 2, 3)] == [5.0, 5.0, 10.0]
    assert [meter.automatic[f"iauto{place}"] for place in (1, 2, 3)] == [False, False, True]
    (group,) = found.driver.groups
    assert values(group, read_until(group, bool)[0])["wall/power"] == pytest.approx(500.0)
    found.driver.close()
    line.close()
    assert [meter.ranges[f"irng{place}"] for place in (1, 2)] == [10.0, 1.2]
    assert [meter.automatic[f"iauto{place}"] for place in (1, 2)] == [True, False]


@pytest.mark.parametrize("name", ["pw333x", "lmg"])
def test_a_meter_that_does_not_answer_for_its_ranges_is_believed_to_be_set_as_the_user_says(
    plug: Plug, name: str
) -> None:
    meter: Any = Hioki(core(*THREE), answers_ranges=False) if name == "pw333x" else Lmg(core(), answers_ranges=False)
    before = state(meter)
    line = plug(meter, baud=115200)
    settings = {"port": str(line.path), "baud": "115200", "timeout_s": "0.2"}
    found = opened(name, volts="230", amps="3", **settings)
    assert [note.reason.partition(" does not answer")[2] for note in found.driver.notes] == [
        " what its ranges are: they are neither set nor checked"
    ]
    (group,) = found.driver.groups
    told = next(
        channel.description for channel in group.channels if channel.quantity == "power" and channel.description
    )
    assert "current range 5 A" in told
    assert {key: value for key, value in state(meter).items() if "rang" in key} == {
        key: value for key, value in before.items() if "rang" in key
    }
    assert read_until(group, bool)
    found.driver.close()
    seen = opened(name, volts_seen="230", amps_seen="3", **settings)
    told = next(channel.description for channel in seen.driver.groups[0].channels if channel.description)
    assert "current range not fixed" in told  # whoever saw that has set nothing
    seen.driver.close()
    if name == "pw333x":
        assert "they are neither set nor checked" in refused(name, probe_s="1", **settings).reason


def test_channels_on_several_ranges_are_not_set_where_they_could_not_be_put_back(plug: Plug) -> None:
    class Mixed(Hioki):
        def handle(self, line: str) -> str | None:
            return ":CURRENT:RANGE 5,20,5" if line == ":CURR:RANG?" else super().handle(line)

    meter = Mixed(core(*THREE))
    line = plug(meter)
    told = refused("pw333x", port=str(line.path), amps="3")
    assert told.reason == ("Hioki PW3337 is set to several ranges of current (5,20,5), which could not be put back")
    assert told.fix == "set all channels to one range on the meter, or leave amps out"
    found = opened("pw333x", port=str(line.path))  # the highest counts
    power = [channel for channel in found.driver.groups[0].channels if channel.quantity == "power"][-1]
    assert power.accuracy is not None and power.accuracy.absolute == pytest.approx(3 * 0.0005 * 300 * 20)
    found.driver.close()


def test_a_shunt_that_forbids_a_range_is_told(plug: Plug) -> None:
    meter = Chroma(core())
    meter.set["CURR:SHUN"], meter.set["CURR:RANG"] = "LOW", "A2L"
    line = plug(meter)
    told = refused("chroma6620x", port=str(line.path), volts="230", amps="3")
    assert told.reason == "Chroma 66202 was told the range 8 amperes and answers 'A2L'" and "shunt" in told.fix
    found = opened("chroma6620x", port=str(line.path), volts="230", amps="3", shunt="auto")
    assert meter.core.amperes_range == 8.0
    found.driver.close()
    line.close()
    assert (meter.set["CURR:SHUN"], meter.set["CURR:RANG"]) == ("LOW", "A2L")


@pytest.mark.parametrize(
    ("shunt", "amps", "word"), [("low", "0.15", "A04"), ("high", "0.15", "A02"), ("high", "1", "A2H")]
)
def test_a_range_is_one_of_the_shunt_that_is_asked_for(plug: Plug, shunt: str, amps: str, word: str) -> None:
    meter = Chroma(core(SquareLoad(0.0, 20.0)))
    line = plug(meter)
    found = opened("chroma6620x", port=str(line.path), volts="230", amps=amps, shunt=shunt)
    assert meter.set["CURR:RANG"] == word
    found.driver.close()
    told = refused("chroma6620x", port=str(line.path), volts="230", amps="3", shunt="low")
    assert told.reason == "Chroma 66202 has no range of 3 amperes; its highest is 2"


def test_ranges_that_can_only_be_read_are_read(plug: Plug) -> None:
    meter = Chroma(core(), "66204")
    meter.set["VOLT:RANG"], meter.set["CURR:RANG"] = "V300", "A8"
    line = plug(meter)
    found = opened("chroma6620x", port=str(line.path), volts="230", amps="3")
    power = next(channel for channel in found.driver.groups[0].channels if channel.quantity == "power")
    assert power.accuracy is not None and power.accuracy.absolute == pytest.approx(0.001 * 300 * 8)
    found.driver.close()
    told = refused("chroma6620x", port=str(line.path), volts="230", amps="12")
    assert told.reason == "Chroma 66204 is set to a range of 8 amperes, and the load has 12"
    assert told.fix == "set a higher one on the meter: this driver cannot"
    told = refused("chroma6620x", port=str(line.path), shunt="low")
    assert told.reason == "it has no setting 'shunt'"


def test_the_window_of_a_chroma_is_that_of_its_readings(plug: Plug) -> None:
    meter = Chroma(core(period_s=2.5))
    line = plug(meter)
    found = opened("chroma6620x", port=str(line.path))
    assert {channel.window_s for channel in found.driver.groups[0].channels} == {2.5}
    assert meter.set["MEAS:MODE"] == "WINDOW"
    found.driver.close()
    line.close()
    assert meter.set["MEAS:MODE"] == "AVERAGE"


def test_separators_that_others_set_are_set_right_and_put_back(plug: Plug) -> None:
    meter = Chroma(core())
    meter.set["SYST:TRAN:SEP"], meter.set["SYST:HEAD"] = "1", "ON"
    line = plug(meter)
    found = opened("chroma6620x", port=str(line.path))
    (group,) = found.driver.groups
    assert values(group, read_until(group, bool)[0])["power"] == pytest.approx(600.0)
    found.driver.close()
    line.close()
    assert (meter.set["SYST:TRAN:SEP"], meter.set["SYST:HEAD"]) == ("1", "ON")


def test_a_serial_number_that_looks_like_another_model_is_none(plug: Plug) -> None:
    line = plug(Hioki(core(*THREE), serial="133360123"))
    found = opened("pw333x", port=str(line.path), volts="230", amps="4")
    names = [channel.name for channel in found.driver.groups[0].channels if channel.quantity == "power"]
    assert names == [*(f"pw333x/wall-{place}/power" for place in (1, 2, 3)), "pw333x/wall/power"]
    found.driver.close()


def test_a_fast_rate_of_a_gpm_costs_accuracy(plug: Plug) -> None:
    line = plug(Gpm(core(period_s=0.1)), baud=115200)
    found = opened("gpm83xx", port=str(line.path), baud="115200", volts="230", amps="4", power_factor="1")
    accuracy = next(c for c in found.driver.groups[0].channels if c.quantity == "power").accuracy
    assert accuracy is not None and accuracy.reading_fraction == pytest.approx(0.001 + 0.0005)
    found.driver.close()


def test_a_description_needs_questions_for_what_it_sets() -> None:
    from drivers.analyzers.description import Item, Ranges

    for broken, reason in (
        ({"set_volts": ":V {value}"}, "is asked for, too"),
        ({"ask_volts": ":V?", "set_volts": ":V"}, "has no {value}"),
        ({"ask_volts": ":V?", "set_volts": ":V {value}", "volt_words": {"V150": 150.0}}, "a range has no word"),
        ({"elements": ()}, "elements is empty"),
    ):
        ranges = Ranges(volts=(300.0,), amperes=(5.0,), **broken)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=reason):
            Description(title="x", identity="x", read="?", items=(Item(quantity="watts"),), ranges=ranges)
