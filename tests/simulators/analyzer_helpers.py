"""Opens analyzers against simulated ones, as a user would name them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from drivers.contract import DeviceLost, Group, ReadFailed, Row
from drivers.discovery import Opened, Refused, open_drivers

PATIENCE_S = 10.0


def opened(name: str, clock_ns: Callable[[], int] = time.monotonic_ns, **settings: str) -> Opened:
    """Open a driver that must open."""
    result = open_drivers([name], settings={name: settings}, clock_ns=clock_ns)[-1]
    assert isinstance(result, Opened), result
    return result


def refused(name: str, **settings: str) -> Refused:
    """Open a driver that must not open."""
    result = open_drivers([name], settings={name: settings})[-1]
    assert isinstance(result, Refused), result
    return result


def values(group: Group, row: Row) -> dict[str, float]:
    """Values of a row by the last part of their channel's name and, where it is not the first, the device."""
    first = group.channels[0].device
    return {
        (channel.name.split("/")[-1] if channel.device == first else "/".join(channel.name.split("/")[1:])): value
        for channel, value in zip(group.channels, row.values, strict=True)
    }


def statuses(group: Group, row: Row) -> dict[str, int]:
    """Statuses of a row, named likewise."""
    found = row.statuses if row.statuses is not None else bytes(len(group.channels))
    return {name: found[place] for place, name in enumerate(values(group, row))}


def read_until(group: Group, enough: Callable[[list[Row]], bool], failures: list[Exception] | None = None) -> list[Row]:
    """Read until what came is enough; failed readings are noted, where somebody wants to know, or not allowed."""
    rows: list[Row] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while not enough(rows):
        assert time.monotonic() < deadline_s, rows
        try:
            rows += group.read()
        except (ReadFailed, DeviceLost) as error:
            if failures is None:
                raise
            failures.append(error)
            if isinstance(error, DeviceLost):
                return rows
    return rows


def heard_since(heard: Sequence[str], command: str) -> list[str]:
    """What a meter was told after the last time it was told this."""
    return list(heard[len(heard) - list(reversed(heard)).index(command) :])
