"""Power and energy of a run while it is measured: rough figures from what the sampler has just written."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from director.energy.channel_check import find_flaw
from director.energy.components import Component, build_tree, roots
from drivers.contract import Channel, Status
from power_agent.messages import Stream
from power_agent.row_format import row_struct
from power_agent.spool import SpoolReader

MOST_BATCHES = 64  # read in one look; the next goes on
MOST_ROWS = 32  # of a batch that are looked at
LONGEST_SILENCE_S = 3.0  # after which a device's last power is not its power any more
MOST_WATTS = 1e7  # of one device: what shows more was reset


@dataclass(frozen=True)
class LivePower:
    """What is known now. `None`: unknown."""

    watts: float | None
    joules: float | None  # since the work began
    estimate: str  # "", "ESTIMATE", or "ESTIMATE in part"
    fresh: int  # devices of the total whose power is known
    devices: int  # of the total
    silent_s: float  # since the last reading of power came
    missed: int  # readings that were due
    dropped: int  # readings that found no place on the disk


class _Spool(SpoolReader):
    """Also tells what is new."""

    def last_seq(self) -> int:
        with self._reading("table batches"):
            (seq,) = self._database.execute("SELECT ifnull(max(seq), 0) FROM batches").fetchone()
            return int(seq)

    def newer(self, seq: int) -> list[tuple[int, int, bytes]]:
        """Batches after `seq`: number, stream and rows."""
        query = "SELECT seq, stream, payload FROM batches WHERE seq > ? ORDER BY seq LIMIT ?"
        with self._reading("table batches"):
            return self._database.execute(query, (seq, MOST_BATCHES)).fetchall()

    def count_streams(self) -> int:
        with self._reading("table streams"):
            (count,) = self._database.execute("SELECT count(*) FROM streams").fetchone()
            return int(count)


@dataclass
class _Device:
    """One device of the total. A gauge tells its power and a counter its energy, where it has them."""

    component: Component
    silence_s: float
    watts: float | None = None
    joules: float | None = None
    seen_s: float = field(default_factory=time.monotonic)
    counted: tuple[int, int] | None = None  # the counter's last reading: instant and value
    averaged_ns: int | None = None  # up to where the gauge was integrated

    def __post_init__(self) -> None:
        channels = sorted(self.component.channels, key=lambda channel: channel.estimate)
        self.gauge = next((c.name for c in channels if c.quantity == "power" and c.kind == "gauge"), None)
        self.counter = next((c.name for c in channels if c.quantity == "energy" and c.kind == "counter"), None)

    def take(self, channel: Channel, rows: list[tuple[int, float]], began_ns: int) -> None:
        """Valid readings of its gauge or its counter, in the order of time."""
        if channel.name == self.gauge:
            self._take_power(channel, rows, began_ns)
        else:
            self._take_energy(channel, rows, began_ns)
        self.seen_s = time.monotonic()

    def _take_power(self, channel: Channel, rows: list[tuple[int, float]], began_ns: int) -> None:
        rows = [row for row in rows if row[0] >= began_ns]
        if not rows:
            return
        self.watts = sum(value for _, value in rows) / len(rows) * channel.scale
        if self.counter is not None:
            return
        until_ns = rows[-1][0]
        since_ns = began_ns if self.averaged_ns is None else self.averaged_ns
        if until_ns > since_ns:
            silent = rows[0][0] - since_ns > self.silence_s * 1e9
            if self.joules is None or not silent:
                self.joules = (self.joules or 0.0) + self.watts * (until_ns - since_ns) * 1e-9
            self.averaged_ns = until_ns

    def _take_energy(self, channel: Channel, rows: list[tuple[int, float]], began_ns: int) -> None:
        last_ns, last = rows[-1][0], int(rows[-1][1])
        if self.counted is None:
            since = next(((t_ns, int(value)) for t_ns, value in rows if t_ns >= began_ns), None)
            if since is None:
                return
            self.counted, self.joules = since, 0.0
        elapsed_s = (last_ns - self.counted[0]) * 1e-9
        if elapsed_s <= 0:
            return
        used = last - self.counted[1]
        if used < 0 and channel.modulus is not None:
            used %= channel.modulus
        self.counted = (last_ns, last)
        watts = used * channel.scale / elapsed_s
        if 0 <= watts < MOST_WATTS:
            self.joules = (self.joules or 0.0) + used * channel.scale
            if self.gauge is None:
                self.watts = watts


class LivePowerReader:
    """Follows the spool of a host. Belongs to one thread; a look costs the same however long the run is."""

    def __init__(self, spool: Path, host: str, began_ns: int) -> None:
        """Open the spool.

        Args:
            spool: its file, to which a sampler may be writing.
            host: its name.
            began_ns: begin of the work, on the session's clock.

        Raises:
            SpoolDamaged: it cannot be read.
        """
        self._spool = _Spool(spool)
        self._host = host
        self._began_ns = began_ns
        self._seq = self._spool.last_seq()
        self._streams: dict[int, Stream] = {}
        self._devices: dict[str, _Device] = {}
        # By stream: the layout of its rows, and the places of the channels that tell of the total.
        self._plans: dict[int, tuple[struct.Struct, list[tuple[int, Channel, _Device]]]] = {}

    def close(self) -> None:
        """Release the file."""
        self._spool.close()

    def look(self) -> LivePower:
        """Take in what is new.

        Raises:
            SpoolDamaged: it cannot be read.
        """
        if self._spool.count_streams() != len(self._streams):
            self._find_devices()
        for seq, stream, payload in self._spool.newer(self._seq):
            self._seq = seq
            if stream in self._plans:
                self._take(*self._plans[stream], payload)
        ticks = self._spool.ticks()
        now_s = time.monotonic()
        devices = list(self._devices.values())
        fresh = [d.watts for d in devices if d.watts is not None and now_s - d.seen_s <= d.silence_s]
        energies = [d.joules for d in devices if d.joules is not None]
        estimates = [d.component.estimate for d in devices]
        return LivePower(
            watts=sum(fresh) if fresh else None,
            joules=sum(energies) if energies and len(energies) == len(devices) else None,
            estimate=("ESTIMATE" if all(estimates) else "ESTIMATE in part") if any(estimates) else "",
            fresh=len(fresh),
            devices=len(devices),
            silent_s=now_s - max((d.seen_s for d in devices), default=now_s),
            missed=sum(tick.missed for tick in ticks),
            dropped=sum(tick.dropped_rows for tick in ticks),
        )

    def _find_devices(self) -> None:
        self._streams = {stream.id: stream for stream in self._spool.streams()}
        channels = [(self._host, c) for s in self._streams.values() for c in s.channels if not find_flaw(c)]
        periods = {
            c.name: max(1 / s.rate_hz, c.update_period_s or 0) for s in self._streams.values() for c in s.channels
        }
        devices: dict[str, _Device] = {}
        for component in roots(build_tree(channels)):
            silence_s = max(LONGEST_SILENCE_S, *(5 * periods[channel.name] for channel in component.channels))
            device = self._devices.setdefault(component.name, _Device(component, silence_s))
            devices.update({channel.name: device for channel in component.channels})
        for stream in self._streams.values():
            known = [(i, c, devices[c.name]) for i, c in enumerate(stream.channels) if c.name in devices]
            places = [(i, c, device) for i, c, device in known if c.name in (device.gauge, device.counter)]
            if places:
                self._plans[stream.id] = (row_struct(stream.channels), places)

    def _take(self, row: struct.Struct, places: list[tuple[int, Channel, _Device]], payload: bytes) -> None:
        if not payload or len(payload) % row.size:
            return
        rows = list(_some_rows(row, payload))
        for place, channel, device in places:
            valid = [(t_ns, values[place]) for t_ns, values, statuses in rows if statuses[place] <= Status.STALE]
            if valid:
                device.take(channel, valid, self._began_ns)


def _some_rows(row: struct.Struct, payload: bytes) -> Iterator[tuple[int, tuple[float, ...], bytes]]:
    """Instants, values and statuses of some rows of a batch, its last among them, evenly spread."""
    count = len(payload) // row.size
    step = -(-count // MOST_ROWS)
    for number in range((count - 1) % step, count, step):
        fields = row.unpack_from(payload, number * row.size)
        yield fields[0], fields[2:], fields[-1]
