"""What was found out about channels: kept whole, and filled in only where a driver does not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.contract import Channel, Driver, Group
from drivers.discovery import Opened
from power_agent.characteristics import (
    Characteristic,
    Characteristics,
    CharacteristicsUnreadable,
    for_sampling,
    load_characteristics,
    store_characteristics,
)
from power_agent.device_table import as_json, as_text
from power_agent.event_log import EventLog
from power_agent.stream_plan import plan_streams, tail_s

BMC = Channel(name="bmc/0/power", device="0", quantity="power", unit="W", kind="gauge", scope="node", model="X1")


def found(**changes: Any) -> Characteristic:
    values: dict[str, Any] = {
        "channel": "bmc/0/power", "model": "X1", "update_period_s": 1.0, "window_s": 4.0, "delay_s": 0.5,
        "delay_u_s": 0.1, "noise": 2.0, "wall_ns": 1_784_000_000_000_000_000, "session": "/s",
    }  # fmt: skip
    return Characteristic(**values | changes)


class OneGroup(Group):
    name, default_hz, max_hz = "power", 5.0, 10.0

    def __init__(self, channel: Channel) -> None:
        self.channels = (channel,)

    def read(self) -> list[Any]:
        return []


class OneDriver(Driver):
    name = "bmc"

    def __init__(self, channel: Channel) -> None:
        self.groups = (OneGroup(channel),)

    @classmethod
    def open(cls, options: object) -> OneDriver:
        return cls(BMC)

    def close(self) -> None: ...


def test_what_the_driver_does_not_know_is_filled_in() -> None:
    channel = Characteristics([found()]).fill(BMC)
    assert (channel.update_period_s, channel.window_s, channel.delay_s, channel.delay_u_s) == (1.0, 4.0, 0.5, 0.1)
    assert channel.description == "update period, window, delay characterised on 2026-07-14"


def test_the_drivers_own_word_counts() -> None:
    known = Channel(name=BMC.name, device="0", quantity="power", unit="W", kind="gauge", model="X1", scope="node",
                    update_period_s=2.0, window_s=3.0, description="d")  # fmt: skip
    channel = Characteristics([found()]).fill(known)
    # The middle of the window was 0.5 + 4/2 s old: of one that is 3 s long the end is 1 s old.
    assert (channel.update_period_s, channel.window_s, channel.delay_s) == (2.0, 3.0, 1.0)
    assert channel.description == "d; delay characterised on 2026-07-14"


@pytest.mark.parametrize("other", [found(model="X2"), found(channel="bmc/1/power")])
def test_another_device_is_not_taken_for_it(other: Characteristic) -> None:
    assert Characteristics([other]).fill(BMC) is BMC


def test_a_counter_needs_no_window() -> None:
    counter = Channel(name="bmc/0/power", device="0", quantity="energy", unit="J", kind="counter", model="X1")
    channel = Characteristics([found(window_s=None)]).fill(counter)
    assert (channel.window_s, channel.delay_s) == (None, 0.5)


def test_streams_have_it_and_sampling_goes_on_longer() -> None:
    log = EventLog(lambda: 0)
    plain = plan_streams([Opened("bmc", OneDriver(BMC))], {}, log)[1][0].streams[0][0]
    filled = plan_streams([Opened("bmc", OneDriver(BMC))], {}, log, (), Characteristics([found()]))[1][0].streams[0][0]
    assert (plain.channels[0].delay_s, filled.channels[0].delay_s) == (0.0, 0.5)
    assert (tail_s([plain]), tail_s([filled])) == (0.4, 2 + 0.5 + 2)


def test_a_file_is_read_back_and_newer_figures_replace_older(tmp_path: Path) -> None:
    path = tmp_path / "new" / "characteristics.json"
    assert load_characteristics(path).of(BMC) is None
    store_characteristics(path, [found(), found(channel="bmc/1/power")])
    store_characteristics(path, [found(delay_s=0.7)])
    known = load_characteristics(path).of(BMC)
    assert known is not None and known.delay_s == 0.7
    assert len(json.loads(path.read_text())["channels"]) == 2
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is damaged"),
        ("{}", "is damaged"),
        ('{"version": 2, "channels": []}', "newer version"),
        ('{"version": 1, "channels": [{"channel": "a"}]}', "is damaged"),
    ],
)
def test_a_damaged_file_is_a_warning_and_is_left_as_it_is(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "characteristics.json"
    path.write_text(text)
    log = EventLog(lambda: 0)
    assert for_sampling(str(path), log).fill(BMC) is BMC
    assert [(event.level, why in event.text) for event in log.snapshot()] == [("warning", True)]
    with pytest.raises(CharacteristicsUnreadable, match=why):
        store_characteristics(path, [found()])
    assert path.read_text() == text


def test_a_negative_delay_is_no_delay(tmp_path: Path) -> None:
    path = tmp_path / "characteristics.json"
    store_characteristics(path, [found()])
    path.write_text(path.read_text().replace('"delay_s": 0.5', '"delay_s": -0.5'))
    with pytest.raises(CharacteristicsUnreadable, match="damaged"):
        load_characteristics(path)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "characteristics.json"


@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["version", "channels", "channel", "model", "delay_s", "wall_ns"]), inner),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_anything_in_the_file_is_read_or_refused(fuzzed: Path, raw: bytes) -> None:
    path = fuzzed
    path.write_bytes(raw)
    try:
        assert load_characteristics(path).fill(BMC) is BMC
    except CharacteristicsUnreadable as error:
        assert str(path) in str(error)


def test_devices_show_it() -> None:
    results = [Opened("bmc", OneDriver(BMC))]
    text = as_text(results, Characteristics([found()]))
    assert "0/power: delay 500 ms ± 100 ms, noise 2 W, characterised on 2026-07-14" in text
    assert "4 s" in text
    told = json.loads(as_json(results, Characteristics([found()])))
    assert told["drivers"][0]["groups"][0]["channels"][0]["window_s"] == 4.0
    assert "characterised" not in as_text(results)
