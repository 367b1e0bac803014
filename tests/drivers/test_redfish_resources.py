"""What Redfish resources say, by the schema and not; mutated ones are never a wrong value."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import redfish_tree
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import mutated

from drivers.contract import Status, Unavailable
from drivers.redfish.resources import (
    EnvironmentMetrics,
    Health,
    NotAsDescribed,
    Power,
    PowerControl,
    Sensor,
    choose_control,
    is_whole,
    micro_kwh,
    parse,
    seconds,
    watts,
)

TREE = redfish_tree.tree()


def control(name: str, context: str | None = None, value: float | None = 100.0, member: str = "0") -> PowerControl:
    return PowerControl(member=member, name=name, watts=value, context=context)


@pytest.mark.parametrize(
    ("members", "chosen"),
    [
        ([control("anything")], 0),
        ([control("CPU", "CPU"), control("System Power Control", "Chassis")], 1),
        ([control("Memory Power"), control("CPU Power"), control("Server Power Control")], 2),
        ([control("System", None, None), control("Chassis Power Control")], 1),
        ([control("System Power Control"), control("Input"), control("GPU Power", "GPU")], 0),
        ([control("a", "Chassis"), control("b", "PowerSupplyBay")], 0),
    ],
)
def test_the_member_of_the_whole_machine_is_chosen(members: list[PowerControl], chosen: int) -> None:
    assert choose_control(members)[0] == chosen


@pytest.mark.parametrize(
    "members",
    [
        [],
        [control("CPU", "CPU")],
        [control("System", None, None)],
        [control("Node 1"), control("Node 2")],
        [control("a", "Chassis"), control("b", "Chassis")],
    ],
)
def test_members_that_may_overlap_are_never_guessed_from(members: list[PowerControl]) -> None:
    with pytest.raises(Unavailable):
        choose_control(members)


def test_values() -> None:
    assert watts(400.5) == (400.5, Status.NEW)
    assert [watts(value)[1] for value in (None, 0.0, -1.0, 2e6)] == [Status.MISSING, *[Status.INVALID] * 3]
    assert watts(400.5, Health(state="Absent"))[1] is Status.MISSING
    assert micro_kwh(1.5) == (1_500_000, Status.NEW)
    assert [micro_kwh(value)[1] for value in (None, -1.0)] == [Status.MISSING, Status.INVALID]
    told = {"PT0.5S": 0.5, "PT1M": 60.0, "P1DT1H": 90000.0, "PT0S": None, "5": None, "P": None, None: None}
    assert {text: seconds(text) for text in told} == told
    assert is_whole(parse(json.dumps(TREE[f"{redfish_tree.CHASSIS}/Sensors/TotalPower"]).encode(), Sensor))
    assert not is_whole(Sensor(name="PSU1 Input", kind="Power", unit="W", reading=1.0, context="PowerSupply"))


def judge(raw: bytes) -> tuple[float, Status] | None:
    """As the driver does; None: it is no answer."""
    try:
        metrics = parse(raw, EnvironmentMetrics)
        return watts(metrics.power.reading if metrics.power is not None else None)
    except NotAsDescribed:
        return None


def by_hand(raw: bytes) -> Any:
    """What the standard library reads, a last key winning, as JSON parsers do."""
    try:
        found = json.loads(raw)["PowerWatts"]["Reading"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found


SOUND = json.dumps(TREE[f"{redfish_tree.CHASSIS}/EnvironmentMetrics"]).encode()


def check_mutation(raw: bytes) -> None:
    """An accepted value is a number that stands there, in the place where it belongs."""
    found = judge(raw)
    if found is not None and found[1] is Status.NEW:
        due = by_hand(raw)
        assert isinstance(due, int | float) and not isinstance(due, bool) and found[0] == due
        assert math.isfinite(found[0]) and found[0] > 0
    for kind in (Power, Sensor):
        try:
            parse(raw, kind)
        except NotAsDescribed:
            continue


@given(mutated(SOUND))
@settings(max_examples=300, deadline=None)
def test_mutated_answers_are_refused_or_read_as_they_stand(raw: bytes) -> None:
    check_mutation(raw)


@pytest.mark.long
@given(st.data())
@settings(max_examples=2000, deadline=None)
def test_a_million_mutated_answers(data: st.DataObject) -> None:
    for raw in data.draw(mutated(SOUND, count=500)):
        check_mutation(raw)
