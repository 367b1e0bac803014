"""Phases as a picture has room for: rows of blocks, one row per lane and depth, short phases gathered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from director.energy.cells import Ints

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS = 9
MOST_BLOCKS = 400  # in a row: those that last longer stand alone, the rest is gathered in as many stretches of time


@dataclass(frozen=True)
class Block:
    """One phase, or short ones that follow each other."""

    name: str  # empty: of several names
    index: int | None  # which of its name, where it is one phase that says so
    count: int
    begin_s: float  # from the origin
    end_s: float


@dataclass(frozen=True)
class Strip:
    """The rows, the whole command first, then the lanes that lasted longest, outer phases before inner ones."""

    rows: list[list[Block]]
    who: list[str]  # marked each row: "node2 rank 1", "rank 1"; empty where there is one lane, or it has no name
    rows_left_out: int


def phase_strip(session: Path, origin_ns: int) -> Strip:
    """Read `phases.parquet`."""
    import pyarrow.parquet as pq

    columns = ["name", "index", "begin_ns", "end_ns", "depth", "lane", "rank"]
    schema = pq.read_schema(session / "phases.parquet")
    table = pq.read_table(session / "phases.parquet", columns=[*columns, *({"host"} & set(schema.names))])
    name, lane = (table.column(c).combine_chunks() for c in ("name", "lane"))
    index = table.column("index").fill_null(-1).to_numpy()
    begin, end = (table.column(c).to_numpy() - origin_ns for c in ("begin_ns", "end_ns"))
    depth, lane_code = table.column("depth").to_numpy().astype(np.int64), lane.indices.to_numpy()
    names = np.array(name.dictionary.to_pylist(), dtype=object)
    code = name.indices.to_numpy()
    begin_of, lanes = begin[1:], lane_code[1:]  # row 0 is the command
    lasting = np.bincount(lanes, weights=(end - begin)[1:] * (depth[1:] == depth[1:].min(initial=0)))
    order = sorted(np.unique(lanes).tolist(), key=lambda i: (-lasting[i], str(lane.dictionary[i])))
    keys = [(i, d) for i in order for d in np.unique(depth[1:][lanes == i]).tolist()] if len(begin_of) else []
    shown = keys[: MOST_ROWS - 1]
    who = [_who(table, int(np.flatnonzero(lane_code == i)[-1])) if len(order) > 1 else "" for i, _ in shown]
    rows = [np.zeros(1, np.int64)]
    rows += [np.flatnonzero((lane_code == i) & (depth == d)) for i, d in shown]
    rows = [row[row > 0] if number else row for number, row in enumerate(rows)]
    blocks = [_blocks(row, code, names, index, begin, end) for row in rows]
    return Strip(blocks, ["", *who], len(keys) - len(shown))


def _who(table: pa.Table, row: int) -> str:
    """Host and rank of a phase, as far as they are said."""
    host = table.column("host")[row].as_py() if "host" in table.column_names else None
    rank = table.column("rank")[row].as_py()
    return " ".join(filter(None, [host, "" if rank is None else f"rank {rank}"]))


def _blocks(row: Ints, code: Ints, names: np.ndarray, index: Ints, begin: Ints, end: Ints) -> list[Block]:
    def block(members: Ints) -> Block:
        one = members[0]
        told = len(members) == 1 and index[one] >= 0
        same = bool((code[members] == code[one]).all())
        return Block(
            name=names[code[one]] if same else "",
            index=int(index[one]) if told else None,
            count=len(members),
            begin_s=float(begin[members].min()) * 1e-9,
            end_s=float(end[members].max()) * 1e-9,
        )

    if len(row) <= MOST_BLOCKS:
        return [block(row[i : i + 1]) for i in range(len(row))]
    first, last = int(begin[row].min()), int(end[row].max())
    stretch = max((last - first) // MOST_BLOCKS, 1)
    lasting = end[row] - begin[row]
    alone = np.flatnonzero(lasting >= stretch)
    alone = np.sort(alone[np.argsort(-lasting[alone], kind="stable")[:MOST_BLOCKS]])
    rest = np.setdiff1d(np.arange(len(row)), alone)
    where = (begin[row[rest]] - first) // stretch
    cuts = np.flatnonzero(np.diff(where)) + 1
    parts = [row[alone[i : i + 1]] for i in range(len(alone))]
    parts += [part for part in np.split(row[rest], cuts) if len(part)]
    return sorted((block(part) for part in parts), key=lambda b: (b.begin_s, -b.end_s))
