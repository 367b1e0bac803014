"""Reads the traces of an earlier session of this project: its manifest and one Parquet file per stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from drivers.contract import Channel, ReadFailed, Row, Status, Unavailable
from drivers.replay.trace import Trace, TraceStream

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_BATCH_ROWS = 1024


class _Stream(msgspec.Struct):
    driver: str
    group: str
    rate_hz: float
    channels: list[Channel]


class _StreamFile(msgspec.Struct):
    stream: _Stream
    file: str
    rows: int


class _Host(msgspec.Struct):
    name: str
    streams: list[_StreamFile] = []
    clock_file: str = ""


class _Manifest(msgspec.Struct):
    """What a replay needs of `manifest.json`; the rest is left unread."""

    created_wall_ns: int
    hosts: list[_Host] = []


def open_session(path: Path, settings: Mapping[str, str]) -> Trace:
    """Open the traces of one host of a session directory.

    Raises:
        Unavailable: it is not a session, it has no rows, or a file of it is damaged.
        OSError: it cannot be read.
    """
    manifest_path = path / "manifest.json"
    try:
        manifest = msgspec.json.decode(manifest_path.read_bytes(), type=_Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(f"{manifest_path} is damaged: {error}", "replay another session") from error
    host = _choose_host(path, manifest, settings.get("host"))
    streams = [_open_stream(path / file.file, file.stream) for file in host.streams if file.rows]
    if not streams:
        raise Unavailable(f"{path}: host {host.name!r} has no rows to replay", "replay another session")
    start_ns = min(stream.start_ns for stream in streams)
    return Trace(tuple(streams), _wall_ns(path, host, start_ns) or manifest.created_wall_ns)


def _choose_host(path: Path, manifest: _Manifest, asked: str | None) -> _Host:
    if asked is None and len(manifest.hosts) == 1:
        return manifest.hosts[0]
    for host in manifest.hosts:
        if host.name == asked:
            return host
    names = ", ".join(host.name for host in manifest.hosts) or "none"
    if asked is None:
        raise Unavailable(f"{path} does not hold the traces of exactly one host", f"set replay.host to one of: {names}")
    raise Unavailable(f"{path} holds no host {asked!r}", f"set replay.host to one of: {names}")


def _open_stream(path: Path, stream: _Stream) -> TraceStream:
    channels = tuple(stream.channels)
    columns = ["t_ns", "read_ns"]
    for channel in channels:
        columns += [channel.name, f"{channel.name}:status"]
    with _open_parquet(path) as file:
        missing = [column for column in columns if column not in file.schema_arrow.names]
        if missing:
            raise Unavailable(
                f"{path} has no column {missing[0]!r}, which the manifest names", "replay another session"
            )
        groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
        place = file.schema_arrow.names.index("t_ns")
        stamps = [group.column(place).statistics for group in groups]
    if not stamps or not all(stamp is not None and stamp.has_min_max for stamp in stamps):
        raise Unavailable(f"{path} does not tell its first and last instant", "replay another session")
    return TraceStream(
        name=f"{stream.driver}.{stream.group}",
        path=path,
        channels=channels,
        rate_hz=stream.rate_hz,
        start_ns=min(stamp.min for stamp in stamps),
        end_ns=max(stamp.max for stamp in stamps),
        rows=lambda: _rows(path, channels, columns),
    )


def _rows(path: Path, channels: tuple[Channel, ...], columns: list[str]) -> Iterator[Row]:
    import pyarrow as pa

    absent = [float("nan") if channel.kind == "gauge" else 0 for channel in channels]
    try:
        with _open_parquet(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                lists = [batch.column(name).to_pylist() for name in columns]
                for t_ns, read_ns, *cells in zip(*lists, strict=True):
                    values = [absent[n] if value is None else value for n, value in enumerate(cells[::2])]
                    statuses = bytes(Status.MISSING if status is None else status for status in cells[1::2])
                    yield Row(t_ns, read_ns, values, statuses)
    except (pa.ArrowException, OSError) as error:
        raise ReadFailed(f"{path} is damaged: {error}; its replay ends here") from error


def _wall_ns(path: Path, host: _Host, t_ns: int) -> int | None:
    """Wall-clock time of a monotonic instant, from the first pair in the host's clock file; None without one."""
    if not host.clock_file:
        return None
    with _open_parquet(path / host.clock_file) as file:
        for batch in file.iter_batches(batch_size=1, columns=["monotonic_ns", "wall_ns"]):
            first = batch.to_pylist()[0]
            wall_ns: int = first["wall_ns"] + t_ns - first["monotonic_ns"]
            return wall_ns
    return None


def _open_parquet(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise Unavailable(f"{path} cannot be read: {error}", "copy the session again, or replay another one") from error
