"""Measures a device under a load that goes on and off, and works out what that tells of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from director.characterize.session_channels import check_names, is_wanted
from director.characterize.square_wave import duration_s
from director.running.notices import say
from director.running.run_command import Outcome, default_directory, run_once
from director.running.run_options import ReportOptions, RunOptions
from director.session.files import SessionError
from drivers.discovery import Opened, Refused, open_drivers

JOB = "director.characterize.square_wave"
SEED = 1
DEFAULT_HZ = 20.0


@dataclass(frozen=True)
class Wanted:
    """What the user asked for."""

    device: str
    load: list[str]  # empty: busy CPUs
    channels: list[str] | None = None
    rate_hz: float = DEFAULT_HZ
    period_s: float = 10.0
    cycles: int = 12
    output: Path | None = None
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def record(wanted: Wanted) -> tuple[Path, Outcome]:
    """Measure the device under the load. Returns the session, and how that ended.

    Raises:
        SessionError: the device cannot be read, or has no such channel; nothing was run.
        UsageError, CannotStart, OSError: the session cannot be made; nothing was run.
    """
    highest_hz = _look_for(wanted)
    lasts_s = duration_s(wanted.cycles, wanted.period_s, SEED, has_command=bool(wanted.load))
    load = ["--cycles", str(wanted.cycles), "--period", str(wanted.period_s), "--seed", str(SEED)]
    options = RunOptions(
        argv=[sys.executable, "-m", JOB, *load, *(["--", *wanted.load] if wanted.load else [])],
        output=wanted.output,
        label=f"characterize {wanted.device}",
        drivers=[wanted.device],
        rates_hz={wanted.device: min(wanted.rate_hz, highest_hz)},
        settings={driver: dict(keys) for driver, keys in wanted.settings.items()},
        use_characteristics=False,
        live=False,
        report=ReportOptions(quiet=True),
    )
    session = options.output or default_directory(options)
    say(f"switching a load on and off for {lasts_s:.0f} s, into {session}")
    return session, run_once(options, session)


def _look_for(wanted: Wanted) -> float:
    """A device that is not there must not cost two minutes. Returns the highest rate of what is wanted, in Hz."""
    result = open_drivers([wanted.device], settings=wanted.settings)[-1]
    if isinstance(result, Refused):
        raise SessionError(f"{wanted.device} cannot be used here: {result.reason}; {result.fix}")
    assert isinstance(result, Opened)
    result.driver.close()
    highest_hz = {
        channel.name: group.max_hz for group in result.driver.groups for channel in group.channels if is_wanted(channel)
    }
    if not highest_hz:
        raise SessionError(f"{wanted.device} measures neither power nor energy; `power-agent devices` lists what does")
    check_names(wanted.channels, list(highest_hz))
    return max(highest_hz[name] for name in wanted.channels or highest_hz)
