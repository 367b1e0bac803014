"""What the tests of the NVML driver share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nvml_stub import StubGpu

from drivers.contract import Channel, Group, Status
from drivers.nvml.driver import NvmlDriver

NO_PERMISSION, DRIVER_NOT_LOADED, NOT_SUPPORTED, GPU_IS_LOST, VERSION_MISMATCH = 4, 9, 3, 15, 18

Opener = Callable[..., NvmlDriver]  # (config: StubConfig, **options of DriverOptions)


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
