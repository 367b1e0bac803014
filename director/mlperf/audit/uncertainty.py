"""PTDaemon's uncertainty of a log's samples, from the meter's ranges. drivers/analyzer_uncertainty.py has the formula.

Versions 1.9 warn of up to 0.01 percentage points more than it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from director.energy.cells import Floats, Ints
from director.mlperf.inference.sample_log import stamp_us
from director.mlperf.text_blocks import text_blocks
from drivers.analyzer_ranges import AMPERES, SMALL_AMPERES, VOLTS, next_range
from drivers.analyzer_uncertainty import WT210, WT300, share

_OF_CHANNEL = ("Watts", "Volts", "Amps", "PF")
_FIELDS = 12  # of a line, before those of single channels
_FIELDS_PER_CHANNEL = 9


@dataclass(frozen=True)
class Ranges:
    """The meter's voltage and current range, of one channel."""

    volts: float
    amperes: float


def ranges_of(meter: str, volts: float, amperes: float) -> Ranges | None:
    """The ranges that a meter takes where these are asked for: the next higher ones. None: it has none so high.

    Args:
        meter: PTDaemon's name for it.
    """
    small = () if meter.startswith("YokogawaWT33") else SMALL_AMPERES
    found = next_range(VOLTS, volts), next_range((*small, *AMPERES), amperes)
    return None if found[0] is None or found[1] is None else Ranges(found[0], found[1])


def has_formula(meter: str) -> bool:
    """Whether PTDaemon's formula is known for a meter. Those for direct current and the WT500 are not."""
    return meter.startswith(("YokogawaWT210", "YokogawaWT310", "YokogawaWT33")) and not meter.endswith("_DC")


@dataclass(frozen=True)
class ChannelSamples:
    """Samples of the shape (samples, channels). A meter of one channel has one."""

    line: Ints
    t_us: Ints  # since 1970, as stamped
    watts: Floats
    volts: Floats
    amperes: Floats
    power_factor: Floats


def read_channels(path: Path) -> ChannelSamples:
    """Samples of a log whose lines are whole; others are left out, as are those with another number of channels.

    Raises:
        NoLog: see `text_blocks`.
    """
    lines: list[int] = []
    times: list[int] = []
    values: list[list[float]] = []
    for block in text_blocks(path):
        for number, line in enumerate(block.text.split(b"\n"), start=block.first_line):
            fields = line.rstrip(b"\r").split(b",")
            places = _places(fields)
            if not places or (values and len(places) * 4 != len(values[0])):
                continue
            try:
                row = [float(fields[place + 2 * at]) for place in places for at in range(4)]
                times.append(stamp_us(fields[1].decode("ascii")))
            except ValueError:
                continue
            lines.append(number)
            values.append(row)
    table = np.array(values, dtype=np.float64).reshape(len(lines), len(values[0]) // 4 if values else 1, 4)
    return ChannelSamples(
        np.array(lines, dtype=np.int64), np.array(times, dtype=np.int64), *(table[:, :, at] for at in range(4))
    )


def _places(fields: Sequence[bytes]) -> list[int]:
    """Where each channel's watts stand; [] for a line that is not whole."""
    extra = len(fields) - _FIELDS
    if extra < 0 or extra % _FIELDS_PER_CHANNEL or fields[0] != b"Time" or fields[10] != b"Mark":
        return []
    places = [place + 2 for place in range(_FIELDS, len(fields), _FIELDS_PER_CHANNEL)] or [3]
    named = all(fields[place - 1 + 2 * at] == name.encode() for place in places for at, name in enumerate(_OF_CHANNEL))
    return places if named else []


def uncertainties(samples: ChannelSamples, meter: str, ranges: Ranges) -> Floats:
    """The share that PTDaemon reports, of each sample; NaN where no channel draws power."""
    on = samples.watts > 0
    watts = np.where(on, samples.watts, 0.0)
    factor = np.clip(np.where(on & (samples.power_factor > 0), samples.power_factor, 1.0), 1e-6, 1.0)
    tangent = np.sqrt(1 - factor**2) / factor
    power = ranges.volts * ranges.amperes
    found: Floats
    with np.errstate(divide="ignore", invalid="ignore"):
        if meter.startswith("YokogawaWT210"):
            found = share(WT210, power, watts[:, 0], tangent[:, 0])
        else:
            apparent = np.where(on, samples.volts * samples.amperes, 0.0).sum(axis=1)
            weighted = (watts * tangent).sum(axis=1) / watts.sum(axis=1)
            found = share(WT300, watts.shape[1] * power, apparent, weighted)
    return np.where(on.any(axis=1) & np.isfinite(found), found, np.nan)
