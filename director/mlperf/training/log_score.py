"""What one power log of a run gives."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class LogScore:
    """One power log of a run. Joules are None where they are not known."""

    name: str  # "node_0"
    is_switch: bool
    readings: int
    efficiency: float
    official_joules: float | None
    physical_joules: float | None
    coverage: float | None  # measured share of the run
    is_estimate: bool  # physical joules are those of a stated, not a measured power
    is_official: bool = True  # False: the official code gives no energy here
    notes: list[str] = field(default_factory=list)
