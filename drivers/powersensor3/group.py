"""The stream of a PowerSensor3 as rows: means of equal blocks of samples, and energy from every sample."""

from __future__ import annotations

import array
import math
from collections.abc import Callable, Sequence

from drivers.contract import Channel, DeviceLost, Group, Row, Status
from drivers.line_port import LinkLost
from drivers.powersensor3.device import Device
from drivers.powersensor3.device_clock import DeviceClock
from drivers.powersensor3.frames import FrameReader, Run
from drivers.powersensor3.rails import EnergyCount, Rail

SILENT_NS = 1_000_000_000  # without a sample: the device is stuck
_MOST_BYTES = 1 << 18  # in one reading
_FULL_BYTES = 2048  # at once: the terminal's buffer was full, and is filled anew by a kernel thread, in a moment
_REFILL_S = 0.002

LOST = "samples were lost: the time across them is not covered; see powersensor3.md, what can go wrong"
SLIPPED = "the device's clock fell behind: samples were lost unseen, or this machine was too busy to read for a second"
OVER = "a sensor is at its end: these readings are not used; take a sensor of a higher range"
BACKWARDS = "energy runs backwards on a rail: check the direction of its current sensor, and its zero with psconfig"
MARKED = "the device marked a sample"


class StreamGroup(Group):
    """All rails of one device."""

    name = "power"
    default_hz = 100.0  # of readings, not of rows: then what has come fits into the kernel's 4 KiB of a terminal
    max_hz = 200.0

    def __init__(
        self, device: Device, channels: Sequence[Channel], *, block: int, block_s: float, clock_ns: Callable[[], int]
    ) -> None:
        """`block` samples make a row. Channels: voltage, current, power, energy of each rail, then of all."""
        self.channels = tuple(channels)
        self.lost_places = 0  # where samples were lost
        self._device = device
        self._rails = [Rail(pair) for pair in device.pairs]
        self._sums = len(channels) > 4 * len(self._rails)
        self._block, self._block_s = block, block_s
        self._clock_ns = clock_ns
        self._frames = FrameReader()
        self._clock = DeviceClock()
        self._energies = [EnergyCount(clock_ns()) for _ in range(len(self._rails) + self._sums)]
        self._words: array.array[int] = array.array("H")  # of the block that is not full yet
        self._steps_us: list[int] = []
        self._device_us = 0  # of the first sample of that block
        self._started = False
        self._heard_ns = 0
        self._remarks: list[str] = []

    def read(self) -> Sequence[Row]:
        """The rows of all blocks that are full.

        Raises:
            DeviceLost: see there.
        """
        try:
            data = self._receive()
        except LinkLost as error:
            raise DeviceLost(f"the line to it is gone ({error})") from error
        arrived_ns = self._clock_ns()
        items = self._frames.feed(data)
        rows: list[Row] = []
        after = self._frames.pending_frames + sum(len(item.steps_us) for item in items if item is not None)
        for item in items:
            if item is None:
                rows += self._break_off(arrived_ns, after, LOST)
                continue
            self._heard_ns = arrived_ns
            after -= len(item.steps_us)
            rows += self._rows(item, arrived_ns - round(1000 * self._frames.interval_us * after))
        if arrived_ns - self._heard_ns > SILENT_NS:
            raise DeviceLost("no samples have come for a second")
        return rows

    def remarks(self) -> Sequence[str]:
        """See `Group.remarks`."""
        remarks, self._remarks = self._remarks, []
        return remarks

    def _receive(self) -> bytes:
        if not self._started:
            self._started = True
            self._heard_ns = self._clock_ns()
            self._device.start()
            return b""
        received = []
        size, wait_s = 0, 0.0
        while size < _MOST_BYTES and (data := self._device.link.receive(wait_s)):
            received.append(data)
            size += len(data)
            wait_s = _REFILL_S if len(data) >= _FULL_BYTES else 0.0
        return b"".join(received)

    def _break_off(self, arrived_ns: int, after: int, why: str) -> list[Row]:
        """Samples were lost before the last `after` ones."""
        self.lost_places += 1
        self._remarks.append(why)
        last_us = self._device_us + sum(self._steps_us)
        self._words, self._steps_us = array.array("H"), []
        for energy in self._energies:
            energy.start_anew(self._block_s)
        if not self._clock.knows:
            return []
        seen_ns = arrived_ns - round(1000 * self._frames.interval_us * after)
        t_ns = self._clock.host_ns(last_us)
        self._device_us = last_us + max(round((seen_ns - t_ns) / 1000), 1)
        self._clock.restart()
        return [Row(t_ns, 0, [math.nan] * len(self.channels), bytes([Status.MISSING]) * len(self.channels))]

    def _rows(self, run: Run, arrived_ns: int) -> list[Row]:
        """`arrived_ns` is when the end of the run had come at the latest."""
        self._remarks += [MARKED] * run.markers
        self._words += run.words
        self._steps_us += run.steps_us
        rows: list[Row] = []
        if self._clock.note(self._device_us + sum(self._steps_us), arrived_ns):
            rows += self._break_off(arrived_ns, 0, SLIPPED)
            return rows
        size = self._block
        count = len(self._steps_us) // size
        if not count:
            return rows
        of_rails = [rail.blocks(self._words, size, count) for rail in self._rails]
        spread_ns = 2 * (self._clock.bound_ns + round(1000 * self._frames.interval_us))
        for place in range(count):
            steps = self._steps_us[place * size : (place + 1) * size]
            self._device_us += sum(steps)
            seconds = 1e-6 * sum(steps) * self._clock.rate
            values: list[float | int] = []
            statuses = bytearray()
            total, worst = 0.0, Status.NEW
            for number, blocks in enumerate(of_rails):
                block = blocks[place]
                raw, status = self._count(number, block.watts, seconds, block.watts_status)
                values += (block.volts, block.amperes, block.watts, raw)
                statuses += bytes((block.volts_status, block.amperes_status, block.watts_status, status))
                total += block.watts
                worst = max(worst, block.watts_status)
            if self._sums:
                raw, status = self._count(-1, total, seconds, worst)
                values += (total, raw)
                statuses += bytes((worst, status))
            t_ns = self._clock.host_ns(self._device_us - steps[-1])
            rows.append(Row(t_ns, spread_ns, values, bytes(statuses) if any(statuses) else None))
        del self._words[: 9 * size * count], self._steps_us[: size * count]
        return rows

    def _count(self, number: int, watts: float, seconds: float, status: Status) -> tuple[int, Status]:
        energy = self._energies[number]
        if status:
            self._remarks.append(OVER)
            energy.start_anew(self._block_s)
            return 0, status
        raw, status = energy.add(watts * seconds)
        if status:
            self._remarks.append(BACKWARDS)
        return raw, status
