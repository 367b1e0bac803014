"""The host driver over a small /proc and /sys of its own, and once over the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.contract import DriverOptions, ReadFailed, Status, Unavailable
from drivers.host import HostDriver

NEW, STALE, MISSING = Status.NEW, Status.STALE, Status.MISSING


class Machine:
    """Files as a kernel shows them; writing one again keeps it the same file, as an open descriptor sees it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_ns = 0
        self.write("proc/stat", "cpu  0 0 0 0 0 0 0 0 0 0\n")

    def write(self, path: str, text: str | bytes) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode() if isinstance(text, str) else text)

    def packages(self, *packages: list[int]) -> None:
        for package, cpus in enumerate(packages):
            for cpu in cpus:
                self.write(f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id", f"{package}\n")

    def stat(self, *rows: str) -> None:
        """Lines of user nice system idle iowait irq softirq steal guest guest_nice; the first is the sum."""
        names = ["cpu ", *(f"cpu{cpu}" for cpu in range(len(rows) - 1))]
        lines = [f"{name} {row}" for name, row in zip(names, rows, strict=True)]
        self.write("proc/stat", "\n".join([*lines, "intr 12345 0 0", "ctxt 1", ""]))

    def open(self) -> HostDriver:
        return HostDriver.open(DriverOptions(root=self.root, clock_ns=self.tick))

    def tick(self) -> int:
        self.now_ns += 100
        return self.now_ns


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    yield Machine(tmp_path)


def test_utilization_of_one_package_counts_neither_waiting_nor_what_another_guest_took(machine: Machine) -> None:
    machine.packages([0, 1])
    machine.stat("0 0 0 0 0 0 0 0 0 0", "0 0 0 0 0 0 0 0 0 0", "0 0 0 0 0 0 0 0 0 0")
    driver = machine.open()
    cpu = driver.groups[0]
    assert [channel.name for channel in cpu.channels] == ["host/package-0/utilization"]
    # busy 10+20+30+3+7 = 70 of 70+100 idle+20 iowait+10 steal = 200; guest time is part of user time
    machine.stat("10 20 30 100 20 3 7 10 9 9", "0 0 0 0 0 0 0 0 0 0", "0 0 0 0 0 0 0 0 0 0")
    ((t_ns, read_ns, values, statuses),) = cpu.read()
    assert (t_ns, read_ns) == (150, 100)
    assert (list(values), statuses) == ([35.0], bytes([NEW]))
    driver.close()


def test_each_package_has_its_own_utilization_since_the_previous_reading(machine: Machine) -> None:
    machine.packages([0, 2], [1, 3])
    nothing = "0 0 0 0 0 0 0 0"
    machine.stat(nothing, nothing, nothing, nothing, nothing)
    driver = machine.open()
    cpu = driver.groups[0]
    machine.stat(nothing, "10 0 0 0 0 0 0 0", "0 0 0 10 0 0 0 0", "5 0 0 5 0 0 0 0", "1 0 0 9 0 0 0 0")
    assert list(cpu.read()[0].values) == [75.0, 5.0]  # (10 + 5) of 20; (0 + 1) of 20
    machine.stat(nothing, "10 0 0 10 0 0 0 0", "10 0 0 10 0 0 0 0", "5 0 0 15 0 0 0 0", "11 0 0 9 0 0 0 0")
    assert list(cpu.read()[0].values) == [0.0, 100.0]
    driver.close()


def test_no_tick_since_the_previous_reading_is_missing_at_first_and_stale_later(machine: Machine) -> None:
    machine.stat("1 0 0 1 0 0 0 0", "1 0 0 1 0 0 0 0")
    driver = machine.open()
    cpu = driver.groups[0]
    assert cpu.read()[0].statuses == bytes([MISSING])
    machine.stat("2 0 0 4 0 0 0 0", "2 0 0 4 0 0 0 0")
    assert (list(cpu.read()[0].values), cpu.read()[0].statuses) == ([25.0], bytes([STALE]))
    assert list(cpu.read()[0].values) == [25.0]
    driver.close()


def test_a_cpu_taken_offline_gives_no_false_utilization(machine: Machine) -> None:
    machine.packages([0, 1], [2])
    machine.stat("0 0 0 0 0 0 0 0", "50 0 0 50 0 0 0 0", "50 0 0 50 0 0 0 0", "0 0 0 0 0 0 0 0")
    driver = machine.open()
    machine.write("proc/stat", "cpu  0 0 0 0 0 0 0 0\ncpu0 60 0 0 60 0 0 0 0\ncpu2 1 0 0 1 0 0 0 0\n")
    ((_, _, values, statuses),) = driver.groups[0].read()
    assert statuses == bytes([MISSING, NEW])
    assert values[1] == 50.0
    driver.close()


@pytest.mark.parametrize("text", [b"", b"cpu 1 2 3\n", b"cpu a b c d e f g h\n", b"\x00\xff\n"])
def test_what_is_no_cpu_time_is_a_failed_reading(machine: Machine, text: bytes) -> None:
    driver = machine.open()
    machine.write("proc/stat", text)
    with pytest.raises(ReadFailed, match="CPU time cannot be read"):
        driver.groups[0].read()
    driver.close()


def test_no_proc_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"CPU time cannot be read: .*proc/stat") as caught:
        HostDriver.open(DriverOptions(root=tmp_path))
    assert caught.value.fix == "mount /proc where the agent runs"


def test_a_setting_that_it_does_not_have_is_refused(machine: Machine) -> None:
    with pytest.raises(Unavailable, match="it has no setting 'rate'"):
        HostDriver.open(DriverOptions(root=machine.root, settings={"rate": "5"}))


def full(machine: Machine) -> None:
    machine.packages([0, 1, 2, 3, 4, 5])
    for cpu in range(6):
        machine.write(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", f"{1_000_000 + 300_000 * cpu}\n")
    machine.write("proc/meminfo", "MemTotal:       1000 kB\nMemFree:  300 kB\nMemAvailable:   400 kB\nBuffers: 1 kB\n")
    for name in ("lo", "eth0", "docker0"):
        (machine.root / "sys/class/net" / name).mkdir(parents=True)
    (machine.root / "sys/class/net/eth0/device").mkdir()
    network(machine, "    lo: 7 0 0 0 0 0 0 0 7 0", "  eth0:123 1 0 0 0 0 0 0 456 2", "docker0: 9 0 0 0 0 0 0 0 9 0")
    (machine.root / "sys/block/sda/device").mkdir(parents=True)
    (machine.root / "sys/block/loop0").mkdir()
    machine.write(
        "proc/diskstats", "7 0 loop0 9 9 9 9 9 9 9 9\n8 0 sda 1 2 30 4 5 6 70 8 0\n8 1 sda1 1 2 30 4 5 6 70 8 0\n"
    )
    machine.write("sys/class/power_supply/AC/type", "Mains\n")
    machine.write("sys/class/power_supply/BAT0/type", "Battery\n")
    machine.write("sys/class/power_supply/BAT0/capacity", "87\n")
    machine.write("sys/class/power_supply/mouse/type", "Battery\n")
    machine.write("sys/class/power_supply/mouse/scope", "Device\n")
    machine.write("sys/class/power_supply/mouse/capacity", "10\n")


def network(machine: Machine, *lines: str) -> None:
    machine.write("proc/net/dev", "\n".join(["Inter-|   Receive", " face |bytes", *lines, ""]))


def test_the_system_group_reads_each_quantity_in_its_unit(machine: Machine) -> None:
    full(machine)
    driver = machine.open()
    system = driver.groups[1]
    row = system.read()[0]
    read = {
        channel.name: (value * channel.scale, channel.unit)
        for channel, value in zip(system.channels, row.values, strict=True)
    }
    assert read == {
        "host/package-0/frequency": (1600.0, "MHz"),  # CPUs 0, 2 and 4: at most four are asked
        "host/memory/used": (600 * 1024, "B"),
        "host/eth0/received": (123, "B"),
        "host/eth0/sent": (456, "B"),
        "host/sda/read": (30 * 512, "B"),
        "host/sda/written": (70 * 512, "B"),
        "host/BAT0/charge": (87.0, "%"),
    }
    assert row.statuses == bytes([NEW] * 7)
    counters = [v for c, v in zip(system.channels, row.values, strict=True) if c.kind == "counter"]
    assert all(type(value) is int for value in counters)
    driver.close()


def test_what_goes_away_is_missing_and_the_rest_is_still_read(machine: Machine) -> None:
    full(machine)
    driver = machine.open()
    network(machine, "    lo: 7 0 0 0 0 0 0 0 7 0")
    machine.write("proc/meminfo", "")
    machine.write("sys/class/power_supply/BAT0/capacity", "")
    row = driver.groups[1].read()[0]
    assert row.statuses == bytes([NEW, MISSING, MISSING, MISSING, NEW, NEW, MISSING])
    driver.close()


def test_in_a_container_without_devices_all_interfaces_but_loopback_count(machine: Machine) -> None:
    for name in ("lo", "eth0"):
        (machine.root / "sys/class/net" / name).mkdir(parents=True)
    network(machine, "    lo: 7 0 0 0 0 0 0 0 7 0", "  eth0: 1 1 0 0 0 0 0 0 2 2")
    driver = machine.open()
    assert list(driver.groups[1].read()[0].values) == [1, 2]
    driver.close()


def test_the_real_machine_can_be_read() -> None:
    driver = HostDriver.open(DriverOptions())
    for group in driver.groups:
        (row,) = group.read()
        assert len(row.values) == len(group.channels)
    memory = [c.name for c in driver.groups[1].channels].index("host/memory/used")
    total_kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert 0 < driver.groups[1].read()[0].values[memory] < 1024 * total_kib
    driver.close()


FILES = ["proc/meminfo", "proc/net/dev", "proc/diskstats", "sys/class/power_supply/BAT0/capacity"]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["proc/stat", *FILES]),
    data=st.binary(max_size=300) | st.text(alphabet="cpu 0189:\n-").map(str.encode),
)
def test_no_content_of_a_file_breaks_a_reading(machine: Machine, path: str, data: bytes) -> None:
    if not (machine.root / "sys/block").exists():
        full(machine)
    machine.packages([0, 1], [2])
    machine.stat("1 1 1 1 1 1 1 1", "1 1 1 1 1 1 1 1", "1 1 1 1 1 1 1 1", "1 1 1 1 1 1 1 1")
    driver = machine.open()
    machine.write(path, data)
    for group in driver.groups:
        try:
            (row,) = group.read()
        except ReadFailed:
            assert path == "proc/stat"
        else:
            assert len(row.values) == len(group.channels) == len(row.statuses or b"")
    driver.close()
