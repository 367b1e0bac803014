"""What the NVML driver reads, from a simulated libnvidia-ml.so.1 through the real pynvml.

The stub's clock is stopped at an instant where a figure is asserted, so that every expected figure is worked out by
hand from the waveform. The usual wave here: 300 W in the first second of every two, 100 W in the other.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import nvml_stub
import pytest
from nvml_helpers import (
    GPU_IS_LOST,
    NOT_SUPPORTED,
    Opener,
    channel,
    good,
    group,
    names,
    read,
    square,
)
from nvml_stub import StubConfig, StubGpu

from drivers.contract import DeviceLost, Row, Status


def test_power_is_the_waveform_over_the_window_that_ends_at_the_last_update(
    open_stub: Opener, nvml_config: Path
) -> None:
    config = StubConfig(gpus=[square()], now_s=101.55)
    driver = open_stub(config)

    # Updates at 101.5: the last 25 ms were low, the last second was half high and half low.
    assert read(driver, "power") == {"nvml/gpu0/power_instant": good(100), "nvml/gpu0/power_average": good(200)}

    config.now_s = 102.55
    config.write(nvml_config)
    assert read(driver, "power") == {"nvml/gpu0/power_instant": good(300), "nvml/gpu0/power_average": good(200)}

    config.now_s = 102.35  # updates at 102.3: 0.3 s high and 0.7 s low
    config.write(nvml_config)
    assert read(driver, "power")["nvml/gpu0/power_average"] == good(0.3 * 300 + 0.7 * 100)


def test_energy_is_an_integer_counter_of_millijoules_that_moves_in_steps(open_stub: Opener, nvml_config: Path) -> None:
    config = StubConfig(gpus=[square(energy_offset_mj=7)], now_s=101.5)
    driver = open_stub(config)
    energy = group(driver, "energy")

    # 50 periods of 400 J, one second at 300 W, half a second at 100 W
    (row,) = energy.read()
    assert list(row.values) == [20_350_007]
    assert type(row.values[0]) is int

    config.now_s = 101.59  # before the step at 101.6
    config.write(nvml_config)
    assert list(energy.read()[0].values) == [20_350_007]
    config.now_s = 103.6  # a period (400 J) and 0.1 s at 100 W later
    config.write(nvml_config)
    assert list(energy.read()[0].values) == [20_760_007]

    (described,) = energy.channels
    assert (described.kind, described.unit, described.scale, described.modulus) == ("counter", "J", 1e-3, None)
    assert (energy.default_hz, energy.max_hz) == (1, 1)


def test_readings_follow_the_running_clock(open_stub: Opener) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(high_w=300, energy_step_s=0.1)]))
    (row,) = group(driver, "energy").read()
    first_ns, last_ns = row.t_ns - row.read_ns, row.t_ns + row.read_ns
    assert 300 * (first_ns * 1e-9 - 0.1) <= row.values[0] * 1e-3 <= 300 * last_ns * 1e-9


def test_a_row_stands_for_the_middle_of_its_read(open_stub: Opener) -> None:
    ticks = iter((1000, 1600))
    driver = open_stub(StubConfig(), clock_ns=lambda: next(ticks))
    (row,) = group(driver, "power").read()
    assert (row.t_ns, row.read_ns, row.statuses) == (1300, 600, None)


def test_a_slow_driver_shows_in_the_read_time(open_stub: Opener, nvml_config: Path) -> None:
    driver = open_stub(StubConfig())
    StubConfig(gpus=[StubGpu(hang_s=0.05)]).write(nvml_config)
    (row,) = group(driver, "power").read()
    assert row.read_ns >= 50_000_000


def test_one_call_a_gpu_reads_all_its_power_fields(open_stub: Opener, nvml_library: Path) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(module_extra_w=80, memory_fraction=0.2)] * 8))
    assert len(group(driver, "power").channels) == 8 * 6
    stub = nvml_stub.load(nvml_library)
    before = stub.nvmlStubFieldCalls()
    group(driver, "power").read()
    assert stub.nvmlStubFieldCalls() - before == 8


def test_module_and_memory_are_channels_of_their_own_place_in_the_tree(open_stub: Opener) -> None:
    superchip = square(name="NVIDIA GH200 480GB", module_extra_w=120, memory_fraction=0.25)
    driver = open_stub(StubConfig(gpus=[superchip], now_s=102.75))
    assert read(driver, "power") == {
        "nvml/gpu0/power_instant": good(300),
        "nvml/gpu0/power_average": good(0.7 * 300 + 0.3 * 100),
        "nvml/module0/power_instant": good(420),
        "nvml/module0/power_average": good(240 + 120),
        "nvml/gpu0-memory/power_instant": good(75),
        "nvml/gpu0-memory/power_average": good(60),
    }
    places = {name: channel(driver, name) for name in names(driver, "power") + names(driver, "energy")}
    assert {(c.device, c.scope, c.parent) for c in places.values()} == {
        ("module0", "module", None),
        ("gpu0", "gpu", "module0"),
        ("gpu0-memory", "gpu_memory", "gpu0"),
    }
    instant, memory = places["nvml/gpu0/power_instant"], places["nvml/gpu0-memory/power_average"]
    assert (instant.update_period_s, instant.window_s) == (0.02, None)
    assert (memory.update_period_s, memory.window_s) == (None, None)
    assert "field 186 scope 1: 420000 mW" in instant.description
    assert driver.notes == ()


def test_a_gpu_that_refuses_its_own_scope_is_read_as_a_module(open_stub: Opener) -> None:
    gpu = StubGpu(module_extra_w=100, returns={"185.0": NOT_SUPPORTED, "186.0": NOT_SUPPORTED, "power": NOT_SUPPORTED})
    driver = open_stub(StubConfig(gpus=[gpu]))
    assert names(driver, "power") == ["nvml/module0/power_instant", "nvml/module0/power_average"]
    assert channel(driver, "nvml/gpu0/energy").parent == "module0"


def test_a_scope_that_only_repeats_the_gpu_is_not_offered(open_stub: Opener) -> None:
    gpu = StubGpu(returns={"185.1": 0, "186.1": 0})  # answers for the module with the power of the GPU
    driver = open_stub(StubConfig(gpus=[gpu]))
    assert names(driver, "power") == ["nvml/gpu0/power_instant", "nvml/gpu0/power_average"]


def test_modules_that_may_be_one_are_told(open_stub: Opener) -> None:
    superchip = StubGpu(name="NVIDIA GB200", architecture=10, compute_capability=(10, 0), module_extra_w=100)
    driver = open_stub(StubConfig(gpus=[superchip, superchip]))
    (note,) = driver.notes
    assert "module0, module1" in note.reason


def test_a_driver_without_power_fields_is_read_the_old_way(open_stub: Opener) -> None:
    volta = square(
        name="Tesla V100-SXM2-16GB",
        architecture=5,
        compute_capability=(7, 0),
        update_s=0.02,
        average_window_s=0.01,
        returns={"185": NOT_SUPPORTED, "186": NOT_SUPPORTED},
    )
    driver = open_stub(StubConfig(gpus=[volta], driver_version="470.82.01", now_s=100.5))
    assert read(driver, "power") == {"nvml/gpu0/power": good(300)}
    legacy = channel(driver, "nvml/gpu0/power")
    assert (legacy.update_period_s, legacy.window_s) == (0.02, 0.01)
    assert "field 186 scope 0: nvmlReturn 3" in legacy.description


def test_power_channels_carry_model_accuracy_and_identity(open_stub: Opener) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(), StubGpu(uuid="GPU-abc")]))
    described = channel(driver, "nvml/gpu1/power_average")
    assert described.model == "NVIDIA H100 80GB HBM3"
    assert "GPU-abc" in described.description
    assert described.accuracy is not None
    assert (described.accuracy.reading_fraction, described.accuracy.absolute) == (0.05, 0)
    assert (described.unit, described.kind, described.scope, described.scale) == ("W", "gauge", "gpu", 1e-3)
    assert (described.update_period_s, described.window_s) == (0.1, 1.0)


@pytest.mark.parametrize("milliwatts", [-5000, 0, 20_000_000, -1])
@pytest.mark.parametrize("fields_work", [True, False])
def test_watts_that_cannot_be_true_are_invalid(
    open_stub: Opener, nvml_config: Path, milliwatts: int, fields_work: bool
) -> None:
    returns = {} if fields_work else {"185": NOT_SUPPORTED, "186": NOT_SUPPORTED}
    driver = open_stub(StubConfig(gpus=[StubGpu(returns=returns)]))
    StubConfig(gpus=[StubGpu(returns=returns, power_override_mw=milliwatts)]).write(nvml_config)
    for value, status in read(driver, "power").values():
        assert math.isnan(value)
        assert status is Status.INVALID


@pytest.mark.parametrize("value_type", range(7))
def test_a_field_is_read_in_the_type_that_it_says(open_stub: Opener, value_type: int) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(high_w=60.25, power_value_type=value_type)]))
    assert read(driver, "power") == {"nvml/gpu0/power_instant": good(60.25), "nvml/gpu0/power_average": good(60.25)}


def test_a_type_that_nobody_knows_is_invalid(open_stub: Opener, nvml_config: Path) -> None:
    driver = open_stub(StubConfig())
    StubConfig(gpus=[StubGpu(power_value_type=7)]).write(nvml_config)
    assert {status for _, status in read(driver, "power").values()} == {Status.INVALID}


def test_a_field_that_stops_answering_is_missing_and_not_zero(open_stub: Opener, nvml_config: Path) -> None:
    driver = open_stub(StubConfig())
    StubConfig(gpus=[StubGpu(returns={"185": NOT_SUPPORTED, "energy": NOT_SUPPORTED})]).write(nvml_config)
    power = read(driver, "power")
    assert power["nvml/gpu0/power_instant"] == good(300)
    assert math.isnan(power["nvml/gpu0/power_average"][0])
    assert power["nvml/gpu0/power_average"][1] is Status.MISSING
    assert read(driver, "energy")["nvml/gpu0/energy"][1] is Status.MISSING


def test_captures_come_with_the_next_reading_each_as_it_was(open_stub: Opener, nvml_config: Path) -> None:
    config = StubConfig(gpus=[square(), StubGpu()], now_s=100.55)
    driver = open_stub(config)
    power = group(driver, "power")
    lost = StubGpu(returns={"all": GPU_IS_LOST})
    instants = []
    for now_s, gpus in ((100.55, [square(), StubGpu()]), (101.55, [square(), lost]), (102.55, [square(), StubGpu()])):
        config.now_s, config.gpus = now_s, gpus
        config.write(nvml_config)
        power.capture()
        instants.append(time.monotonic_ns())
    config.now_s = 103.55
    config.write(nvml_config)
    rows = power.read()
    place = [described.name for described in power.channels].index("nvml/gpu0/power_instant")
    other = [described.name for described in power.channels].index("nvml/gpu1/power_instant")
    assert [row.values[place] for row in rows] == [300_000, 100_000, 300_000, 100_000]
    missing = [row.statuses is not None and row.statuses[other] == Status.MISSING for row in rows]
    assert missing == [False, True, False, False]
    assert rows[0].t_ns < instants[0] < rows[1].t_ns < instants[1] < rows[2].t_ns < instants[2] < rows[3].t_ns
    assert len(power.read()) == 1, "each is given once"


def test_what_was_captured_before_all_were_lost_is_given_first(open_stub: Opener, nvml_config: Path) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu()]))
    power = group(driver, "power")
    power.capture()
    StubConfig(gpus=[StubGpu(returns={"all": GPU_IS_LOST})]).write(nvml_config)
    power.capture()
    assert len(power.read()) == 1
    with pytest.raises(DeviceLost):
        power.read()


def test_a_lost_gpu_is_missing_while_another_answers_and_all_lost_is_lost(open_stub: Opener, nvml_config: Path) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(), StubGpu()]))
    lost = StubGpu(returns={"all": GPU_IS_LOST})
    StubConfig(gpus=[StubGpu(), lost]).write(nvml_config)
    for group_name in ("power", "energy", "thermal"):
        statuses = {name: status for name, (_, status) in read(driver, group_name).items()}
        assert {status for name, status in statuses.items() if "/gpu0/" in name} == {Status.NEW}
        assert {status for name, status in statuses.items() if "/gpu1/" in name} == {Status.MISSING}

    StubConfig(gpus=[lost, lost]).write(nvml_config)
    for of_group in driver.groups:
        with pytest.raises(DeviceLost, match=r"gpu0.*gpu1.*dmesg"):
            of_group.read()

    StubConfig(gpus=[StubGpu(), StubGpu()]).write(nvml_config)
    driver.close()
    assert len(read(open_stub(StubConfig(gpus=[StubGpu()])), "power")) == 2


def test_closing_twice_or_after_the_driver_went_does_not_raise(open_stub: Opener) -> None:
    driver = open_stub(StubConfig())
    driver.close()
    driver.close()


def test_thermal_group_reads_every_channel_in_its_unit(open_stub: Opener) -> None:
    gpu = StubGpu(throttled_fraction=0.25, limit_mw=650_000, clocks_event_reasons=0x24, performance_state=2)
    driver = open_stub(StubConfig(gpus=[gpu], now_s=1000.0))
    values = {name.removeprefix("nvml/gpu0/"): value for name, value in read(driver, "thermal").items()}
    throttled = {name: values.pop(name) for name in list(values) if channel(driver, f"nvml/gpu0/{name}").unit == "s"}
    assert values == {
        "temperature": good(55),
        "memory_temperature": good(62),
        "sm_clock": good(1980),
        "memory_clock": good(2619),
        "utilization": good(98),
        "memory_utilization": good(40),
        "fan": good(30),
        "power_limit": good(650),
        "clocks_event_reasons": good(0x24),
        "performance_state": good(2),
    }
    assert throttled == dict.fromkeys(throttled, good(250))  # a quarter of 1000 s
    assert len(throttled) == 8 + 3
    integers = [c.name for c in group(driver, "thermal").channels if c.kind != "gauge"]
    assert len(integers) == 11 + 2
    (row,) = group(driver, "thermal").read()
    for described, value in zip(group(driver, "thermal").channels, row.values, strict=True):
        assert type(value) is (float if described.kind == "gauge" else int)


def test_older_calls_stand_in_for_newer_ones(open_stub: Opener) -> None:
    gpu = StubGpu(returns={"temperature_v": NOT_SUPPORTED, "event_reasons": NOT_SUPPORTED})
    values = read(open_stub(StubConfig(gpus=[gpu])), "thermal")
    assert values["nvml/gpu0/temperature"] == good(55)
    assert values["nvml/gpu0/clocks_event_reasons"] == good(4)


def test_only_what_answers_is_offered(open_stub: Opener) -> None:
    refused = ["fan", "utilization", "82", "75", "energy", "limit"]
    gpu = StubGpu(returns=dict.fromkeys(refused, NOT_SUPPORTED), memory_temperature_c=0, performance_state=32)
    driver = open_stub(StubConfig(gpus=[gpu]))
    offered = {name.rpartition("/")[2] for name in names(driver, "thermal")}
    assert offered.isdisjoint(
        {
            "fan",
            "utilization",
            "memory_utilization",
            "memory_temperature",
            "limited_by_temperature",
            "power_limit",
            "performance_state",  # 32 is "unknown"
        }
    )
    assert {"temperature", "sm_clock", "limited_by_power"} <= offered
    assert [of_group.name for of_group in driver.groups] == ["power", "thermal"]


@pytest.mark.parametrize(
    ("driver_version", "number", "offered"),
    [
        ("580.95.05", 269, True),
        ("580.82.07", 269, True),
        ("580.65.06", 251, True),
        ("575.57.08", 251, True),
        ("580.95.05", 251, False),  # power smoothing has that number there
        ("580.65.06", 269, False),
        ("570.86.10", 251, False),
        ("strange", 269, False),
    ],
)
def test_renumbered_fields_are_asked_for_by_the_number_of_this_driver(
    open_stub: Opener, driver_version: str, number: int, offered: bool
) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(first_slowdown_field=number)], driver_version=driver_version))
    found = [name.rpartition("/")[2] for name in names(driver, "thermal") if "/slowed_by" in name]
    every = ["slowed_by_software_thermal", "slowed_by_hardware_thermal", "slowed_by_power_brake"]
    assert found == (every if offered else [])


def test_row_shape_matches_the_channels(open_stub: Opener) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(), square()]))
    for of_group in driver.groups:
        (row,) = of_group.read()
        assert isinstance(row, Row)
        assert len(row.values) == len(of_group.channels)
        assert len({channel.name for channel in of_group.channels}) == len(of_group.channels)
