"""Hardware monitors on simulated trees: what each chip measures, and where it stands in the power tree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hwmon_tree import HwmonTree
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.contract import Channel, DeviceLost, DriverOptions, Group, Status, Unavailable
from drivers.hwmon.driver import HwmonDriver


@contextmanager
def opened(root: Path) -> Iterator[HwmonDriver]:
    driver = HwmonDriver.open(DriverOptions(root=root))
    try:
        yield driver
    finally:
        driver.close()


def group(driver: HwmonDriver, name: str) -> Group:
    return next(group for group in driver.groups if group.name == name)


def channels(driver: HwmonDriver) -> dict[str, Channel]:
    return {channel.name: channel for group in driver.groups for channel in group.channels}


def readings(driver: HwmonDriver, name: str) -> dict[str, tuple[float | int, Status]]:
    found = group(driver, name)
    (row,) = found.read()
    marks = row.statuses if row.statuses is not None else bytes(len(row.values))
    return {
        channel.name: (value, Status(mark))
        for channel, value, mark in zip(found.channels, row.values, marks, strict=True)
    }


def power_tree(driver: HwmonDriver) -> dict[str, tuple[str, str | None]]:
    return {
        channel.device: (channel.scope, channel.parent)
        for channel in channels(driver).values()
        if channel.quantity in ("power", "energy")
    }


def meter(oem_info: str, power_uw: int, **files: str | int) -> dict[str, str | int]:
    return {"power1_average": power_uw, "power1_average_interval": 50, "power1_oem_info": oem_info, **files}


def test_grace_hopper_rails_make_a_tree(tmp_path: Path) -> None:
    tree = HwmonTree(tmp_path)
    for number, (words, power_uw) in enumerate(
        [
            ("Module Power Socket 0", 612_000_000),
            ("Grace Power Socket 0", 181_000_000),
            ("CPU Power Socket 0", 120_500_000),
            ("SysIO Power Socket 0", 17_000_000),
            ("NVLink Power Socket 0", 9_000_000),
        ]
    ):
        files = meter(words, power_uw)
        tree.add(number, "power_meter", f"LNXSYSTM:00/ACPI000D:0{number}", files, old_style=True)
    with opened(tmp_path) as driver:
        assert power_tree(driver) == {
            "module-0": ("module", None),
            "package-0": ("package", "module-0"),
            "core-0": ("core", "package-0"),
            "uncore-0": ("uncore", "package-0"),
            "power_meter-ACPI000D:04": ("rail", None),
        }
        values = readings(driver, "power")
        assert values["hwmon/module-0/power1_average"] == (pytest.approx(612.0), Status.NEW)
        assert values["hwmon/core-0/power1_average"] == (pytest.approx(120.5), Status.NEW)
        module = channels(driver)["hwmon/module-0/power1_average"]
        assert (module.unit, module.kind, module.window_s, module.update_period_s) == ("W", "gauge", 0.05, 0.05)
        assert (group(driver, "power").default_hz, group(driver, "power").max_hz) == (10, 100)


def test_one_acpi_meter_is_the_node_and_never_reads_zero(tmp_path: Path) -> None:
    files = meter("", 431_000_000, power1_accuracy="95.50%")
    folder = HwmonTree(tmp_path).add(0, "power_meter", "LNXSYSTM:00/ACPI000D:00", files)
    with opened(tmp_path) as driver:
        (channel,) = channels(driver).values()
        assert (channel.name, channel.device, channel.scope) == ("hwmon/node/power1_average", "node", "node")
        assert channel.accuracy is not None
        assert channel.accuracy.reading_fraction == pytest.approx(0.05)  # whole percents: 95.50 stands for 95.050
        assert readings(driver, "power")[channel.name] == (pytest.approx(431.0), Status.NEW)
        for impossible in (0, -5, (2**31 - 1) * 1000):  # failed, and unknown
            (folder / "power1_average").write_text(f"{impossible}\n")
            assert readings(driver, "power")[channel.name][1] is Status.INVALID


def test_two_unnamed_acpi_meters_are_rails(tmp_path: Path) -> None:
    tree = HwmonTree(tmp_path)
    tree.add(0, "power_meter", "ACPI000D:00", meter("", 1))
    tree.add(1, "power_meter", "ACPI000D:01", meter("Bay 3", 2))
    tree.add(2, "power_meter", "ACPI000D:02", meter("", 3, power1_is_battery=1))
    with opened(tmp_path) as driver:
        assert [scope for scope, _ in power_tree(driver).values()] == ["rail", "rail", "battery"]


def test_amd_gpus_are_told_apart_by_their_bus_address(tmp_path: Path) -> None:
    tree = HwmonTree(tmp_path)
    files: dict[str, str | int] = {
        "power1_average": 305_000_000,
        "power1_input": 311_000_000,
        "temp1_input": 61_000,
        "temp1_label": "edge",
        "temp2_input": 74_500,
        "temp2_label": "junction",
    }
    tree.add(4, "amdgpu", "pci0000:00/0000:03:00.0", files)
    tree.add(11, "amdgpu", "pci0000:00/0000:83:00.0", {"power1_input": 288_000_000})
    with opened(tmp_path) as driver:
        assert power_tree(driver) == {"gpu-0000:03:00.0": ("gpu", None), "gpu-0000:83:00.0": ("gpu", None)}
        assert readings(driver, "power") == {
            "hwmon/gpu-0000:03:00.0/power1_average": (pytest.approx(305.0), Status.NEW),
            "hwmon/gpu-0000:83:00.0/power1_input": (pytest.approx(288.0), Status.NEW),
        }
        assert readings(driver, "thermal") == {
            "hwmon/gpu-0000:03:00.0/temp1_edge": (pytest.approx(61.0), Status.NEW),
            "hwmon/gpu-0000:03:00.0/temp2_junction": (pytest.approx(74.5), Status.NEW),
        }
        assert (group(driver, "thermal").default_hz, group(driver, "thermal").max_hz) == (1, 10)


def test_the_second_die_of_a_card_is_not_a_gpu_at_zero_watts(tmp_path: Path) -> None:
    tree = HwmonTree(tmp_path)
    tree.add(0, "amdgpu", "pci0000:00/0000:c1:00.0", {"power1_average": 410_000_000})
    tree.add(1, "amdgpu", "pci0000:00/0000:c6:00.0", {"power1_average": 0})
    with opened(tmp_path) as driver:
        assert [status for _, status in readings(driver, "power").values()] == [Status.NEW, Status.INVALID]


def test_an_apu_is_no_gpu(tmp_path: Path) -> None:
    files: dict[str, str | int] = {"power1_input": 15_000_000, "in1_label": "vddnb", "in1_input": 900}
    HwmonTree(tmp_path).add(0, "amdgpu", "pci0000:00/0000:04:00.0", files)
    with opened(tmp_path) as driver:
        (channel,) = channels(driver).values()
        assert channel.scope == "rail"
        assert "includes the CPU" in channel.description


def test_intel_gpus_count_energy_of_the_card_and_of_its_parts(tmp_path: Path) -> None:
    tree = HwmonTree(tmp_path)
    labelled: dict[str, str | int] = {
        "energy1_input": 2**63,
        "energy1_label": "card",
        "energy2_input": 5_000_001,
        "energy2_label": "pkg",
    }
    tree.add(0, "xe", "pci0000:00/0000:03:00.0", labelled)
    tree.add(1, "i915", "pci0000:00/0000:4d:00.0", {"energy1_input": 7})
    tree.add(2, "i915_gt0", "pci0000:00/0000:4d:00.0", {"energy1_input": 3})
    with opened(tmp_path) as driver:
        assert power_tree(driver) == {
            "gpu-0000:03:00.0": ("gpu", None),
            "gpu-0000:03:00.0-pkg": ("gpu", "gpu-0000:03:00.0"),
            "gpu-0000:4d:00.0": ("gpu", None),
            "gpu-0000:4d:00.0-gt0": ("gpu", "gpu-0000:4d:00.0"),
        }
        card = channels(driver)["hwmon/gpu-0000:03:00.0/energy1"]
        assert (card.kind, card.unit, card.scale, card.modulus) == ("counter", "J", 1e-6, None)
        values = readings(driver, "power")
        assert values[card.name] == (2**63, Status.NEW)
        assert values["hwmon/gpu-0000:03:00.0-pkg/energy2"] == (5_000_001, Status.NEW)
        assert all(type(value) is int for value, _ in values.values())


def jetson(tree: HwmonTree) -> Path:
    files: dict[str, str | int] = {
        "in1_input": 5_000, "in1_label": "VDD_IN", "curr1_input": 1_500,
        "in2_input": 4_980, "in2_label": "VDD_CPU_GPU_CV", "curr2_input": -20,
        "in3_input": 4_990, "in3_label": "NC", "curr3_input": 0,
        "in7_input": 80, "in7_label": "sum of shunt voltages", "curr4_input": 1_480,
        "update_interval": 70,
    }  # fmt: skip
    return tree.add(1, "ina3221", "platform/c240000.i2c/i2c-1/1-0040", files)


def test_jetson_power_is_the_product_of_voltage_and_current(tmp_path: Path) -> None:
    jetson(HwmonTree(tmp_path))
    with opened(tmp_path) as driver:
        assert readings(driver, "power") == {
            "hwmon/ina3221-1-0040-1-VDD_IN/voltage": (pytest.approx(5.0), Status.NEW),
            "hwmon/ina3221-1-0040-1-VDD_IN/current": (pytest.approx(1.5), Status.NEW),
            "hwmon/ina3221-1-0040-1-VDD_IN/power": (pytest.approx(7.5), Status.NEW),  # 5 V × 1.5 A
            "hwmon/ina3221-1-0040-2-VDD_CPU_GPU_CV/voltage": (pytest.approx(4.98), Status.NEW),
            "hwmon/ina3221-1-0040-2-VDD_CPU_GPU_CV/current": (pytest.approx(-0.02), Status.NEW),
            "hwmon/ina3221-1-0040-2-VDD_CPU_GPU_CV/power": (pytest.approx(-0.0996), Status.NEW),
        }
        assert power_tree(driver) == {
            "ina3221-1-0040-1-VDD_IN": ("module", None),
            "ina3221-1-0040-2-VDD_CPU_GPU_CV": ("rail", "ina3221-1-0040-1-VDD_IN"),
        }
        power = channels(driver)["hwmon/ina3221-1-0040-1-VDD_IN/power"]
        assert "derived" in power.description
        assert power.window_s == pytest.approx(0.07)


def test_a_derived_value_is_as_good_as_its_worst_part(tmp_path: Path) -> None:
    folder = jetson(HwmonTree(tmp_path))
    with opened(tmp_path) as driver:
        (folder / "curr1_input").write_text("lots\n")
        os.truncate(folder / "in2_input", 0)
        found = {name.partition("/")[2]: status for name, (_, status) in readings(driver, "power").items()}
    assert found == {
        "ina3221-1-0040-1-VDD_IN/voltage": Status.NEW,
        "ina3221-1-0040-1-VDD_IN/current": Status.INVALID,
        "ina3221-1-0040-1-VDD_IN/power": Status.INVALID,
        "ina3221-1-0040-2-VDD_CPU_GPU_CV/voltage": Status.MISSING,
        "ina3221-1-0040-2-VDD_CPU_GPU_CV/current": Status.NEW,
        "ina3221-1-0040-2-VDD_CPU_GPU_CV/power": Status.MISSING,
    }


def test_other_chips_are_rails_and_temperatures(tmp_path: Path) -> None:
    tree = HwmonTree(tmp_path)
    tree.add(0, "coretemp", "platform/coretemp.0", {"temp1_input": 45_000, "temp1_label": "Package id 0"})
    tree.add(1, "ina226", "i2c-3/3-0041", {"power1_input": 12_500_000, "in0_input": 3, "in1_input": 12_000})
    tree.add(2, "nct6798", "platform/nct6775.656", {"fan1_input": 900, "in0_input": 1_000})
    with opened(tmp_path) as driver:
        assert list(channels(driver)) == [
            "hwmon/ina226-3-0041-power1/power1_input",
            "hwmon/coretemp-coretemp.0/temp1_Package_id_0",
        ]
        assert power_tree(driver) == {"ina226-3-0041-power1": ("rail", None)}
        temperature = channels(driver)["hwmon/coretemp-coretemp.0/temp1_Package_id_0"]
        assert (temperature.unit, temperature.scope, temperature.model) == ("°C", "none", "coretemp")


def test_temperatures_below_zero_are_true_and_below_absolute_zero_are_not(tmp_path: Path) -> None:
    folder = HwmonTree(tmp_path).add(0, "lm75", "i2c-0/0-0048", {"temp1_input": -12_500})
    with opened(tmp_path) as driver:
        assert readings(driver, "thermal") == {"hwmon/lm75-0-0048/temp1": (pytest.approx(-12.5), Status.NEW)}
        (folder / "temp1_input").write_text("-273151\n")
        assert readings(driver, "thermal")["hwmon/lm75-0-0048/temp1"][1] is Status.INVALID


def test_a_sensor_that_goes_is_missing_and_all_gone_is_lost(tmp_path: Path) -> None:
    """oom_score_adj of a process that ends: a file of the real kernel that stops answering, as of a lost device."""
    tree = HwmonTree(tmp_path)
    tree.add(0, "tmp102", "i2c-0/0-0049", {"temp1_input": 30_000})
    folder = tree.add(1, "lm75", "i2c-0/0-0048", {})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        (folder / "temp1_input").symlink_to(f"/proc/{process.pid}/oom_score_adj")
        with opened(tmp_path) as driver:
            assert [status for _, status in readings(driver, "thermal").values()] == [Status.NEW, Status.NEW]
            process.kill()
            process.wait()
            assert [status for _, status in readings(driver, "thermal").values()] == [Status.NEW, Status.MISSING]
            os.truncate(tmp_path / "sys/devices/i2c-0/0-0049/hwmon/hwmon0/temp1_input", 0)
            with pytest.raises(DeviceLost, match="none of 2 sources"):
                group(driver, "thermal").read()


def test_nothing_to_read_says_what_to_do(tmp_path: Path) -> None:
    for root in (tmp_path / "no-tree", tmp_path / "empty-chip"):
        if root.name == "empty-chip":
            HwmonTree(root).add(0, "nct6798", "platform/nct6775.656", {"fan1_input": 900})
        with pytest.raises(Unavailable) as caught:
            HwmonDriver.open(DriverOptions(root=root))
        assert "measures power, energy or temperature" in caught.value.reason
        assert "sensors-detect" in caught.value.fix


def test_a_sensor_that_cannot_be_opened_is_noted(tmp_path: Path) -> None:
    tree = HwmonTree(tmp_path)
    tree.add(0, "lm75", "i2c-0/0-0048", {"temp1_input": 30_000})
    (tree.add(1, "lm75", "i2c-0/0-0049", {}) / "temp1_input").symlink_to("nowhere")
    with opened(tmp_path) as driver:
        assert list(channels(driver)) == ["hwmon/lm75-0-0048/temp1"]
        assert driver.notes[0].reason.endswith("temp1_input: No such file or directory")


contents = st.one_of(
    st.binary(max_size=24),
    st.integers(-(2**70), 2**70).map(lambda number: f"{number}\n".encode()),
    st.sampled_from([b"card\n", b"VDD_IN\n", b"Module Power Socket 0\n", b"NC", b"vddnb", b"99.0%\n", b"1\n"]),
)
file_names = st.sampled_from(
    [f"{kind}{n}_{what}" for kind in ("power", "energy", "temp", "in", "curr") for n in (1, 2, 7)
     for what in ("input", "average", "label", "average_interval", "oem_info", "accuracy", "enable")]
    + ["update_interval", "power1_is_battery", "power٣_input", "temp1_input\n"]
)  # fmt: skip
chip_names = st.sampled_from(
    ["ina3221", "amdgpu", "xe", "i915", "i915_gt0", "power_meter", "lm75", "a/b c\n"]
) | st.text(max_size=8)


@settings(max_examples=80, deadline=None)
@given(chips=st.lists(st.tuples(chip_names, st.dictionaries(file_names, contents, max_size=8)), max_size=3))
def test_any_chip_is_read_or_refused(chips: list[tuple[str, dict[str, bytes]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = HwmonTree(Path(folder))
        for number, (name, files) in enumerate(chips):
            place = tree.add(number, "x", f"bus/dev{number % 2}", {})
            (place / "name").write_bytes(name.encode("utf-8", errors="surrogatepass"))
            for file, content in files.items():
                (place / file).write_bytes(content)
        try:
            driver = HwmonDriver.open(DriverOptions(root=Path(folder)))
        except Unavailable:
            return
        names = [channel.name for group in driver.groups for channel in group.channels]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"hwmon/[A-Za-z0-9_.:+-]+/[A-Za-z0-9_.:+-]+", name) for name in names)
        numbers = {
            int(content)
            for _, files in chips
            for content in files.values()
            if re.fullmatch(rb"-?[0-9]{1,20}\s*", content)
        }
        for group_ in driver.groups:
            try:
                (row,) = group_.read()
            except DeviceLost:
                continue
            marks = row.statuses if row.statuses is not None else bytes(len(row.values))
            for channel, value, mark in zip(group_.channels, row.values, marks, strict=True):
                if mark != Status.NEW or "derived" in channel.description:
                    continue
                factor = {"power": 1e-6, "energy": 1.0}.get(channel.quantity, 1e-3)
                assert any(value == number * factor for number in numbers)
                assert channel.quantity != "temperature" or value >= -273.15
        driver.close()
