"""The agent on the system under test: samples devices on time, keeps every reading, and takes the workload's marks.

`phase` and `mark` are all that a workload needs; they cost microseconds and do nothing when no measurement runs.
"""

from power_agent.marks import mark, phase

__all__ = ["mark", "phase"]
