"""What the tests of drivers share that poll over a network."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from drivers.contract import Driver, Group, ReadFailed, Row
from drivers.discovery import Opened, Refused, open_drivers

DEADLINE_S = 20.0


@contextmanager
def opened(name: str, settings: Mapping[str, str]) -> Iterator[Driver]:
    """The driver, which must open."""
    result = open_drivers([name], settings={name: settings})[-1]
    assert isinstance(result, Opened), result
    try:
        yield result.driver
    finally:
        result.driver.close()


def refused(name: str, settings: Mapping[str, str]) -> Refused:
    """What the driver says that must not open."""
    result = open_drivers([name], settings={name: settings})[-1]
    if isinstance(result, Opened):
        result.driver.close()
    assert isinstance(result, Refused), result
    return result


def collect(group: Group, count: int) -> tuple[list[Row], list[str]]:
    """The next so many readings: rows, and what failed."""
    rows: list[Row] = []
    failures: list[str] = []
    deadline_s = time.monotonic() + DEADLINE_S
    while len(rows) + len(failures) < count:
        assert time.monotonic() < deadline_s, f"{len(rows)} rows, and {failures}"
        try:
            rows += group.read()
        except ReadFailed as error:
            failures.append(str(error))
        time.sleep(0.002)
    return rows, failures
