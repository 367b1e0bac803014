"""A group whose readings are quick to take and slower to understand: many are taken, then all understood in one go."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from drivers.contract import DeviceLost, Group, Row

T = TypeVar("T")


class CapturingGroup(Group, Generic[T]):
    """Understands what it took, `T`, when it is read."""

    can_capture = True

    def __init__(self, take: Callable[[], T]) -> None:
        """`take` asks the device."""
        self._take = take
        self._captured: list[T] = []

    @abstractmethod
    def _row(self, taken: T) -> Row:
        """What the device said.

        Raises:
            DeviceLost: it said that it is gone.
        """

    def capture(self) -> None:
        self._captured.append(self._take())

    def read(self) -> Sequence[Row]:
        self.capture()
        captured, self._captured = self._captured, []
        rows: list[Row] = []
        lost: DeviceLost | None = None
        for taken in captured:
            try:
                rows.append(self._row(taken))
            except DeviceLost as error:
                lost = error
        if lost is not None and not rows:  # else the next reading finds it gone again: these rows are to be kept
            raise lost
        return rows
