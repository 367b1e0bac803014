"""The kernel's own IPMI drivers between ours and a simulated BMC, on the KCS interface of an emulated machine."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

pytest.importorskip("pyghmi", reason="needs pyghmi")

from dcmi_bmc import power_reading
from machine_bmc import MachineBmc, why_no_bmc
from metered_power import MeteredPower
from poll_helpers import collect, opened, refused

from drivers.contract import Status

pytestmark = pytest.mark.machine


class Told:
    """What the BMC does."""

    sensor = MeteredPower(base=300.0, swing=0.0)
    code: int = 0
    is_mute: bool = False

    def power(self) -> bytes | None:
        if self.is_mute:
            return None
        return bytes((self.code,)) + (power_reading(self.sensor, time.monotonic()) if not self.code else b"")


@pytest.fixture(scope="module")
def machines_own() -> Iterator[Told]:
    why = why_no_bmc()
    if why:
        pytest.skip(why)
    told = Told()
    bmc = MachineBmc(told.power)
    yield told
    bmc.close()


@pytest.fixture
def bmc(machines_own: Told) -> Told:
    machines_own.sensor, machines_own.code, machines_own.is_mute = Told.sensor, 0, False
    return machines_own


@pytest.mark.parametrize("watts", [300, 0xA0, 0xA1, 0xAA])
def test_the_machines_own_bmc_is_read(bmc: Told, watts: int) -> None:
    """Among them bytes that mean something to what carries them."""
    bmc.sensor = MeteredPower(base=watts, swing=0.0)
    with opened("ipmi", {}) as driver:
        (group,) = driver.groups
        assert [channel.name for channel in group.channels] == ["ipmi/node/power"]
        rows, failures = collect(group, 3)
    assert not failures
    assert [row.values for row in rows] == [(float(watts),)] * 3
    assert all(row.statuses in (None, bytes((Status.STALE,))) for row in rows)


def test_a_bmc_without_dcmi_is_told(bmc: Told) -> None:
    bmc.code = 0xC1
    told = refused("ipmi", {})
    assert told.reason == "node: the BMC does not support the DCMI power reading (completion code 0xc1)"


def test_a_bmc_that_falls_silent_fails_readings_and_is_read_again(bmc: Told) -> None:
    with opened("ipmi", {}) as driver:
        (group,) = driver.groups
        assert not collect(group, 1)[1]
        bmc.is_mute = True
        _, failures = collect(group, 3)
        assert failures
        bmc.is_mute = False
        rows = collect(group, 3)[0]
        while not rows:
            rows = collect(group, 3)[0]
        assert rows[-1].values == (300.0,)


def test_two_programs_read_the_bmc_at_once(bmc: Told) -> None:
    with opened("ipmi", {}) as one, opened("ipmi", {}) as two:
        for driver in (one, two):
            assert collect(driver.groups[0], 3)[0][-1].values == (300.0,)
