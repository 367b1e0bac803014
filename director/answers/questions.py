"""What a report may be asked besides what every report tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Questions:
    """None of it changes what was measured."""

    against: Path | None = None  # the session of a smaller run, to scale against
    interconnect: tuple[str, ...] = ()  # HOST/DEVICE or HOST: what measures switches
    interconnect_watts: float | None = None  # an estimate of all switches
    measures: tuple[tuple[str, str], ...] = ()  # HOST/DEVICE of a meter, and the other host whose power it sees

    @property
    def about_interconnect(self) -> bool:
        """Whether the interconnect is asked for."""
        return bool(self.interconnect) or self.interconnect_watts is not None


NO_QUESTIONS = Questions()
