"""Measure a block of a script that is started as any other: `python examples/measure_block.py`."""

from __future__ import annotations

import math
import time

from director import measure
from power_agent import phase


def work(seconds: float) -> None:
    """Keep one CPU busy."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        math.factorial(500)


def main() -> None:
    with measure("example") as m:
        for epoch in range(3):
            with phase("epoch", index=epoch):
                work(0.5)
        with measure("evaluation") as evaluation:  # a phase of the session above
            work(0.3)
    print(m)
    print(evaluation)
    if m.joules is None or m.expanded_joules is None:
        print("nothing was measured, because", m.reason)
    else:
        kind = "modelled" if m.estimate else "measured"
        print(f"{kind}: between {m.joules - m.expanded_joules:.1f} and {m.joules + m.expanded_joules:.1f} J")
    print("everything else lies in", m.session)


if __name__ == "__main__":
    main()
