"""Any of our own meters in the place of PTDaemon: good for everything but a submission, which asks for PTDaemon."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from director.mlperf.protocol.meter import MeterFailed, MeterSource, RangesAsked, SampleFile, StageMeter
from director.mlperf.protocol.session_log import SessionLog
from drivers.contract import Channel, DeviceLost, Driver, Finished, Group, ReadFailed, Row, Status
from drivers.discovery import Opened, open_drivers

SECOND_S = 1.0
_SCOPES = ("wall", "node")
_MISSED, _REJECTED = -2.0, -1.0  # as PTDaemon marks them
_MOST_NAMES = 4


@dataclass(frozen=True)
class DriverSource(MeterSource):
    """A driver by name, with its settings."""

    name: str
    settings: Mapping[str, str]
    tail_s: float = 2.0

    def open(self, log: SessionLog) -> StageMeter:
        return DriverMeter(self, log)


class DriverMeter(StageMeter):
    """Reads the power of the whole machine once a second, in a thread of its own."""

    def __init__(self, source: DriverSource, log: SessionLog) -> None:
        """Open the driver.

        Raises:
            MeterFailed: it cannot be used, or gives no power of the whole machine.
        """
        self._source = source
        self._log = log
        self._settings = source.settings  # that the meter is opened with, ranges of this stage included
        self._driver, self._group, self._power = self._open(self._settings)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._stage = self._mark = ""
        self._samples: SampleFile | None = None
        self._watts: list[float] = []
        log.info(f"the meter is {self._power.name} ({self._power.model or 'model unknown'}), read by power-director")

    def begin(self, stage: str, mark: str, samples: SampleFile, ranges: RangesAsked | None) -> None:
        self._stage, self._mark, self._samples = stage, mark, samples
        if ranges is not None:
            self._set_ranges(ranges)
        self._watts = []
        self._stopping.clear()
        self._thread = threading.Thread(target=self._measure, name="meter", daemon=True)
        self._thread.start()

    def end(self) -> str:
        time.sleep(self._source.tail_s)
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._samples = None
        count = len(self._watts)
        told = "no valid sample"
        if count:
            mean = sum(self._watts) / count
            told = f"{mean:.6f} W on average, from {min(self._watts):.6f} to {max(self._watts):.6f}, {count} samples"
        return f"power-director read {self._power.name}; PTDaemon was not used.\nPower: {told}\n"

    def ranges_for_testing(self) -> RangesAsked | None:
        return None

    def close(self) -> None:
        with suppress(Exception):
            self._driver.close()

    def write_logs(self, power: Path) -> None:
        (power / "ptd_logs.txt").write_text("PTDaemon was not used: power-director read the meter itself.\n")

    def description(self) -> dict[str, Any]:
        accuracy = self._power.accuracy
        return {
            "ptd_messages": [],
            "ptd_config": [],
            "meter": {
                "channel": self._power.name,
                "model": self._power.model,
                "accuracy": None
                if accuracy is None
                else f"± ({accuracy.reading_fraction:.4%} of reading + {accuracy.absolute:g} W), {accuracy.source}",
            },
        }

    def _open(self, settings: Mapping[str, str]) -> tuple[Driver, Group, Channel]:
        (result,) = open_drivers([self._source.name], settings={self._source.name: settings})
        if not isinstance(result, Opened):
            raise MeterFailed(f"{result.name}: {result.reason}; {result.fix}")
        measured = [
            (group, channel)
            for group in result.driver.groups
            for channel in group.channels
            if channel.quantity == "power" and not channel.estimate
        ]
        for scope in _SCOPES:
            found = [(group, channel) for group, channel in measured if channel.scope == scope]
            devices = {channel.device for _, channel in found}
            found = [one for one in found if one[1].parent not in devices]
            if len({channel.device for _, channel in found}) == 1:
                return result.driver, *found[0]
            if found:
                result.driver.close()
                names = ", ".join(channel.name for _, channel in found[:_MOST_NAMES])
                more = f" and {len(found) - _MOST_NAMES} more" if len(found) > _MOST_NAMES else ""
                raise MeterFailed(
                    f"{self._source.name} measures {len(found)} machines or outlets, and one is to be measured here: "
                    f"{names}{more}; leave one with --set {self._source.name}.KEY=VALUE, see `power-agent devices`"
                )
        result.driver.close()
        raise MeterFailed(f"{self._source.name} gives no measured power of the whole machine (scope wall or node)")

    def _set_ranges(self, ranges: RangesAsked) -> None:
        """Open the driver anew with the ranges as its settings; one that has none keeps its own."""
        self.close()
        try:
            self._settings = {**self._source.settings, "volts": ranges.volts, "amps": ranges.amperes}
            self._driver, self._group, self._power = self._open(self._settings)
        except MeterFailed as error:
            self._log.warn(f"the ranges {ranges.volts} V, {ranges.amperes} A were not set: {error}")
            self._settings = self._source.settings
            self._driver, self._group, self._power = self._open(self._settings)

    def _measure(self) -> None:
        next_s = time.monotonic()
        while not self._stopping.wait(max(0.0, next_s - time.monotonic())):
            next_s = max(next_s + SECOND_S, time.monotonic())
            self._read_once()

    def _read_once(self) -> None:
        assert self._samples is not None
        lost = False
        rows: Sequence[Row] = ()
        try:
            rows = self._group.read()
            for text in self._group.remarks():
                self._log.warn(text)
        except Finished as error:
            self._log.warn(f"the meter has no more to give: {error}")
            self._stopping.set()
            return
        except (ReadFailed, DeviceLost) as error:
            lost = isinstance(error, DeviceLost)
            self._log.warn(f"a sample is missing: {error}")
        except Exception as error:  # a driver's mistake costs its own reading and no other
            self._log.warn(f"the driver failed: {type(error).__name__}: {error}")
        else:
            self._write([self._line(row) for row in rows])
            return
        self._write([self._line_of(time.time(), [], b"")])
        if lost:
            self._reopen()

    def _reopen(self) -> None:
        self.close()
        try:
            self._driver, self._group, self._power = self._open(self._settings)
        except MeterFailed as error:
            self._log.warn(f"the meter cannot be opened again yet: {error}")

    def _write(self, lines: Sequence[str]) -> None:
        assert self._samples is not None
        try:
            self._samples.write(lines)
        except OSError as error:
            self._log.warn(f"{self._stage}: samples cannot be written: {error}; they wait in memory")

    def _line(self, row: Row) -> str:
        at_s = time.time() - (time.monotonic_ns() - row.t_ns) / 1e9
        return self._line_of(at_s, row.values, row.statuses or bytes(len(row.values)))

    def _line_of(self, at_s: float, values: Sequence[float | int], statuses: bytes) -> str:
        numbers = dict.fromkeys(("power", "voltage", "current", "power_factor"), _REJECTED)
        for place, channel in enumerate(self._group.channels):
            if channel.device == self._power.device and channel.quantity in numbers and place < len(values):
                known = statuses[place] in (Status.NEW, Status.STALE)
                numbers[channel.quantity] = float(values[place]) * channel.scale if known else _REJECTED
        if not values:
            numbers["power"] = _MISSED
        elif numbers["power"] >= 0:
            self._watts.append(numbers["power"])
        milliseconds = round(at_s * 1000)
        at = datetime.fromtimestamp(milliseconds // 1000, timezone.utc)
        stamp = f"{at:%m-%d-%Y %H:%M:%S}.{milliseconds % 1000:03d}"
        return (
            f"Time,{stamp},Watts,{numbers['power']:.6f},Volts,{numbers['voltage']:.6f},"
            f"Amps,{numbers['current']:.6f},PF,{numbers['power_factor']:.6f},Mark,{self._mark}"
        )
