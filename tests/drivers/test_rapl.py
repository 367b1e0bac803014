"""RAPL on simulated powercap trees."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from powercap_tree import COUNTER_SIZE, SERVER_DRAM_COUNT_NJ, PowercapTree, write_cpuinfo
from unprivileged import folder_for_all, no_privileges

from drivers.contract import Channel, DeviceLost, DriverOptions, Row, Status, Unavailable
from drivers.rapl.driver import RaplDriver, counter_modulus, read_processor
from drivers.sysfs import parse_integer


@contextmanager
def opened(root: Path, **options: object) -> Iterator[RaplDriver]:
    driver = RaplDriver.open(DriverOptions(root=root, **options))  # type: ignore[arg-type]
    try:
        yield driver
    finally:
        driver.close()


def channels(driver: RaplDriver) -> dict[str, Channel]:
    return {channel.device: channel for channel in driver.groups[0].channels}


def read(driver: RaplDriver) -> Row:
    rows = driver.groups[0].read()
    assert len(rows) == 1
    return rows[0]


def statuses(row: Row) -> list[Status]:
    return [Status(mark) for mark in (row.statuses if row.statuses is not None else bytes(len(row.values)))]


def devices_with(status: Status, driver: RaplDriver, row: Row) -> list[str]:
    pairs = zip(driver.groups[0].channels, statuses(row), strict=True)
    return [channel.device for channel, found in pairs if found is status]


def server(root: Path) -> PowercapTree:
    """Two sockets of a server: DRAM outside of the packages, cores inside, psys above, MMIO a second door."""
    write_cpuinfo(root, "GenuineIntel", "Intel(R) Xeon(R) Platinum 8480+")
    tree = PowercapTree(root)
    tree.add("intel-rapl:0", "package-0", energy_joules=lambda t: 350 * t, first_count=COUNTER_SIZE - 5)
    tree.add("intel-rapl:0:0", "core", energy_joules=lambda t: 250 * t)
    tree.add("intel-rapl:0:1", "dram", energy_joules=lambda t: 40 * t, count_nj=SERVER_DRAM_COUNT_NJ)
    tree.add("intel-rapl:1", "package-1", energy_joules=lambda t: 200 * t + 30 * t * t)
    tree.add("intel-rapl:1:0", "dram", energy_joules=lambda t: 35 * t, count_nj=SERVER_DRAM_COUNT_NJ)
    tree.add("intel-rapl:2", "psys", energy_joules=lambda t: 900 * t, count_nj=10**9)
    tree.add("intel-rapl-mmio:0", "package-0")
    return tree


def test_describes_every_domain_once(tmp_path: Path) -> None:
    server(tmp_path)
    with opened(tmp_path) as driver:
        found = channels(driver)
        assert [(c.device, c.scope, c.parent) for c in found.values()] == [
            ("package-0", "package", None),
            ("core-0", "core", "package-0"),
            ("dram-0", "dram", None),
            ("package-1", "package", None),
            ("dram-1", "dram", None),
            ("psys-0", "psys", None),
        ]
        package = found["package-0"]
        assert package.name == "rapl/package-0/energy"
        assert package.model == "Intel(R) Xeon(R) Platinum 8480+"
        assert (package.kind, package.quantity, package.unit, package.scale) == ("counter", "energy", "J", 1e-6)
        assert package.accuracy is not None and package.accuracy.reading_fraction == 0.05
        assert found["dram-0"].accuracy is not None and found["dram-0"].accuracy.reading_fraction == 0.20
        assert driver.notes == ()
        assert (driver.groups[0].name, driver.groups[0].default_hz, driver.groups[0].max_hz) == ("energy", 10, 1000)


def test_energy_over_several_wraps_is_exact(tmp_path: Path) -> None:
    """Differences modulo the stated modulus give back the counts of the simulated hardware, all of them."""
    tree = server(tmp_path)
    with opened(tmp_path) as driver:
        rows = []
        # package-1 draws 200 W + 60 W/s · t: after 200 s 1.24 MJ, almost five wraps of 262 kJ; never one in 4 s
        for t_s in range(0, 201, 4):
            tree.advance_to(t_s)
            rows.append(read(driver))
        for place, channel in enumerate(driver.groups[0].channels):
            zone = tree.zones[channel.description.removeprefix("powercap zone ")]
            assert channel.modulus is not None
            values = [int(row.values[place]) for row in rows]
            total_uj = sum((after - before) % channel.modulus for before, after in itertools.pairwise(values))
            assert round(total_uj * 1000 / zone.count_nj) == zone.counts
            # to the µJ that the kernel cuts off at each end, and half a µJ of each wrap
            assert abs(total_uj * 1000 - zone.counts * zone.count_nj) <= 1000 + 500 * 5
        # by hand: 900 J/s for 200 s in counts of 1 J
        assert tree.zones["intel-rapl:2"].counts == 180_000


@pytest.mark.parametrize(
    ("range_uj", "modulus"),
    [
        (262_143_328_850, 262_143_328_911),  # 61 035 nJ × 2^32 = 262 143 328 911.36 µJ
        (65_532_610_987, 65_532_611_002),  # 15 258 nJ × 2^32 = 65 532 611 002.368 µJ
        (4_294_967_295_000_000, 4_294_967_296_000_000),  # 1 J
        (999, 1000),  # not a RAPL counter
    ],
)
def test_modulus_of_known_counters(range_uj: int, modulus: int) -> None:
    assert counter_modulus(range_uj) == modulus


@given(
    count_nj=st.integers(4_000, 2**31),
    first=st.integers(0, COUNTER_SIZE - 1),
    counts=st.integers(0, COUNTER_SIZE - 1),
)
def test_modulus_recovers_counts_of_any_unit(count_nj: int, first: int, counts: int) -> None:
    modulus = counter_modulus((COUNTER_SIZE - 1) * count_nj // 1000)
    before = first * count_nj // 1000
    after = (first + counts) % COUNTER_SIZE * count_nj // 1000
    assert round((after - before) % modulus * 1000 / count_nj) % COUNTER_SIZE == counts


def test_row_stands_for_the_middle_of_the_read(tmp_path: Path) -> None:
    server(tmp_path)
    ticks = iter([1_000, 1_600])
    with opened(tmp_path, clock_ns=lambda: next(ticks)) as driver:
        row = read(driver)
    assert (row.t_ns, row.read_ns, row.statuses) == (1_300, 600, None)
    assert row.values[0] == (COUNTER_SIZE - 5) * 61_035 // 1000


def test_dies_and_hexadecimal_zones(tmp_path: Path) -> None:
    tree = PowercapTree(tmp_path)
    for number in range(12):
        tree.add(f"intel-rapl:{number:x}", f"package-{number // 2}-die-{number % 2}")
    tree.add("intel-rapl:b:0", "dram")
    with opened(tmp_path) as driver:
        devices = list(channels(driver))
    assert devices[:3] == ["package-0-die-0", "package-0-die-1", "package-1-die-0"]
    assert devices[-2:] == ["package-5-die-1", "dram-5-die-1"]


def test_amd_reads_through_the_same_zones_and_says_that_it_is_a_model(tmp_path: Path) -> None:
    write_cpuinfo(tmp_path, "AuthenticAMD", "AMD EPYC 9654 96-Core Processor")
    PowercapTree(tmp_path).add("intel-rapl:0", "package-0")
    with opened(tmp_path) as driver:
        (channel,) = driver.groups[0].channels
    assert channel.accuracy is not None
    assert channel.accuracy.reading_fraction == 0.10
    assert "model's" in channel.accuracy.source


def test_mmio_alone_is_read(tmp_path: Path) -> None:
    PowercapTree(tmp_path).add("intel-rapl-mmio:0", "package-0")
    with opened(tmp_path) as driver:
        assert list(channels(driver)) == ["package-0"]


def test_zones_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    tree = PowercapTree(tmp_path)
    tree.add("intel-rapl:0", "package-0")
    tree.add("intel-rapl:1", "package-0")
    with opened(tmp_path) as driver:
        assert list(channels(driver)) == ["package-0", "package-0-zone-1"]


def test_unknown_zone_and_unknown_range_are_noted(tmp_path: Path) -> None:
    tree = PowercapTree(tmp_path)
    zone = tree.add("intel-rapl:0", "package-0")
    (zone.directory / "max_energy_range_uj").write_text("many\n")
    tree.add("intel-rapl:0:0", "gizmo")
    with opened(tmp_path) as driver:
        (channel,) = driver.groups[0].channels
        assert channel.modulus is None
        range_note, name_note = (note.reason for note in driver.notes)
        assert "max_energy_range_uj gives no range" in range_note
        assert "'gizmo', which is no RAPL domain" in name_note


def test_garbage_is_invalid_and_out_of_range_too(tmp_path: Path) -> None:
    tree = server(tmp_path)
    tree.zones["intel-rapl:0"].energy_file.chmod(0o644)
    with opened(tmp_path) as driver:
        tree.zones["intel-rapl:0"].energy_file.write_text("12 34\n")
        tree.zones["intel-rapl:1"].energy_file.write_text("262143328851\n")  # one above its range
        row = read(driver)
        assert devices_with(Status.INVALID, driver, row) == ["package-0", "package-1"]


def test_a_zone_that_goes_is_missing_and_all_gone_is_lost(tmp_path: Path) -> None:
    tree = server(tmp_path)
    with opened(tmp_path) as driver:
        tree.remove("intel-rapl:1")
        assert devices_with(Status.MISSING, driver, read(driver)) == ["package-1"]
        for zone in list(tree.zones):
            tree.remove(zone)
        with pytest.raises(DeviceLost, match="none of 6 sources can be read any more"):
            read(driver)


def test_a_kernel_file_whose_owner_dies_is_missing(tmp_path: Path) -> None:
    """A file of the real kernel that stops answering: oom_score_adj of a process that ends (ESRCH)."""
    tree = PowercapTree(tmp_path)
    for number in (0, 1):
        tree.add(f"intel-rapl:{number}", f"package-{number}")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        energy = tree.zones["intel-rapl:1"].energy_file
        energy.unlink()
        energy.symlink_to(f"/proc/{process.pid}/oom_score_adj")
        with opened(tmp_path) as driver:
            assert Status.MISSING not in statuses(read(driver))
            process.kill()
            process.wait()
            assert statuses(read(driver)) == [Status.NEW, Status.MISSING]


@pytest.fixture
def open_path() -> Iterator[Path]:
    with folder_for_all() as folder:
        yield folder


def test_without_permission_it_says_exactly_what_to_do(open_path: Path) -> None:
    tree = PowercapTree(open_path)
    mode = 0o400 if os.geteuid() == 0 else 0
    tree.add("intel-rapl:0", "package-0", mode=mode)
    with no_privileges(), pytest.raises(Unavailable) as caught:
        RaplDriver.open(DriverOptions(root=open_path))
    assert caught.value.reason.endswith(
        "intel-rapl:0/energy_uj: Permission denied; and perf: the kernel has no PMU `power`"
    )
    assert "sudo chmod a+r /sys/class/powercap/intel-rapl*:*/energy_uj" in caught.value.fix
    assert "/etc/udev/rules.d/" in caught.value.fix
    assert "CVE-2020-8694" in caught.value.fix


def test_with_permission_for_some_zones_the_others_are_noted(open_path: Path) -> None:
    tree = PowercapTree(open_path)
    tree.add("intel-rapl:0", "package-0")
    tree.add("intel-rapl:0:0", "dram", mode=0o400 if os.geteuid() == 0 else 0)
    with no_privileges(), opened(open_path) as driver:
        assert list(channels(driver)) == ["package-0"]
        assert "chmod" in driver.notes[0].fix


def test_says_why_there_is_nothing(tmp_path: Path) -> None:
    bare, virtual, hidden = tmp_path / "bare", tmp_path / "virtual", tmp_path / "hidden"
    bare.mkdir()
    write_cpuinfo(virtual, "GenuineIntel", "Xeon", flags="fpu hypervisor lahf_lm")
    (hidden / "sys/class/powercap").mkdir(parents=True)
    (hidden / "sys/class/powercap/intel-rapl:0").symlink_to("../../devices/virtual/powercap/intel-rapl/intel-rapl:0")
    for root, reason, fix in (
        (bare, "has no intel-rapl zones", "sudo modprobe intel_rapl_msr"),
        (virtual, "this is a virtual machine", "measure on the host"),
        (hidden, "container runtimes hide it", "--security-opt systempaths=unconfined"),
    ):
        with pytest.raises(Unavailable) as caught:
            RaplDriver.open(DriverOptions(root=root))
        assert reason in caught.value.reason
        assert fix in caught.value.fix


def test_refuses_unknown_settings(tmp_path: Path) -> None:
    server(tmp_path)
    with pytest.raises(Unavailable, match="no setting 'rate'"):
        RaplDriver.open(DriverOptions(root=tmp_path, settings={"rate": "5"}))


number_like = st.one_of(
    st.binary(max_size=40),
    st.integers(-(2**70), 2**70).map(lambda number: f"{number}\n".encode()),
    st.text("0123456789 +-_.eExX\n\x00٣", max_size=30).map(str.encode),
)


@given(raw=number_like)
def test_integers_are_taken_strictly(raw: bytes) -> None:
    value = parse_integer(raw)
    strict = re.fullmatch(rb"(-?[0-9]{1,20})[ \t\n\r\x0b\x0c]*", raw)
    assert value == (int(strict[1]) if strict else None)


@settings(max_examples=60, deadline=None)
@given(name=number_like | st.sampled_from([b"package-0\n", b"psys\n", b"core\n"]), energy=number_like, top=number_like)
def test_any_content_gives_a_domain_or_a_clear_refusal(name: bytes, energy: bytes, top: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tree = PowercapTree(Path(folder))
        tree.add("intel-rapl:0", "package-0")
        zone = tree.add("intel-rapl:1", "x")
        (zone.directory / "name").write_bytes(name)
        (zone.directory / "max_energy_range_uj").write_bytes(top)
        zone.energy_file.chmod(0o644)
        zone.energy_file.write_bytes(energy)
        (Path(folder) / "proc").mkdir()
        (Path(folder) / "proc/cpuinfo").write_bytes(name + b": " + energy + b"\n" + top)
        with opened(Path(folder)) as driver:
            row = read(driver)
            assert len(row.values) == len(driver.groups[0].channels) == len({c.name for c in driver.groups[0].channels})
            for channel, value, status in zip(driver.groups[0].channels, row.values, statuses(row), strict=True):
                if channel.description == "powercap zone intel-rapl:1" and status is Status.NEW:
                    assert re.fullmatch(rb"[0-9]{1,20}\s*|-0+\s*", energy) and value == int(energy)
                    assert value <= (2**64 - 1 if channel.modulus is None else int(top))


def test_processor_of_a_missing_file(tmp_path: Path) -> None:
    processor = read_processor(tmp_path)
    assert (processor.vendor, processor.model, processor.virtual) == ("", "", False)
