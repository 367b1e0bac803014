"""Phases as columns: built from marks and logs, aligned with traces, written to `phases.parquet`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

NEVER_CLOSED = 1  # its end is the end of the measurement
NEVER_OPENED = 2  # its begin is the begin of the measurement
CLAMPED = 4  # an edge lay outside the measured time
CROSSES = 8  # overlaps another phase of its lane without nesting in it

WORK_UNITS = ("samples", "tokens", "queries", "streams")


@dataclass(frozen=True)
class PhaseTable:
    """One row per phase, sorted by begin, then longest first. Row 0 is always the whole command."""

    begin_ns: npt.NDArray[np.int64]  # monotonic, session time
    end_ns: npt.NDArray[np.int64]  # never before begin_ns
    name_code: npt.NDArray[np.int32]  # into names
    index: npt.NDArray[np.int64]  # which one of its name; -1: not said
    parent: npt.NDArray[np.int64]  # row that it nests in, within its lane; -1: none
    depth: npt.NDArray[np.int16]
    lane_code: npt.NDArray[np.int32]  # into lanes
    rank: npt.NDArray[np.int32]  # -1: not said
    flags: npt.NDArray[np.uint16]
    time_bound_ns: npt.NDArray[np.int64]  # how wrong its edges' instants may be
    work: dict[str, npt.NDArray[np.float64]]  # by WORK_UNITS; NaN: not said
    names: list[str]
    lanes: list[str]
    attributes: dict[int, dict[str, Any]] = field(default_factory=dict)  # by row, where there are any

    def __len__(self) -> int:
        return len(self.begin_ns)
