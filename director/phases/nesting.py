"""Which phase lies in which, within a lane."""

from __future__ import annotations

from bisect import bisect_right, insort

import numpy as np
import numpy.typing as npt

_DEEPEST = int(np.iinfo(np.int16).max)


class _Lane:
    """The phases of a lane that have begun and may hold the next: each ends no later than the one below it."""

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.covered_ends: list[int] = []  # ends of phases that left the stack because a later one outlasts them


def nest(
    begin_ns: npt.NDArray[np.int64], end_ns: npt.NDArray[np.int64], lane: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int16], npt.NDArray[np.bool_]]:
    """Parent, depth and crossing of phases that are sorted by begin, then longest first.

    The parent is the phase of the same lane that began last among those that hold this one whole; -1: none. Phases
    cross that overlap without one holding the other. Row 0, the command, stands outside of all lanes.
    """
    begins, ends, lanes = begin_ns.tolist(), end_ns.tolist(), lane.tolist()
    parents, depths, crosses = [-1] * len(begins), [0] * len(begins), [False] * len(begins)
    of_lane: dict[int, _Lane] = {}
    for row in range(1, len(begins)):
        here = of_lane.get(lanes[row])
        if here is None:
            here = of_lane[lanes[row]] = _Lane()
        begin, end, stack, covered = begins[row], ends[row], here.stack, here.covered_ends
        if covered:
            del covered[: bisect_right(covered, begin)]
            if covered and covered[0] < end:
                crosses[row] = True
        while stack and ends[stack[-1]] < end:
            # Nothing later can have this one as its innermost holder: what it held, `row` would hold too.
            popped = stack.pop()
            if ends[popped] > begin:
                crosses[popped] = crosses[row] = True
                insort(covered, ends[popped])
        while stack and ends[stack[-1]] <= begin:  # a row of no length at the end of another does not lie in it
            stack.pop()
        if stack:
            parents[row] = stack[-1]
            depths[row] = min(depths[stack[-1]] + 1, _DEEPEST)
        stack.append(row)
    return np.array(parents, dtype=np.int64), np.array(depths, dtype=np.int16), np.array(crosses, dtype=np.bool_)
