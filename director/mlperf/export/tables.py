"""A session's readings, phases and energies as CSV or Parquet with wall time and physical units, one file each.

A value that was not read is null (an empty cell), never a zero; columns of modelled values end in "ESTIMATE".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from director.mlperf.export.new_folder import ExportRefused
from director.mlperf.export.power_readings import finished_manifest
from director.session.clock_pairs import ClockFileError, WallClock
from director.session.manifest import Host
from director.session.trace_store import Piece, iter_pieces
from drivers.contract import Channel, Status

if TYPE_CHECKING:
    import pyarrow as pa

Form = Literal["csv", "parquet"]
_RESULTS = ("phases", "energies")


def write_tables(folder: Path, session: Path, form: Form) -> list[str]:
    """Write all tables of a session. Returns their names.

    Raises:
        ExportRefused: the session was not finished, or its results were not computed.
        SessionError: a file of it is damaged.
    """
    import pyarrow.parquet as pq

    manifest = finished_manifest(session)
    folder.mkdir()
    names = []
    for host in manifest.hosts:
        clock = _clock(session, host)
        for file in host.streams:
            name = f"{host.name}.{file.stream.driver}.{file.stream.group}.{form}"
            channels = file.stream.channels
            tables = (_readings(piece, channels, clock) for piece in iter_pieces(session / file.file, channels))
            _write(folder / name, tables, form)
            names.append(name)
    for result in _RESULTS:
        path = session / f"{result}.parquet"
        if not path.is_file():
            raise ExportRefused(f"{path} is not there: compute it with `power-director report {session}`")
        _write(folder / f"{result}.{form}", iter([_plain(pq.read_table(path))]), form)
        names.append(f"{result}.{form}")
    return names


def _clock(session: Path, host: Host) -> WallClock | None:
    try:
        return WallClock.from_file(session / host.clock_file)
    except ClockFileError:
        return None  # columns of wall time stay empty


def _readings(piece: Piece, channels: list[Channel], clock: WallClock | None) -> pa.Table:
    import pyarrow as pa

    wall = pa.nulls(len(piece.t_ns), pa.int64()) if clock is None else pa.array(clock.to_wall(piece.t_ns)[0])
    columns: dict[str, Any] = {"t_ns": pa.array(piece.t_ns), "wall_ns": wall}
    for channel, values, statuses in zip(channels, piece.values, piece.statuses, strict=True):
        absent = (statuses != Status.NEW) & (statuses != Status.STALE)
        # a counter stays exact as far as a double reaches: 2⁵³ steps
        columns[_title(channel)] = pa.array(np.asarray(values, dtype=np.float64) * channel.scale, mask=absent)
        columns[f"{channel.name} status"] = pa.array(_WORDS[statuses])
    return pa.table(columns)


_WORDS = np.array([status.name.lower() for status in Status])


def _title(channel: Channel) -> str:
    unit = f" [{channel.unit}]" if channel.unit else ""
    return f"{channel.name}{unit}{' ESTIMATE' if channel.estimate else ''}"


def _plain(table: pa.Table) -> pa.Table:
    """Words instead of codes, which CSV has none of."""
    import pyarrow as pa

    fields = [pa.field(f.name, pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields))


def _write(path: Path, tables: Iterator[pa.Table], form: Form) -> None:
    first = next(tables, None)
    if first is None:
        raise ExportRefused(f"{path.stem}: there are no rows to write")
    with _writer(path, first.schema, form) as write:
        write(first)
        for table in tables:
            write(table)


@contextmanager
def _writer(path: Path, schema: pa.Schema, form: Form) -> Iterator[Callable[[pa.Table], object]]:
    import pyarrow.csv
    import pyarrow.parquet

    if form == "csv":
        with pyarrow.csv.CSVWriter(path, schema) as writer:
            yield writer.write_table
    else:
        with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as parquet_writer:
            yield parquet_writer.write_table
