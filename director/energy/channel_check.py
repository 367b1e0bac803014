"""Whether what a driver says about a channel can be true; a mistake in one must not cost the figures of all."""

from __future__ import annotations

import math
from collections.abc import Iterator

from drivers.contract import Channel

_LONGEST_S = 86_400.0  # between two values of a device


def find_flaw(channel: Channel) -> str:
    """What cannot be true of a power or energy channel, in plain words; empty where there is nothing."""
    return next(_flaws(channel), "")


def _flaws(channel: Channel) -> Iterator[str]:
    if not (math.isfinite(channel.scale) and 1e-30 < abs(channel.scale) < 1e30):
        yield f"a scale of {channel.scale}"
    times = (
        ("an update period", channel.update_period_s),
        ("a window", channel.window_s),
        ("a delay", channel.delay_s),
        ("an uncertainty of the delay", channel.delay_u_s),
    )
    for name, seconds in times:
        if seconds is not None and not 0 <= seconds <= _LONGEST_S:
            yield f"{name} of {seconds} s"
    if channel.modulus is not None and channel.modulus <= 0:
        yield f"a counter that wraps at {channel.modulus}"
    if channel.accuracy is not None:
        limits = (channel.accuracy.reading_fraction, channel.accuracy.absolute)
        if not all(math.isfinite(limit) and limit >= 0 for limit in limits):
            yield f"an accuracy of {limits[0]} of the reading and {limits[1]} {channel.unit}"
