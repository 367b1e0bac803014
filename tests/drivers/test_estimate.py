"""The CPU model over a /proc/stat of its own: power and energy worked out by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from drivers.contract import DriverOptions, ReadFailed, Status, Unavailable
from drivers.estimate import EstimateDriver

TICKS = os.sysconf("SC_CLK_TCK")
S = 1_000_000_000


class Machine:
    """Two packages of two CPUs, and a clock that a test sets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_ns = 0
        for cpu in range(4):
            place = root / f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id"
            place.parent.mkdir(parents=True)
            place.write_text(f"{cpu // 2}\n")
        (root / "proc").mkdir()
        self.at(0.0, 0.0, 0.0)

    def at(self, seconds: float, *busy_s: float) -> None:
        """The machine after `seconds`, of which the CPUs of each package were busy for `busy_s` in all."""
        lines = ["cpu  0 0 0 0 0 0 0 0"]
        for cpu in range(4):
            busy = round(busy_s[cpu // 2] / 2 * TICKS)
            lines.append(f"cpu{cpu} {busy} 0 0 {round(seconds * TICKS) - busy} 0 0 0 0")
        (self.root / "proc/stat").write_text("\n".join(lines) + "\n")
        self.now_ns = round(seconds * S)

    def open(self, **settings: str) -> EstimateDriver:
        return EstimateDriver.open(DriverOptions(root=self.root, clock_ns=lambda: self.now_ns, settings=settings))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_power_is_linear_between_the_stated_watts(machine: Machine) -> None:
    driver = machine.open(idle_watts="20", peak_watts="100")
    (group,) = driver.groups
    machine.at(10.0, 5.0, 20.0)  # 20 CPU-seconds each: a quarter, and all, of them busy
    (row,) = group.read()
    assert row.t_ns == 10 * S
    assert [c.name for c in group.channels] == [
        f"estimate/package-{p}/{q}" for p in (0, 1) for q in ("power", "energy")
    ]
    assert list(row.values) == [40.0, 400_000_000, 100.0, 1_000_000_000]  # W and µJ: 40 W and 100 W for 10 s
    assert row.statuses == bytes([Status.NEW] * 4)
    machine.at(20.0, 5.0, 20.0)  # then both idle
    assert list(group.read()[0].values) == [20.0, 600_000_000, 20.0, 1_200_000_000]
    driver.close()


def test_energy_is_the_same_at_every_rate(machine: Machine) -> None:
    """200 readings or one: 50 s with each package half busy on average, at 10 W idle and 30 W peak, are 1000 J."""
    often = machine.open(idle_watts="10", peak_watts="30")
    once = machine.open(idle_watts="10", peak_watts="30")
    for step in range(1, 201):
        seconds = step / 4
        machine.at(seconds, 2 * min(seconds, 25.0), 2 * max(0.0, seconds - 25.0))
        row = often.groups[0].read()[0]
    assert list(row.values)[1::2] == [1_000_000_000, 1_000_000_000]
    assert list(once.groups[0].read()[0].values)[1::2] == [1_000_000_000, 1_000_000_000]
    often.close()
    once.close()


def test_the_generic_default_is_stated_per_cpu(machine: Machine) -> None:
    driver = machine.open()
    (group,) = driver.groups
    machine.at(1.0, 2.0, 0.0)
    assert list(group.read()[0].values)[::2] == [5.0, 1.0]  # 2 CPUs of 2.5 W, idle at a fifth of that
    power, energy = group.channels[:2]
    assert power.description.startswith("idle 1 W, peak 5 W (generic default)")
    assert power.estimate and energy.estimate
    assert power.scope == energy.scope == "package"
    assert power.accuracy is not None and power.accuracy.reading_fraction == 0.5
    assert (power.unit, power.scale, power.kind) == ("W", 1.0, "gauge")
    assert (energy.unit, energy.scale, energy.kind) == ("J", 1e-6, "counter")
    driver.close()


def test_idle_follows_a_stated_peak(machine: Machine) -> None:
    driver = machine.open(peak_watts="200")
    machine.at(1.0, 0.0, 0.0)
    assert driver.groups[0].read()[0].values[0] == 40.0
    driver.close()


def test_without_a_tick_power_is_missing_then_stale_while_idle_energy_goes_on(machine: Machine) -> None:
    driver = machine.open(idle_watts="20", peak_watts="100")
    (group,) = driver.groups
    machine.now_ns = 1_000_000
    row = group.read()[0]
    assert row.statuses == bytes([Status.MISSING, Status.NEW] * 2)
    assert row.values[1] == 20_000  # 20 W × 1 ms
    machine.at(1.0, 1.0, 1.0)
    group.read()
    assert group.read()[0].statuses == bytes([Status.STALE, Status.NEW] * 2)
    assert group.read()[0].values[0] == 60.0
    driver.close()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"idle_watts": "many"}, "estimate.idle_watts is 'many', which is not a number of watts"),
        ({"peak_watts": "nan"}, "estimate.peak_watts is 'nan', which is not a number of watts"),
        ({"peak_watts": "-5"}, "estimate.peak_watts is '-5', which is not a number of watts"),
        ({"idle_watts": "50", "peak_watts": "40"}, "idle power of 50 W is more than peak power of 40 W"),
        ({"idle_wats": "50"}, "it has no setting 'idle_wats'"),
    ],
)
def test_a_wrong_setting_is_refused(machine: Machine, settings: dict[str, str], reason: str) -> None:
    with pytest.raises(Unavailable) as caught:
        machine.open(**settings)
    assert caught.value.reason == reason
    assert "estimate." in caught.value.fix


def test_broken_cpu_time_is_unavailable_at_first_and_a_failed_reading_later(machine: Machine) -> None:
    driver = machine.open()
    (machine.root / "proc/stat").write_text("cpu\ncpu0 1\n")
    with pytest.raises(ReadFailed, match="CPU time cannot be read"):
        driver.groups[0].read()
    driver.close()
    with pytest.raises(Unavailable, match="CPU time cannot be read"):
        machine.open()


def test_the_real_machine_lies_between_idle_and_peak() -> None:
    driver = EstimateDriver.open(DriverOptions(settings={"idle_watts": "3", "peak_watts": "9"}))
    (group,) = driver.groups
    deadline = group.read()[0].t_ns + 5 * S
    while (row := group.read()[0]).t_ns < deadline and row.statuses != bytes([Status.NEW]) * len(group.channels):
        pass
    assert all(3.0 <= watts <= 9.0 for watts in list(row.values)[::2])
    driver.close()
