"""Spools with known rows, as a sampler would have written them: row k of a stream holds t_ns = k and the value k."""

from __future__ import annotations

from pathlib import Path

from drivers.contract import Channel
from power_agent.clock import ClockPair
from power_agent.messages import Stream
from power_agent.row_format import row_struct
from power_agent.spool import Batch, SpoolReader, SpoolWriter


def made_stream(channels: int = 1, number: int = 0) -> Stream:
    """A stream of power channels."""
    found = [
        Channel(name=f"made/{i}/power", device=f"d{i}", quantity="power", unit="W", kind="gauge")
        for i in range(channels)
    ]
    return Stream(id=number, driver="made", group=f"g{number}", rate_hz=10.0, channels=found)


def made_rows(stream: Stream, first: int, rows: int) -> bytes:
    """Packed rows first … first + rows − 1."""
    width = len(stream.channels)
    pack = row_struct(stream.channels).pack
    return b"".join(pack(k, 0, *[float(k)] * width, bytes(width)) for k in range(first, first + rows))


class MadeSpool:
    """Writes a spool batch by batch."""

    def __init__(self, path: Path, channels: int = 1) -> None:
        self.stream = made_stream(channels)
        self.rows = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.writer = SpoolWriter(path, {"host": path.stem})
        self.writer.write(streams=[self.stream])

    def add(self, batches: int, rows: int = 7) -> None:
        """Write batches, each with its clock pair."""
        for _ in range(batches):
            packed = made_rows(self.stream, self.rows, rows)
            self.writer.write(batches=[Batch(0, rows, packed)], clock=[ClockPair(self.rows, 10**18 + self.rows, 50)])
            self.rows += rows


def read_instants(path: Path) -> list[int]:
    """t_ns of all rows of stream 0, in the order of the spool."""
    reader = SpoolReader(path)
    try:
        (stream,) = reader.streams()
        unpack = row_struct(stream.channels).iter_unpack
        found = [row[0] for _, packed in reader.batches(0) for row in unpack(packed)]
        assert reader.damaged[0] == 0
        return found
    finally:
        reader.close()
