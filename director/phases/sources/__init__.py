"""Where phases come from: the workload's own marks, and logs that others wrote. docs/phase-sources.md describes each.

Every source has a `read` that yields MarkEvents and adds what it could not use to a `Problems`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

# Of wall times: their instants on the session's clock, and which of them lie before the measured time.
IsEarly = Callable[[npt.NDArray[np.int64]], tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]]
_MOST_TEXTS = 20


class Problems:
    """What a source could not use, in words for the user: the first twenty, and how many more."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self.count = 0

    def add(self, where: str, what: str) -> None:
        """`where` is a file, or a file and line: "train.log:12"."""
        self.count += 1
        if len(self._texts) < _MOST_TEXTS:
            self._texts.append(f"{where}: {what}")

    def __iter__(self) -> Iterator[str]:
        yield from self._texts
        if self.count > len(self._texts):
            yield f"and {self.count - len(self._texts)} more like these"
