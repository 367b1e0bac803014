"""The meter test live: both meters are recorded in one session while the system idles and bears two loads."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from director.mlperf.qualify.meter_test import MINUTE_S, MINUTES, Level, QualifyRefused, measures_power
from director.running.run_command import Outcome, default_directory, run_once
from director.running.run_options import ReportOptions, RunOptions
from drivers.discovery import Opened, Refused, open_drivers

IDLE = "idle"
JOB = "director.mlperf.qualify.levels_job"
_OVER_S = 0.1  # that a level is longer than its minutes


@dataclass(frozen=True)
class LiveTest:
    """What the user asked for."""

    loads: Sequence[tuple[str, str]]  # name and command of each
    channels: tuple[str, str]  # of the meter and of the reference
    settle_s: float
    output: Path | None = None
    drivers: list[str] | None = None
    rates_hz: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    minute_s: float = MINUTE_S

    @property
    def levels(self) -> list[Level]:
        """Phases of the session."""
        return [Level(IDLE), *(Level(name) for name, _ in self.loads)]


def record(test: LiveTest) -> tuple[Path, Outcome]:
    """Measure both meters at all levels. Returns the session, and how the levels ended.

    Raises:
        QualifyRefused: a meter cannot be read here; nothing was run.
        UsageError, OSError: the session cannot be made; nothing was run.
    """
    _look_for(test)
    levels = [f"{IDLE}=", *(f"{name}={command}" for name, command in test.loads)]
    times = ["--settle", str(test.settle_s), "--hold", str(MINUTES * test.minute_s + _OVER_S)]
    options = RunOptions(
        argv=[sys.executable, "-m", JOB, *times, "--", *levels],
        output=test.output,
        label="qualify",
        drivers=test.drivers,
        rates_hz=dict(test.rates_hz),
        settings={driver: dict(keys) for driver, keys in test.settings.items()},
        report=ReportOptions(quiet=True),
    )
    session = options.output or default_directory(options)
    return session, run_once(options, session)


def _look_for(test: LiveTest) -> None:
    """A channel that is not there must not cost a quarter of an hour."""
    found = open_drivers(test.drivers, settings=test.settings)
    opened = [result for result in found if isinstance(result, Opened)]
    for result in opened:
        result.driver.close()
    channels = [channel for result in opened for group in result.driver.groups for channel in group.channels]
    power = {c.name for c in channels if measures_power(c) and not c.estimate}
    for name in test.channels:
        if name not in power:
            unusable = "".join(f"\n  {r.name}: {r.reason}; {r.fix}" for r in found if isinstance(r, Refused))
            raise QualifyRefused(
                f"no meter here has a channel {name} of power or energy; there are: "
                f"{', '.join(sorted(power)) or 'none'}{unusable}"
            )
