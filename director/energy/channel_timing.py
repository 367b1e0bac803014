"""How a channel's readings lie in time: lag, resolution and the share of time that the device looks at."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.contract import Channel

UNKNOWN_DUTY = 0.25  # assumed share of the time that a device of unknown window sees: that of an A100 or H100


@dataclass(frozen=True)
class Timing:
    """Times in nanoseconds.

    A device publishes every `update_ns` the mean over the `window_ns` before; we read every `poll_ns`. A reading
    taken at t therefore describes, on average, the instant t − lag_ns.
    """

    poll_ns: float
    update_ns: float
    window_ns: float
    lag_ns: float
    spacing_ns: float  # distance between independent readings
    step_ns: float  # of a counter: how far a reading's instant may lie from the step that it shows
    window_known: bool
    update_known: bool

    @property
    def duty(self) -> float:
        """Share of the time between independent readings that a reading has seen; 1 when nothing is missed."""
        return min(1.0, self.window_ns / self.spacing_ns)


def timing_of(channel: Channel, rate_hz: float) -> Timing:
    """Work out a channel's timing from what its driver says and the rate it is read at."""
    poll_ns = 1e9 / rate_hz
    update_known = channel.update_period_s is not None
    update_ns = channel.update_period_s * 1e9 if channel.update_period_s is not None else poll_ns
    spacing_ns = max(poll_ns, update_ns)
    delay_ns = channel.delay_s * 1e9
    if channel.stamped:  # a row for each update, however often we ask for one
        poll_ns = spacing_ns
    if channel.kind == "counter":
        # A counter misses nothing. Its value is as old as its last step: half a step on average, or half a poll
        # where we poll faster and take the first sight of each new value.
        step_ns = min(update_ns, poll_ns) if not channel.stamped else 0.0
        lag_ns = (step_ns / 2 if update_known else 0.0) + delay_ns
        return Timing(poll_ns, update_ns, spacing_ns, lag_ns, spacing_ns, step_ns, True, update_known)
    window_known = channel.window_s is not None
    window_ns = channel.window_s * 1e9 if channel.window_s is not None else UNKNOWN_DUTY * spacing_ns
    age_ns = update_ns / 2 if update_known and not channel.stamped else 0.0
    lag_ns = delay_ns + age_ns + window_ns / 2
    return Timing(poll_ns, update_ns, window_ns, lag_ns, spacing_ns, 0.0, window_known, update_known)
