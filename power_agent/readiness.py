"""How long a sampler may take until it is ready: until each driver is open, and has given its first row or is told."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from power_agent.messages import DriverState, SamplerSpec

if TYPE_CHECKING:  # whoever waits needs no driver
    from power_agent.sampled_driver import SampledDriver

FIRST_ROWS_S = 5.0  # a driver that has given nothing by then is reported as not usable
FIRST_UPDATE_PERIODS = 1.25  # where that is longer: of a device that gives a row at each of its updates
CHECK_RANGES_S = 30.0  # that a driver which probes for its ranges may take after the probe
MOST_PATIENCE_S = 3600.0
_PATIENCE = re.compile(rb"patience (\d{1,4})\n")


def first_rows_s(driver: SampledDriver) -> float:
    """How long a driver may take until it has given a row of each group."""
    periods_s = [
        channel.update_period_s
        for group in driver.groups
        for channel in group.stream.channels
        if channel.stamped and channel.update_period_s is not None
    ]
    return min(max([FIRST_ROWS_S, *(FIRST_UPDATE_PERIODS * period_s for period_s in periods_s)]), MOST_PATIENCE_S)


def probing_s(spec: SamplerSpec) -> float:
    """How long drivers look at the load while they are opened, because they were told to."""
    total_s = 0.0
    for name, words in spec.settings.items():
        if spec.drivers is None or name in spec.drivers:
            with suppress(KeyError, ValueError):  # what is no number the driver refuses
                probe_s = float(words["probe_s"])
                total_s += probe_s + CHECK_RANGES_S if probe_s > 0 else 0.0
    return min(total_s, MOST_PATIENCE_S)


def not_usable_yet(state: DriverState, waited_s: float) -> DriverState:
    """Of a driver that has given nothing in that time."""
    return msgspec.structs.replace(
        state,
        usable=False,
        reason=f"no reading came within {waited_s:g} s",
        fix="check the device; it is still asked, and what it says later is kept",
    )


def patience_line(seconds: float) -> bytes:
    """What a sampler says before it is ready, where that takes so much longer than usual."""
    return f"patience {seconds:.0f}\n".encode()


def take_patience(received: bytes) -> tuple[int | None, bytes]:
    """The seconds that such a line at the beginning tells, and what follows it; None: there is none."""
    found = _PATIENCE.match(received)
    return (int(found[1]), received[found.end() :]) if found else (None, received)
