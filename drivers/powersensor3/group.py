"""The stream of a PowerSensor3 as rows: means of equal blocks of samples, and energy from every sample."""

from __future__ import annotations

import array
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, repeat
from operator import sub

from drivers.contract import Channel, DeviceLost, Group, Row, Status
from drivers.links import LinkLost
from drivers.powersensor3.device import Device
from drivers.powersensor3.device_clock import DeviceClock
from drivers.powersensor3.drain import Drain
from drivers.powersensor3.frames import FrameReader, Run
from drivers.powersensor3.rails import EnergyCount, Rail, sums

SILENT_NS = 1_000_000_000  # without a sample: the device is stuck

LOST = "samples were lost: the time across them is not covered; see powersensor3.md, what can go wrong"
SLIPPED = "the device's clock fell behind: samples were lost unseen, or this machine was too busy to read for a second"
OVER = "a sensor is at its end: these readings are not used; take a sensor of a higher range"
BACKWARDS = "energy runs backwards on a rail: check the direction of its current sensor, and its zero with psconfig"
MARKED = "the device marked a sample"


class StreamGroup(Group):
    """All rails of one device."""

    name = "power"
    default_hz = 50.0  # of readings, not of rows
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
        self._drain: Drain | None = None  # from the first reading on
        self._heard_ns = 0
        self._remarks: list[str] = []

    def read(self) -> Sequence[Row]:
        """The rows of all blocks that are full.

        Raises:
            DeviceLost: see there.
        """
        try:
            data, arrived_ns = self._receive()
        except LinkLost as error:
            raise DeviceLost(f"the line to it is gone ({error})") from error
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
        if not rows and self._clock_ns() - self._heard_ns > SILENT_NS:
            raise DeviceLost("no samples have come for a second")
        return rows

    def remarks(self) -> Sequence[str]:
        """See `Group.remarks`."""
        remarks, self._remarks = self._remarks, []
        return remarks

    def close(self) -> None:
        """Read no more."""
        if self._drain is not None:
            self._drain.stop()

    def _receive(self) -> tuple[bytes, int]:
        if self._drain is None:
            self._heard_ns = self._clock_ns()
            self._device.start()
            self._drain = Drain(self._device.link, self._clock_ns)
        return self._drain.take()

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
        steps = self._steps_us
        lasts = steps[size - 1 : size * count : size]
        blocks_us = sums(steps[: size * count], size)
        seconds = [1e-6 * self._clock.rate * block_us for block_us in blocks_us]
        columns: list[Sequence[float | int]] = []
        statuses: list[Sequence[Status] | None] = []
        for rail, energy in zip(self._rails, self._energies, strict=False):  # the last energy may be that of the sum
            found = rail.columns(self._words, size, count)
            raws, raw_statuses = self._count(energy, found.watts, seconds, found.watts_statuses)
            columns += (found.volts, found.amperes, found.watts, raws)
            statuses += (found.volts_statuses, found.amperes_statuses, found.watts_statuses, raw_statuses)
        if self._sums:
            total = [sum(each) for each in zip(*columns[2::4], strict=True)]
            worst = _worst(statuses[2::4])
            raws, raw_statuses = self._count(self._energies[-1], total, seconds, worst)
            columns += (total, raws)
            statuses += (worst, raw_statuses)
        ends_us = list(accumulate(blocks_us, initial=self._device_us))[1:]
        self._device_us = ends_us[-1]
        times_ns = self._times_ns(list(map(sub, ends_us, lasts)))
        spread_ns = 2 * (self._clock.bound_ns + round(1000 * self._frames.interval_us))
        rows += map(Row, times_ns, repeat(spread_ns), zip(*columns, strict=True), _by_row(statuses, count))
        del self._words[: 9 * size * count], self._steps_us[: size * count]
        return rows

    def _times_ns(self, device_us: Sequence[int]) -> list[int]:
        """Each on this host's clock; what lies between the first and the last, on the line between them."""
        first_ns = self._clock.host_ns(device_us[0])
        if len(device_us) == 1:
            return [first_ns]
        pace = (self._clock.host_ns(device_us[-1]) - first_ns) / (device_us[-1] - device_us[0])
        return [first_ns + round(pace * (each - device_us[0])) for each in device_us]

    def _count(
        self, energy: EnergyCount, watts: Sequence[float], seconds: Sequence[float], statuses: Sequence[Status] | None
    ) -> tuple[list[int], list[Status] | None]:
        if statuses is None:
            raws, judged = energy.add_all(watts, seconds)
        else:
            raws, judged = [], []
            for power, time_s, status in zip(watts, seconds, statuses, strict=True):
                raw, after = energy.add(power * time_s) if not status else (0, status)
                if status:
                    self._remarks.append(OVER)
                    energy.start_anew(self._block_s)
                raws.append(raw)
                judged.append(after)
        if judged is not None:
            self._remarks += [BACKWARDS] * judged.count(Status.INVALID)
        return raws, judged


def _worst(columns: Sequence[Sequence[Status] | None]) -> list[Status] | None:
    """Of each row; None: all are NEW."""
    known = [column for column in columns if column is not None]
    return list(map(max, zip(*known, strict=True))) if known else None


def _by_row(columns: Sequence[Sequence[Status] | None], count: int) -> Iterable[bytes | None]:
    """Statuses as rows have them."""
    if not any(columns):
        return repeat(None, count)
    fine = [Status.NEW] * count
    made = map(bytes, zip(*(column or fine for column in columns), strict=True))
    return (row if any(row) else None for row in made)
