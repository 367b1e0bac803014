"""Traces on disk: one Parquet file per stream, read back in bounded pieces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from director.session.files import SessionError
from drivers.contract import Channel, Status
from power_agent.messages import Stream

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of one stream, for some of its channels."""

    t_ns: npt.NDArray[np.int64]
    read_ns: npt.NDArray[np.int64]
    values: list[npt.NDArray[np.int64] | npt.NDArray[np.float64]]  # per asked channel; raw, before `scale`
    statuses: list[npt.NDArray[np.uint8]]


def status_column(channel: Channel) -> str:
    """Name of the column that holds a channel's `Status` codes."""
    return f"{channel.name}:status"


def _schema(channels: list[Channel]) -> pa.Schema:
    import pyarrow as pa

    fields = [pa.field("t_ns", pa.int64()), pa.field("read_ns", pa.int64())]
    for channel in channels:
        kind = pa.float64() if channel.kind == "gauge" else pa.int64()
        fields += [pa.field(channel.name, kind), pa.field(status_column(channel), pa.uint8())]
    return pa.schema(fields)


def iter_pieces(path: Path, channels: list[Channel], rows: int = 1 << 20) -> Iterator[Piece]:
    """Read a trace file in pieces of at most `rows` rows, in file order.

    A value that is not there (null) comes as NaN in a gauge and 0 in a counter, with its status.

    Raises:
        SessionError: the file is missing, damaged, or holds something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = _schema(channels)
    try:
        with pq.ParquetFile(path) as file, ThreadPoolExecutor(1) as ahead:
            for field in wanted:
                if field.name not in file.schema_arrow.names or file.schema_arrow.field(field.name).type != field.type:
                    raise SessionError(f"{path} is not the trace that the manifest tells of: no {field}")
            # the next piece is decoded while the caller works on this one
            batches = file.iter_batches(batch_size=rows, columns=wanted.names)
            coming = ahead.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = ahead.submit(next, batches, None)
                yield _piece(batch, channels)
    except (OSError, pa.ArrowException) as error:
        raise SessionError(f"{path} cannot be read, put back a copy of it: {error}") from error


def time_range(path: Path) -> tuple[int, int] | None:
    """The first and last instant of a trace (ns), told by the file's own statistics where it has them. None: no row.

    Raises:
        SessionError: as `iter_pieces`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            column = file.schema_arrow.names.index("t_ns")
            parts = [file.metadata.row_group(i).column(column).statistics for i in range(file.metadata.num_row_groups)]
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SessionError(f"{path} cannot be read, put back a copy of it: {error}") from error
    if all(part is not None and part.has_min_max for part in parts):
        ranges = [(part.min, part.max) for part in parts]
    else:
        ranges = [(int(p.t_ns.min()), int(p.t_ns.max())) for p in iter_pieces(path, []) if len(p.t_ns)]
    return (min(r[0] for r in ranges), max(r[1] for r in ranges)) if ranges else None


def _piece(batch: pa.RecordBatch, channels: list[Channel]) -> Piece:
    values: list[npt.NDArray[np.int64] | npt.NDArray[np.float64]] = []
    statuses: list[npt.NDArray[np.uint8]] = []
    for channel in channels:
        column = batch.column(channel.name)
        if column.null_count:
            column = column.fill_null(0 if channel.kind != "gauge" else float("nan"))
        values.append(column.to_numpy(zero_copy_only=False))
        statuses.append(batch.column(status_column(channel)).to_numpy(zero_copy_only=False))
    return Piece(batch.column("t_ns").to_numpy(), batch.column("read_ns").to_numpy(), values, statuses)


class TraceWriter:
    """Writes one stream's rows to a Parquet file; the file appears under its name only when it is complete."""

    def __init__(self, path: Path, stream: Stream) -> None:
        import pyarrow.parquet as pq

        self.path = path
        self.stream = stream
        self.rows = 0
        self._part = path.with_name(path.name + ".part")
        self._schema = _schema(stream.channels)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = pq.ParquetWriter(self._part, self._schema, compression="zstd", use_dictionary=False)

    def write(self, piece: Piece) -> None:
        """Append rows of all the stream's channels."""
        import pyarrow as pa

        columns: list[object] = [pa.array(piece.t_ns), pa.array(piece.read_ns)]
        for values, status in zip(piece.values, piece.statuses, strict=True):
            absent = (status != Status.NEW) & (status != Status.STALE)
            columns += [pa.array(values, mask=absent), pa.array(status)]
        self._file.write_batch(pa.record_batch(columns, schema=self._schema))
        self.rows += len(piece.t_ns)

    def close(self) -> None:
        """Finish the file, make it durable and give it its name."""
        self._file.close()
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        self._part.rename(self.path)
