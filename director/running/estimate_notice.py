"""What a run says at its start where nothing measures power: that all is an estimate, and what would change it."""

from __future__ import annotations

from power_agent.messages import DriverState, Ready

# Whose fix is told: the first of these that was tried. RAPL measures what the estimate stands in for.
_MEASURING = ("rapl", "nvml", "hwmon")


def estimate_notice(ready: Ready) -> str:
    """One line, or nothing where something is measured, or where nothing is estimated either."""
    channels = [c for stream in ready.streams for c in stream.channels if c.quantity in ("power", "energy")]
    if not channels or not all(channel.estimate for channel in channels):
        return ""
    return (
        f"ESTIMATE only: no sensor tells power here, and a model from CPU use may be wrong by half. {_way_out(ready)}"
    )


def _way_out(ready: Ready) -> str:
    refused = {state.driver: state for state in ready.drivers if not state.usable and state.fix}
    first = next((refused[name] for name in _MEASURING if name in refused), None)
    if first is None:
        return "For real readings leave out --drivers; `power-agent devices` tells what can be read"
    return f"For real readings ({first.driver}): {_first_step(first)}; more: `power-agent devices`"


def _first_step(state: DriverState) -> str:
    """Of a fix that tells several steps or remarks, the first."""
    return state.fix.partition("\n")[0].partition("; ")[0]
