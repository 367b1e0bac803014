"""Phases as columns: built from marks and logs, aligned with traces, written to `phases.parquet`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
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
    host_code: npt.NDArray[np.int32]  # into hosts: who marked it
    hosts: list[str]  # "": the session's own clock, where there is one host
    attributes: dict[int, dict[str, Any]] = field(default_factory=dict)  # by row, where there are any

    def __len__(self) -> int:
        return len(self.begin_ns)

    def host_places(self, hosts: Sequence[str]) -> npt.NDArray[np.int64]:
        """For each row the place of its host in `hosts`; -1: none of these marked it, as the whole command."""
        places = {host: number for number, host in enumerate(hosts)}
        found = np.array([places.get(host, -1) for host in self.hosts], dtype=np.int64)[self.host_code]
        found[0] = -1
        return found


def write_phases(path: Path, table: PhaseTable, joined: npt.NDArray[np.int64] | None = None) -> None:
    """Write `phases.parquet`: the table's columns with names and lanes as text, what was not said as null.

    Work is in columns `work_samples`, `work_tokens` …; attributes are JSON text. `joined` comes with several hosts, and
    with it a column of the host.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def text(codes: npt.NDArray[np.int32], texts: list[str], unsaid: npt.NDArray[np.bool_] | None = None) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=unsaid), pa.array(texts, type=pa.string()))

    attributes: list[str | None] = [None] * len(table)
    for row, values in table.attributes.items():
        attributes[row] = msgspec.json.encode(values, enc_hook=str).decode()
    columns = {
        "name": text(table.name_code, table.names),
        "index": pa.array(table.index, mask=table.index < 0),
        "begin_ns": pa.array(table.begin_ns),
        "end_ns": pa.array(table.end_ns),
        "parent": pa.array(table.parent, mask=table.parent < 0),
        "depth": pa.array(table.depth),
        "lane": text(table.lane_code, table.lanes),
        "rank": pa.array(table.rank, mask=table.rank < 0),
        "flags": pa.array(table.flags),
        "time_bound_ns": pa.array(table.time_bound_ns),
        **{f"work_{unit}": pa.array(amounts, mask=np.isnan(amounts)) for unit, amounts in table.work.items()},
        "attributes": pa.array(attributes, type=pa.string()),
    }
    if joined is not None:
        columns["host"] = text(table.host_code, table.hosts, np.array(table.hosts)[table.host_code] == "")
        columns["joined"] = pa.array(joined, mask=joined < 0)
    pq.write_table(pa.table(columns), path, compression="zstd")
