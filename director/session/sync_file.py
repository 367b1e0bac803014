"""Exchanges of instants between a host and the director, on disk: what ties the host's clock to the session's.

While a session runs they are lines of JSON in `spool/HOST.sync`: one object names the two clocks, then each array holds
an exchange (t1, t2, t3, t4 in ns) of those. A torn last line is no line. Ingest makes `traces/HOST/sync.parquet` of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from director.session.files import SPOOL

Instants = npt.NDArray[np.int64]

COLUMNS = ("t1_ns", "t2_ns", "t3_ns", "t4_ns")
_LATEST = 1 << 62


class SyncFileError(Exception):
    """A file of exchanges that cannot be used: which, and why."""


class Clocks(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="clocks"):
    """Whose instants follow. A machine's monotonic clock begins anew with each boot."""

    boot_id: str
    reference_boot_id: str


class StateLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="line", tag="state"):
    """What the host says of its wall clock."""

    clock_state: dict[str, str]


Line = Clocks | StateLine | tuple[int, int, int, int]
_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


@dataclass(frozen=True)
class Exchanges:
    """Exchanges of one boot of a host with one boot of the reference, in ns: t1 and t4 of the host, t2 and t3 of the
    reference."""

    t1: Instants
    t2: Instants
    t3: Instants
    t4: Instants

    def __len__(self) -> int:
        return len(self.t1)


def sync_spool(session: Path, host: str) -> Path:
    """Where a running session keeps a host's exchanges."""
    return session / SPOOL / f"{host}.sync"


def append(path: Path, lines: Iterable[msgspec.Struct | Sequence[int]]) -> None:
    """Add lines. They begin on a line of their own, whatever a crash left.

    Raises:
        OSError: the disk is full or fails.
    """
    content = memoryview(b"".join(b"\n" + msgspec.json.encode(line) for line in lines) + b"\n")
    with path.open("ab", buffering=0) as file:
        while content:  # a disk that is almost full takes a part, and then says so
            content = content[file.write(content) :]


def read_spool(path: Path) -> tuple[list[tuple[Clocks, tuple[int, int, int, int]]], dict[str, str]]:
    """The exchanges of a running session, each with its clocks, and the last state; what is no line is left out.

    Raises:
        OSError: the file cannot be read.
    """
    clocks: Clocks | None = None
    state: dict[str, str] = {}
    found: list[tuple[Clocks, tuple[int, int, int, int]]] = []
    with path.open("rb") as file:
        for raw in file:
            line = _decoded(raw)
            if isinstance(line, Clocks):
                clocks = line
            elif isinstance(line, StateLine):
                state = line.clock_state
            elif line is not None and clocks is not None:
                found.append((clocks, line))
    return found, state


def write_parquet(path: Path, rows: Sequence[tuple[Clocks, tuple[int, int, int, int]]]) -> None:
    """Write `sync.parquet`; it appears under its name whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {name: pa.array([t[i] for _, t in rows], pa.int64()) for i, name in enumerate(COLUMNS)}
    for name in ("boot_id", "reference_boot_id"):
        columns[name] = pa.array([getattr(clocks, name) for clocks, _ in rows], pa.string()).dictionary_encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    pq.write_table(pa.table(columns), part, compression="zstd")
    part.rename(path)


def read_parquet(path: Path, boot_id: str, reference_boot_id: str) -> Exchanges:
    """The exchanges between these two boots. A boot that is not named ("") is any.

    Raises:
        SyncFileError: the file is missing, or is not such a file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=[*COLUMNS, "boot_id", "reference_boot_id"])
        columns = [table.column(name).to_numpy().astype(np.int64, casting="safe") for name in COLUMNS]
        keep = np.ones(len(table), bool)
        for name, wanted in (("boot_id", boot_id), ("reference_boot_id", reference_boot_id)):
            if wanted:
                keep &= np.array([found in (wanted, "") for found in table.column(name).to_pylist()], bool)
        return Exchanges(*(column[keep] for column in columns))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise SyncFileError(f"{path}: cannot be used as the record of its clock: {error}") from error


def _decoded(raw: bytes) -> Line | None:
    try:
        line = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if isinstance(line, tuple) and any(abs(t) >= _LATEST for t in line) else line
