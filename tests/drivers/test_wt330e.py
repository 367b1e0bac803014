"""Yokogawa meters of several elements: each of them, their sum, and the meter's own Σ."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from analyzer_helpers import opened, read_until, refused
from meter_core import MeterCore
from meter_wire import PtyMeter
from metered_load import SquareLoad
from yokogawa_meter import Wt300

from drivers.contract import Status

Plug = Callable[..., PtyMeter]


def core(*loads: SquareLoad, **state: float) -> MeterCore:
    return MeterCore(time.monotonic, loads, **{"period_s": 0.25, **state})  # type: ignore[arg-type]


def test_wt330e_reads_all_elements_and_their_sum(plug: Plug) -> None:
    loads = [SquareLoad(0.0, watts) for watts in (287.1, 219.8, 93.1)]
    line = plug(Wt300(core(*loads, amperes_range=2.0)))
    found = opened("wt330e:rack1", port=str(line.path))
    (group,) = found.driver.groups
    names = [c.name for c in group.channels if c.quantity in ("power", "uncertainty")]
    assert names == [
        *(f"wt330e:rack1/rack1-{k}/power" for k in (1, 2, 3)),
        *(f"wt330e:rack1/rack1/{w}" for w in ("sigma_power", "power", "uncertainty")),
    ]
    powers = [c for c in group.channels if c.quantity == "power"]
    # the meter's own sum is in no total
    assert [(c.scope, c.parent) for c in powers] == [("rail", "rack1")] * 3 + [("none", None), ("wall", None)]
    assert powers[-1].accuracy is not None and powers[-1].accuracy.absolute == pytest.approx(3 * 0.0005 * 600)
    (row,) = read_until(group, bool)[:1]
    by_name = dict(zip([c.name for c in group.channels], row.values, strict=True))
    assert by_name["wt330e:rack1/rack1/power"] == pytest.approx(600.0)
    assert by_name["wt330e:rack1/rack1/sigma_power"] == pytest.approx(600.0) and not found.driver.notes
    apparent = 600.0 / 0.95
    expected = 0.001 + 0.0005 * 3 * 600 / apparent + 0.002 * 0.32868
    assert by_name["wt330e:rack1/rack1/uncertainty"] == pytest.approx(100 * expected, rel=1e-3)
    found.driver.close()


def test_a_wiring_that_leaves_an_element_out_of_the_meters_sum_is_told(plug: Plug) -> None:
    meter = Wt300(core(*(SquareLoad(0.0, watts) for watts in (200.0, 40.0, 100.0))))
    meter.set[":INP:WIR"] = "V3A3"
    line = plug(meter)
    found = opened("wt330e", port=str(line.path))
    (note,) = found.driver.notes
    assert note.reason == (
        "by the wiring that is set (V3A3) the meter's own Σ is P1 + P3; power is given as P1 + P2 + P3"
    )
    assert note.fix.startswith("set wiring=3p4w")
    (group,) = found.driver.groups
    row = read_until(group, bool)[0]
    by_name = dict(zip([c.name for c in group.channels], row.values, strict=True))
    assert by_name["wt330e/wall/power"] == pytest.approx(340.0)
    assert by_name["wt330e/wall/sigma_power"] == pytest.approx(300.0)
    assert row.statuses is None
    found.driver.close()
    found = opened("wt330e", port=str(line.path), wiring="3p4w")
    assert meter.set[":INP:WIR"] == "P3W4" and not found.driver.notes
    found.driver.close()
    line.close()
    assert meter.set[":INP:WIR"] == "V3A3"


def test_a_meters_sum_that_is_not_that_of_its_elements_is_no_value(plug: Plug) -> None:
    class Odd(Wt300):
        def _item(self, item: str) -> str:
            return "999.00E+00" if item == "P,SIGMA" else super()._item(item)

    line = plug(Odd(core(*(SquareLoad(0.0, watts) for watts in (200.0, 40.0, 100.0)))))
    found = opened("wt330e", port=str(line.path))
    (group,) = found.driver.groups
    row = read_until(group, bool)[0]
    assert row.statuses is not None
    by_name = dict(zip([c.name for c in group.channels], row.statuses, strict=True))
    assert by_name["wt330e/wall/sigma_power"] == Status.INVALID
    assert {status for name, status in by_name.items() if "sigma" not in name} == {Status.NEW}
    found.driver.close()


def test_a_wt332e_is_read_with_the_elements_that_it_has(plug: Plug) -> None:
    loads = [SquareLoad(0.0, watts) for watts in (200.0, 0.0, 100.0)]
    meter = Wt300(core(*loads), "YOKOGAWA,WT332E,C2WA21018V,F1.04")
    meter.set[":INP:WIR"] = "P1W3"
    line = plug(meter)
    found = opened("wt330e", port=str(line.path))
    assert not found.driver.notes
    (group,) = found.driver.groups
    row = read_until(group, bool)[0]
    by_name = dict(zip([c.name for c in group.channels], row.values, strict=True))
    assert by_name["wt330e/wall/power"] == by_name["wt330e/wall/sigma_power"] == pytest.approx(300.0)
    assert "wt330e/wall-2/power" not in by_name
    found.driver.close()
    told = refused("wt330e", port=str(line.path), elements="1,2")
    assert (told.reason, told.fix) == ("WT332E has the elements 1 and 3", "set wt330e.elements=1,3")


def test_the_integrators_of_several_elements_count_each_for_itself(plug: Plug) -> None:
    line = plug(Wt300(core(*(SquareLoad(0.0, watts) for watts in (900.0, 20.0, 300.0)))))
    found = opened("wt330e", port=str(line.path), integrate="on")
    (group,) = found.driver.groups
    energies = [place for place, channel in enumerate(group.channels) if channel.quantity == "energy"]
    rows = read_until(group, lambda rows: len(rows) >= 12)
    assert len(energies) == 3
    for row in rows:
        assert row.statuses is None or not any(row.statuses[place] for place in energies)
    found.driver.close()
