"""A process of its own: finds the highest volts, amps and watts that each meter of a session has seen so far.

That is what the ranging stage is for: in the testing stage a meter measures with ranges that fit, and none changes
while it measures.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from director.session.files import load_manifest, spool_path
from director.session.ingest import row_dtype
from power_agent.messages import Stream
from power_agent.spool import SpoolDamaged, SpoolReader

_NAMES: Final = {"voltage": "volts", "current": "amps", "power": "watts"}
_NEW: Final = 0


def find_ranges(session: Path) -> dict[str, dict[str, float]]:
    """By driver; only of drivers that read volts and amps, as meters do, at the wall.

    Raises:
        SessionError: the manifest cannot be read.
    """
    ranges: dict[str, dict[str, float]] = {}
    for host in load_manifest(session).hosts:
        path = spool_path(session, host.name)
        if not path.exists():
            continue
        try:
            reader = SpoolReader(path)
        except SpoolDamaged:
            continue
        try:
            for stream in reader.streams():
                found = ranges.setdefault(stream.driver, {})
                for name, value in _highest(reader, stream).items():
                    found[name] = max(value, found.get(name, value))
        except SpoolDamaged:
            continue
        finally:
            reader.close()
    return {driver: found for driver, found in ranges.items() if {"volts", "amps"} <= found.keys()}


def _highest(reader: SpoolReader, stream: Stream) -> dict[str, float]:
    whole = {c.device for c in stream.channels if c.quantity == "power" and c.scope == "wall"}
    whole |= {c.device for c in stream.channels if c.parent in whole}  # elements of a meter
    wanted = [
        (place, _NAMES[channel.quantity], channel.scale)
        for place, channel in enumerate(stream.channels)
        if channel.quantity in _NAMES and channel.kind == "gauge" and channel.device in whole
    ]
    highest: dict[str, float] = {}
    if not wanted:
        return highest
    dtype = row_dtype(stream)
    for _, payload in reader.batches(stream.id):
        rows = np.frombuffer(payload, dtype)
        for place, name, scale in wanted:
            values = np.abs(rows[f"value{place}"][rows[f"status{place}"] == _NEW]) * scale
            values = values[np.isfinite(values)]
            if len(values):
                highest[name] = max(float(values.max()), highest.get(name, 0.0))
    return highest


def main() -> int:
    """Called with the session's directory; prints JSON. Returns the exit status."""
    try:
        sys.stdout.write(msgspec.json.encode(find_ranges(Path(sys.argv[1]))).decode())
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
