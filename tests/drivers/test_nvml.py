"""The NVML driver against a simulated libnvidia-ml.so.1, through the real pynvml.

The stub's clock is stopped at an instant where a figure is asserted, so that every expected figure is worked out by
hand from the waveform. The default wave here: 300 W in the first second of every two, 100 W in the other.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import nvml_stub
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nvml_stub import StubConfig, StubGpu

from drivers.contract import Channel, DeviceLost, DriverOptions, Group, Row, Status, Unavailable
from drivers.nvml import NvmlDriver
from drivers.nvml_windows import Window, generation, power_window

pytestmark = pytest.mark.skipif(nvml_stub.compiler() is None, reason="gcc is needed to build the NVML stub")

NO_PERMISSION, DRIVER_NOT_LOADED, NOT_SUPPORTED, GPU_IS_LOST, VERSION_MISMATCH = 4, 9, 3, 15, 18


@pytest.fixture(scope="session")
def library(request: pytest.FixtureRequest) -> Path:
    assert request.config.cache is not None
    built = nvml_stub.build(request.config.cache.mkdir("nvml-stub"))
    nvml_stub.load(built)
    return built


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host's file system that has nothing of interest."""
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def config_path(library: Path, tmp_path: Path) -> Iterator[Path]:
    """The stub is in force while a test runs; outside of one it says that there is no NVIDIA driver."""
    path = tmp_path / "nvml.conf"
    kept = {name: os.environ.pop(name, None) for name in (nvml_stub.CONFIG_VARIABLE, "KUBERNETES_SERVICE_HOST")}
    os.environ[nvml_stub.CONFIG_VARIABLE] = str(path)
    yield path
    for name, value in kept.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


Opener = Callable[..., NvmlDriver]


@pytest.fixture
def open_stub(config_path: Path, root: Path) -> Iterator[Opener]:
    drivers: list[NvmlDriver] = []

    def open_driver(config: StubConfig, **options: object) -> NvmlDriver:
        config.write(config_path)
        drivers.append(NvmlDriver.open(DriverOptions(root=root, **options)))  # type: ignore[arg-type]
        return drivers[-1]

    yield open_driver
    for driver in drivers:
        driver.close()


def square(**changes: object) -> StubGpu:
    return StubGpu(waveform="square", low_w=100, high_w=300, period_s=2, duty=0.5, **changes)  # type: ignore[arg-type]


def group(driver: NvmlDriver, name: str) -> Group:
    return next(group for group in driver.groups if group.name == name)


def channel(driver: NvmlDriver, name: str) -> Channel:
    return next(channel for group in driver.groups for channel in group.channels if channel.name == name)


def names(driver: NvmlDriver, group_name: str) -> list[str]:
    return [channel.name for group in driver.groups if group.name == group_name for channel in group.channels]


def read(driver: NvmlDriver, group_name: str) -> dict[str, tuple[float, Status]]:
    """Values in their units, by channel, each with its status."""
    of_group = group(driver, group_name)
    (row,) = of_group.read()
    statuses = row.statuses if row.statuses is not None else bytes(len(row.values))
    return {
        channel.name: (value * channel.scale, Status(status))
        for channel, value, status in zip(of_group.channels, row.values, statuses, strict=True)
    }


def good(value: float) -> tuple[object, Status]:
    return (pytest.approx(value), Status.NEW)


def test_power_is_the_waveform_over_the_window_that_ends_at_the_last_update(
    open_stub: Opener, config_path: Path
) -> None:
    config = StubConfig(gpus=[square()], now_s=101.55)
    driver = open_stub(config)

    # Updates at 101.5: the last 25 ms were low, the last second was half high and half low.
    assert read(driver, "power") == {"nvml/gpu0/power_instant": good(100), "nvml/gpu0/power_average": good(200)}

    config.now_s = 102.55
    config.write(config_path)
    assert read(driver, "power") == {"nvml/gpu0/power_instant": good(300), "nvml/gpu0/power_average": good(200)}

    config.now_s = 102.35  # updates at 102.3: 0.3 s high and 0.7 s low
    config.write(config_path)
    assert read(driver, "power")["nvml/gpu0/power_average"] == good(0.3 * 300 + 0.7 * 100)


def test_energy_is_an_integer_counter_of_millijoules_that_moves_in_steps(open_stub: Opener, config_path: Path) -> None:
    config = StubConfig(gpus=[square(energy_offset_mj=7)], now_s=101.5)
    driver = open_stub(config)
    energy = group(driver, "energy")

    # 50 periods of 400 J, one second at 300 W, half a second at 100 W
    (row,) = energy.read()
    assert list(row.values) == [20_350_007]
    assert type(row.values[0]) is int

    config.now_s = 101.59  # before the step at 101.6
    config.write(config_path)
    assert list(energy.read()[0].values) == [20_350_007]
    config.now_s = 103.6  # a period (400 J) and 0.1 s at 100 W later
    config.write(config_path)
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


def test_a_slow_driver_shows_in_the_read_time(open_stub: Opener, config_path: Path) -> None:
    driver = open_stub(StubConfig())
    StubConfig(gpus=[StubGpu(hang_s=0.05)]).write(config_path)
    (row,) = group(driver, "power").read()
    assert row.read_ns >= 50_000_000


def test_one_call_a_gpu_reads_all_its_power_fields(open_stub: Opener, library: Path) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(module_extra_w=80, memory_fraction=0.2)] * 8))
    assert len(group(driver, "power").channels) == 8 * 6
    stub = nvml_stub.load(library)
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
    open_stub: Opener, config_path: Path, milliwatts: int, fields_work: bool
) -> None:
    returns = {} if fields_work else {"185": NOT_SUPPORTED, "186": NOT_SUPPORTED}
    driver = open_stub(StubConfig(gpus=[StubGpu(returns=returns)]))
    StubConfig(gpus=[StubGpu(returns=returns, power_override_mw=milliwatts)]).write(config_path)
    for value, status in read(driver, "power").values():
        assert math.isnan(value)
        assert status is Status.INVALID


@pytest.mark.parametrize("value_type", range(7))
def test_a_field_is_read_in_the_type_that_it_says(open_stub: Opener, value_type: int) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(high_w=60.25, power_value_type=value_type)]))
    assert read(driver, "power") == {"nvml/gpu0/power_instant": good(60.25), "nvml/gpu0/power_average": good(60.25)}


def test_a_type_that_nobody_knows_is_invalid(open_stub: Opener, config_path: Path) -> None:
    driver = open_stub(StubConfig())
    StubConfig(gpus=[StubGpu(power_value_type=7)]).write(config_path)
    assert {status for _, status in read(driver, "power").values()} == {Status.INVALID}


def test_a_field_that_stops_answering_is_missing_and_not_zero(open_stub: Opener, config_path: Path) -> None:
    driver = open_stub(StubConfig())
    StubConfig(gpus=[StubGpu(returns={"185": NOT_SUPPORTED, "energy": NOT_SUPPORTED})]).write(config_path)
    power = read(driver, "power")
    assert power["nvml/gpu0/power_instant"] == good(300)
    assert math.isnan(power["nvml/gpu0/power_average"][0])
    assert power["nvml/gpu0/power_average"][1] is Status.MISSING
    assert read(driver, "energy")["nvml/gpu0/energy"][1] is Status.MISSING


def test_a_lost_gpu_is_missing_while_another_answers_and_all_lost_is_lost(open_stub: Opener, config_path: Path) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(), StubGpu()]))
    lost = StubGpu(returns={"all": GPU_IS_LOST})
    StubConfig(gpus=[StubGpu(), lost]).write(config_path)
    for group_name in ("power", "energy", "thermal"):
        statuses = {name: status for name, (_, status) in read(driver, group_name).items()}
        assert {status for name, status in statuses.items() if "/gpu0/" in name} == {Status.NEW}
        assert {status for name, status in statuses.items() if "/gpu1/" in name} == {Status.MISSING}

    StubConfig(gpus=[lost, lost]).write(config_path)
    for of_group in driver.groups:
        with pytest.raises(DeviceLost, match=r"gpu0.*gpu1.*dmesg"):
            of_group.read()

    StubConfig(gpus=[StubGpu(), StubGpu()]).write(config_path)
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
    ("driver_version", "offered"),
    [("580.95.05", True), ("580.82.07", True), ("580.65.06", False), ("570.86.10", False), ("strange", False)],
)
def test_renumbered_fields_are_asked_for_by_the_number_of_this_driver(
    open_stub: Opener, driver_version: str, offered: bool
) -> None:
    # The stub has them at 269 to 271 only, as drivers from 580.82 on do.
    driver = open_stub(StubConfig(driver_version=driver_version))
    assert any("slowed_by_power_brake" in name for name in names(driver, "thermal")) is offered


def test_mig_and_persistence_are_noted(open_stub: Opener) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(mig=True), StubGpu(persistence=False)]))
    whole, forgetful = driver.notes
    assert "gpu0" in whole.reason
    assert "whole GPU" in whole.reason
    assert "whole GPU" in channel(driver, "nvml/gpu0/energy").description
    assert "gpu1" in forgetful.reason
    assert forgetful.fix == "sudo nvidia-smi -pm 1"


def test_a_gpu_that_cannot_be_used_is_noted_and_the_others_are_read(open_stub: Opener, root: Path) -> None:
    (root / "dev").mkdir()
    (root / "dev/nvidia1").touch()
    refusing = StubGpu(returns={"handle": NO_PERMISSION})
    mute = StubGpu(name="NVIDIA T400", returns=dict.fromkeys(["185", "186", "power"], NOT_SUPPORTED))
    driver = open_stub(StubConfig(gpus=[StubGpu(), refusing, mute]))
    assert {name.split("/")[1] for name in names(driver, "power")} == {"gpu0"}
    refused, silent = driver.notes
    assert "gpu1 cannot be used: Insufficient Permissions" in refused.reason
    assert "/dev/nvidia1" in refused.fix
    assert "gpu2 (NVIDIA T400) gives no power reading" in silent.reason
    assert "nvmlDeviceGetPowerUsage: nvmlReturn 3" in silent.reason


def refusal(open_stub: Opener, config: StubConfig) -> Unavailable:
    with pytest.raises(Unavailable) as caught:
        open_stub(config)
    return caught.value


def test_missing_library_says_so_and_how_a_container_gets_it(open_stub: Opener, root: Path, config_path: Path) -> None:
    missing = StubConfig(init_return=12)
    assert "libnvidia-ml.so.1" in refusal(open_stub, missing).reason
    assert "install the NVIDIA driver" in refusal(open_stub, missing).fix

    (root / ".dockerenv").touch()
    assert "--gpus all" in refusal(open_stub, missing).fix
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in refusal(open_stub, missing).fix
    (root / ".dockerenv").unlink()

    (root / "run").mkdir()
    (root / "run/.containerenv").touch()
    assert "--gpus all" in refusal(open_stub, StubConfig(init_return=DRIVER_NOT_LOADED)).fix

    os.environ["KUBERNETES_SERVICE_HOST"] = "10.0.0.1"  # config_path takes it away again
    assert "nvidia.com/gpu" in refusal(open_stub, missing).fix


def test_version_mismatch_names_the_loaded_module(open_stub: Opener, root: Path) -> None:
    mismatch = StubConfig(init_return=VERSION_MISMATCH)
    assert "reboot" in refusal(open_stub, mismatch).fix
    path = root / "proc/driver/nvidia/version"
    path.parent.mkdir(parents=True)
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n")
    assert "(535.104.05)" in refusal(open_stub, mismatch).reason
    (root / ".dockerenv").touch()
    assert "restart this container" in refusal(open_stub, mismatch).fix


def test_no_permission_names_the_device_files(open_stub: Opener, root: Path) -> None:
    refused = StubConfig(init_return=NO_PERMISSION)
    assert "no /dev/nvidia* files" in refusal(open_stub, refused).fix
    (root / "dev").mkdir()
    (root / "dev/nvidiactl").touch()
    (root / "dev/nvidia0").touch()
    assert "/dev/nvidia0 /dev/nvidiactl" in refusal(open_stub, refused).fix


def test_other_failures_are_told_in_nvmls_words(open_stub: Opener) -> None:
    assert "Unknown Error" in refusal(open_stub, StubConfig(init_return=999)).reason
    assert "nvidia-smi" in refusal(open_stub, StubConfig(gpus=[])).fix
    assert "no GPU" in refusal(open_stub, StubConfig(gpus=[])).reason
    lost = StubConfig(gpus=[StubGpu(returns={"all": GPU_IS_LOST})])
    assert "gpu0 cannot be used: GPU is lost" in refusal(open_stub, lost).reason


def test_a_refused_open_leaves_nvml_shut_down(open_stub: Opener) -> None:
    import pynvml

    refusal(open_stub, StubConfig(gpus=[]))
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlShutdown()


@settings(max_examples=60, deadline=None)
@given(version=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30), module=st.binary(max_size=200))
def test_no_version_text_stops_the_driver(library: Path, version: str, module: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = root / "proc/driver/nvidia/version"
        path.parent.mkdir(parents=True)
        path.write_bytes(module)
        os.environ[nvml_stub.CONFIG_VARIABLE] = str(root / "nvml.conf")
        try:
            StubConfig(driver_version=version).write(root / "nvml.conf")
            driver = NvmlDriver.open(DriverOptions(root=root))
            (row,) = group(driver, "power").read()
            driver.close()
            assert row.statuses is None
            StubConfig(init_return=VERSION_MISMATCH).write(root / "nvml.conf")
            with pytest.raises(Unavailable, match="differ in version"):
                NvmlDriver.open(DriverOptions(root=root))
        finally:
            del os.environ[nvml_stub.CONFIG_VARIABLE]


@pytest.mark.parametrize(
    ("architecture", "capability", "name", "branch", "reading", "expected"),
    [
        (7, (8, 0), "NVIDIA A100-SXM4-80GB", 550, "instant", Window(0.1, 0.025)),
        (7, (8, 0), "NVIDIA A100-SXM4-80GB", 470, "legacy", Window(0.1, 0.025)),
        (7, (8, 0), "NVIDIA A100-SXM4-80GB", 550, "average", Window(None, None)),
        (7, (8, 6), "NVIDIA GeForce RTX 3090", 525, "legacy", Window(0.1, 1.0)),
        (7, (8, 6), "NVIDIA GeForce RTX 3090", 530, "legacy", Window(0.1, 0.1)),
        (8, (8, 9), "NVIDIA L40S", 535, "legacy", Window(0.1, 1.0)),
        (8, (8, 9), "NVIDIA L40S", 535, "average", Window(0.1, 1.0)),
        (8, (8, 9), "NVIDIA L40S", 535, "instant", Window(0.1, 0.1)),
        (8, (8, 9), "NVIDIA L40S", None, "instant", Window(None, None)),
        (9, (9, 0), "NVIDIA H100 80GB HBM3", 550, "instant", Window(0.1, 0.025)),
        (9, (9, 0), "NVIDIA H100 80GB HBM3", None, "average", Window(0.1, 1.0)),
        (9, (9, 0), "NVIDIA GH200 480GB", 550, "instant", Window(0.02, None)),
        (6, (7, 5), "Tesla T4", 535, "legacy", Window(0.1, 0.1)),
        (5, (7, 0), "Tesla V100-SXM2-16GB", 535, "instant", Window(0.02, 0.01)),
        (2, (3, 5), "Tesla K40m", 390, "legacy", Window(0.015, None)),
        (2, (3, 7), "Tesla K80", 470, "legacy", Window(0.1, None)),
        (10, (10, 0), "NVIDIA B200", 570, "average", Window(None, 1.0)),
        (10, (10, 0), "NVIDIA B200", 570, "instant", Window(None, None)),
        (7, (8, 7), "Orin", 540, "legacy", Window(None, None)),
        (0xFFFFFFFF, (0, 0), "?", 580, "legacy", Window(None, None)),
    ],
)
def test_windows_by_generation_branch_and_reading(
    architecture: int, capability: tuple[int, int], name: str, branch: int | None, reading: str, expected: Window
) -> None:
    found = power_window(generation(architecture, capability, name), branch, reading)  # type: ignore[arg-type]
    assert found == expected


def run_python(code: str, environment: dict[str, str]) -> str:
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**kept, **environment}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_another_process_finds_the_library_as_it_would_a_real_one(library: Path, tmp_path: Path) -> None:
    StubConfig(gpus=[StubGpu(), StubGpu()]).write(tmp_path / "nvml.conf")
    code = """
from drivers.discovery import open_drivers
(opened,) = open_drivers(["nvml"])
for group in opened.driver.groups:
    (row,) = group.read()
    print(group.name, len(row.values), row.statuses)
opened.driver.close()
"""
    told = run_python(code, nvml_stub.environment(library, tmp_path / "nvml.conf"))
    assert told.splitlines() == ["power 4 None", "energy 2 None", "thermal 42 None"]


def test_importing_the_driver_loads_neither_binding_nor_numpy() -> None:
    code = "import sys, drivers.nvml; print([name for name in ('pynvml', 'numpy') if name in sys.modules])"
    assert run_python(code, {}).strip() == "[]"


def test_without_the_binding_the_fix_is_to_install_it() -> None:
    code = """
import sys
sys.modules["pynvml"] = None  # as Python itself marks a module that cannot be imported
from drivers.discovery import open_drivers
(refused,) = open_drivers(["nvml"])
print(refused.fix)
"""
    assert run_python(code, {}).strip() == "pip install nvidia-ml-py"


def test_row_shape_matches_the_channels(open_stub: Opener) -> None:
    driver = open_stub(StubConfig(gpus=[StubGpu(), square()]))
    for of_group in driver.groups:
        (row,) = of_group.read()
        assert isinstance(row, Row)
        assert len(row.values) == len(of_group.channels)
        assert len({channel.name for channel in of_group.channels}) == len(of_group.channels)
