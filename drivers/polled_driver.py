"""A driver whose devices are polled over a network; `drivers.polling` does that, and is loaded when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from drivers.contract import Driver, Unavailable

if TYPE_CHECKING:
    from drivers.polling import PolledGroup, Poller


class PolledDriver(Driver):
    """Its groups are handed over by a poller, which ends with it."""

    def __init__(self, poller: Poller, groups: list[PolledGroup], notes: list[Unavailable]) -> None:
        self._poller = poller
        self.groups = tuple(groups)
        self.notes = tuple(notes)

    def close(self) -> None:
        """Log out everywhere, and end the poller."""
        self._poller.close()
