"""RAPL through perf: the real system call, with a software event of the kernel in the place of energy."""

from __future__ import annotations

import os
import platform
import re
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from powercap_tree import write_perf_pmu, write_topology
from unprivileged import folder_for_all, no_privileges

from drivers.contract import DriverOptions, Unavailable
from drivers.rapl.driver import RaplDriver
from drivers.rapl.perf_energy import PerfCounter, find_energy_events, parse_cpu_list, parse_event, parse_scale

CPU_CLOCK = {"pmu_type": 1, "config": 0, "cpu": 0}  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK


def may_count_on_a_cpu() -> bool:
    if platform.machine() not in ("x86_64", "aarch64"):
        return False
    try:
        PerfCounter(**CPU_CLOCK).close()
    except PermissionError:
        return False
    return True


needs_cpu_events = pytest.mark.skipif(
    not may_count_on_a_cpu(), reason="counting on a whole CPU needs CAP_PERFMON and a known system call number"
)


@needs_cpu_events
def test_perf_takes_over_where_there_are_no_zones(tmp_path: Path) -> None:
    """The CPU clock counts nanoseconds, so the count must lie between the inner and the outer time."""
    write_perf_pmu(tmp_path, pmu_type=1, cpumask="0", events={"energy-pkg": "event=0x00"}, scale="1e-9")
    write_topology(tmp_path, cpu=0, package=3)
    driver = RaplDriver.open(DriverOptions(root=tmp_path))
    (group,) = driver.groups
    outer_begin = time.monotonic_ns()
    (first,) = group.read()
    inner_begin = time.monotonic_ns()
    while time.monotonic_ns() < inner_begin + 2_000_000:
        pass
    inner_end = time.monotonic_ns()
    (second,) = group.read()
    outer_end = time.monotonic_ns()
    driver.close()
    (channel,) = group.channels
    assert (channel.device, channel.scope, channel.scale, channel.modulus) == ("package-3", "package", 1e-9, None)
    assert second.statuses is None
    gained_ns = second.values[0] - first.values[0]
    assert 0.99 * (inner_end - inner_begin) <= gained_ns <= 1.01 * (outer_end - outer_begin)


@needs_cpu_events
@pytest.mark.skipif(os.cpu_count() == 1, reason="needs two CPUs")
def test_perf_names_domains_as_powercap_does(tmp_path: Path) -> None:
    events = ("energy-pkg", "energy-cores", "energy-ram", "energy-gpu", "energy-psys", "energy-novel")
    write_perf_pmu(tmp_path, pmu_type=1, cpumask="0-1", events=dict.fromkeys(events, "event=0x00"))
    write_topology(tmp_path, cpu=0, package=0, die=0)
    write_topology(tmp_path, cpu=1, package=0, die=1)
    driver = RaplDriver.open(DriverOptions(root=tmp_path))
    driver.close()
    found = driver.groups[0].channels
    assert {channel.scale for channel in found} == {2.0**-32}
    assert {c.device: (c.scope, c.parent) for c in found if c.device.endswith("die-1")} == {
        "core-0-die-1": ("core", "package-0-die-1"),
        "uncore-0-die-1": ("uncore", "package-0-die-1"),
        "package-0-die-1": ("package", None),
        "psys-0-die-1": ("psys", None),
        "dram-0-die-1": ("dram", None),
    }
    assert len(found) == 10
    assert [note.reason for note in driver.notes] == [
        f"the perf event energy-novel on CPU {cpu} belongs to no known domain" for cpu in (0, 1)
    ]


@needs_cpu_events
@pytest.mark.skipif(os.geteuid() != 0, reason="takes privileges away, and may count only with them")
def test_perf_without_permission_names_the_setting() -> None:
    if int(Path("/proc/sys/kernel/perf_event_paranoid").read_text()) < 1:
        pytest.skip("this kernel lets every user count")
    with folder_for_all() as root:
        write_perf_pmu(root, pmu_type=1, cpumask="0", events={"energy-pkg": "event=0x00"})
        write_topology(root, cpu=0, package=0)
        (root / "proc/sys/kernel").mkdir(parents=True)
        (root / "proc/sys/kernel/perf_event_paranoid").write_text("2\n")
        with no_privileges(), pytest.raises(Unavailable) as caught:
            RaplDriver.open(DriverOptions(root=root))
    assert "kernel.perf_event_paranoid = 2" in caught.value.reason
    assert "sudo sysctl kernel.perf_event_paranoid=0" in caught.value.fix


@needs_cpu_events
def test_perf_refuses_a_pmu_that_is_not_there() -> None:
    with pytest.raises(OSError):
        PerfCounter(pmu_type=2**31 - 1, config=2, cpu=0)


@given(text=st.text(max_size=30) | st.text("0123456789-,", max_size=14))
def test_cpu_lists_never_fail_nor_explode(text: str) -> None:
    cpus = parse_cpu_list(text)
    assert cpus == sorted(set(cpus))
    assert all(0 <= cpu < 8192 for cpu in cpus)
    if cpus:
        assert re.fullmatch(r"[0-9,-]+", text)


def test_perf_descriptions() -> None:
    assert parse_cpu_list("0,18") == [0, 18]
    assert parse_cpu_list("0-2,8") == [0, 1, 2, 8]
    assert parse_cpu_list("3-1") == parse_cpu_list("") == parse_cpu_list("0-99999999") == []
    assert parse_event("event=0x02") == 2
    assert parse_event("event=0x02,umask=0x1") is None
    assert parse_scale("2.3283064365386962890625e-10") == 2.0**-32
    assert parse_scale("nan") is parse_scale("0") is parse_scale("-1") is parse_scale("1e999") is None


@given(text=st.text(max_size=40) | st.text("0123456789.eE+-", max_size=12))
def test_perf_parsers_take_any_text(text: str) -> None:
    event, scale = parse_event(text), parse_scale(text)
    assert event is None or (0 <= event <= 255 and text.startswith("event=0x"))
    assert scale is None or (0 < scale < float("inf") and scale == float(text))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.binary(max_size=12), mask=st.binary(max_size=12), event=st.binary(max_size=12), scale=st.binary(max_size=12)
)
def test_any_pmu_description_is_taken_or_refused(kind: bytes, mask: bytes, event: bytes, scale: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_perf_pmu(root, pmu_type=9, cpumask="0", events={"energy-pkg": "event=0x02"})
        pmu = root / "sys/bus/event_source/devices/power"
        for file, content in (
            ("type", kind or b"9"),
            ("cpumask", mask or b"0"),
            ("events/energy-pkg", event or b"event=0x02"),
            ("events/energy-pkg.scale", scale or b"1"),
        ):
            (pmu / file).write_bytes(content)
        try:
            events, _ = find_energy_events(root)
        except Unavailable:
            return
        assert events and all(found.joules_per_count > 0 for found in events)
