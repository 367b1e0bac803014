"""A power analyzer behind PTDaemon: a sample per second of its sum and its channels, in ranges that are set."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

from drivers.analyzer_ranges import CURRENT_MARGIN
from drivers.analyzer_uncertainty import LIMIT
from drivers.contract import (
    Accuracy,
    Channel,
    DeviceLost,
    Driver,
    DriverOptions,
    Group,
    Quantity,
    ReadFailed,
    Row,
    Status,
    Unavailable,
)
from drivers.ptdaemon.accuracy import accuracy_at
from drivers.ptdaemon.connection import (
    DEFAULT_PORT,
    REPLY_S,
    NotPtd,
    NotReached,
    PtdConnection,
    PtdLost,
    Refused,
    Silent,
)
from drivers.ptdaemon.replies import MAX_CHANNELS, Identity, Sample, SetRanges, Values
from drivers.ptdaemon.stamps import StampClock
from drivers.settings import check_known, read_number

NAME = "ptdaemon"
_SETTINGS = ("host", "port", "volts", "amps", "probe_s", "power_factor", "channels", "settle_s", "reply_s")
_SETTLE_S = 10.0
_LONGEST_PROBE_S = 10.0
_LEAST_POWER_FACTOR = 0.9
_ASKED_EVERY_NS = 10_000_000_000  # uncertainty
_PERIOD_NS = 1_000_000_000  # between samples
_EARLY_NS = 250_000_000  # before a sample is due; beginning later, its instant would be known less well
_CLIPS_AT = 1.3 * (1 - 1e-6)  # of a range: up to there meters of crest factor 3 measure
_QUANTITIES: tuple[tuple[str, Quantity, str], ...] = (
    ("power", "power", "W"),
    ("voltage", "voltage", "V"),
    ("current", "current", "A"),
    ("power_factor", "power_factor", ""),
)
_MARKS = (-1.0, -2.0)  # PTDaemon's: a reading that it rejected, a sample that it missed
_MARK = "power-agent"
# Ranges found before ours were set, where a connection broke and they could not be set again.
_not_restored: dict[tuple[str, int], SetRanges] = {}
_probed_before: dict[tuple[str, int], tuple[str, str]] = {}  # volts and amperes; a run keeps what its probe found


@dataclass(frozen=True)
class _Wanted:
    """What the user set. None: leave the range as it is; "Auto"; or a number."""

    volts: str | None
    amperes: str | None
    channels: int
    least_factor: float
    settle_s: float


class PtdDriver(Driver):
    name: ClassVar[str] = NAME

    def __init__(self, group: PtdGroup) -> None:
        self.groups: tuple[PtdGroup] = (group,)

    @classmethod
    def open(cls, options: DriverOptions) -> PtdDriver:
        settings = options.settings
        check_known(NAME, settings, _SETTINGS)
        host = settings.get("host")
        if not host:
            raise Unavailable("no PTDaemon is named", f"start PTDaemon, then --set {NAME}.host=127.0.0.1")
        port = _whole(settings, "port", 65535) or DEFAULT_PORT
        probe_s = read_number(NAME, settings, "probe_s", "seconds")
        reply_s = read_number(NAME, settings, "reply_s", "seconds")
        volts, amperes = _range(settings, "volts", "volts"), _range(settings, "amps", "amperes")
        if probe_s and probe_s > _LONGEST_PROBE_S:
            raise Unavailable(
                f"{NAME}.probe_s is {probe_s:g}, and a recording waits no longer than 15 s for its devices",
                f"give at most {_LONGEST_PROBE_S:g} s, under the highest load",
            )
        if probe_s and (volts or amperes):
            raise Unavailable(f"{NAME}.probe_s finds the ranges, and {NAME}.volts and .amps set them", "give one")
        settle_s = read_number(NAME, settings, "settle_s", "seconds")
        wanted = _Wanted(
            volts,
            amperes,
            _whole(settings, "channels", MAX_CHANNELS),
            _factor(settings),
            _SETTLE_S if settle_s is None else settle_s,
        )
        where = f"{host}:{port}"
        try:
            connection = PtdConnection.open(host, port, reply_s=reply_s or REPLY_S)
        except PtdLost as error:
            raise _unavailable(where, error) from error
        try:
            identity, found = connection.identify(), connection.ranges()
        except (PtdLost, ValueError) as error:
            connection.close()
            reason = f"PTDaemon at {where} does not tell its meter: {error}"
            raise Unavailable(reason, "look at PTDaemon's output: is the meter connected and switched on?") from error
        if not wanted.channels:
            wanted = replace(wanted, channels=identity.channels)
        waiting = _not_restored.pop((host, port), None)
        initial = found if waiting is None else waiting
        if probe_s:
            wanted = _probed(connection, (host, port), initial, wanted, probe_s)
        group = PtdGroup(connection, (host, port), identity, initial, found, wanted, options)
        group.is_changed = bool(probe_s) or waiting is not None
        return cls(group)

    def close(self) -> None:
        self.groups[0].close()


def _unavailable(where: str, error: PtdLost) -> Unavailable:
    if isinstance(error, NotReached):
        return Unavailable(
            f"no PTDaemon at {where}: {error}", "start PTDaemon, or correct ptdaemon.host and ptdaemon.port"
        )
    if isinstance(error, Silent):
        return Unavailable(
            f"PTDaemon at {where} takes the connection and does not answer: it serves one program at a time",
            "end the other program that uses it (power-director serve --mlperf, or MLPerf's server.py)",
        )
    if isinstance(error, NotPtd):
        return Unavailable(
            f"what listens at {where} is not PTDaemon: {error}", "correct ptdaemon.host and ptdaemon.port"
        )
    return Unavailable(f"PTDaemon at {where}: {error}", "look at PTDaemon's output")


def _whole(settings: Mapping[str, str], key: str, most: int) -> int:
    """A setting that is a whole number above 0; 0 where it is not given."""
    number = read_number(NAME, settings, key, "whole")
    if number is None:
        return 0
    if number != int(number) or not 1 <= number <= most:
        raise Unavailable(f"{NAME}.{key} is {number:g}", f"give a whole number from 1 to {most}")
    return int(number)


def _factor(settings: Mapping[str, str]) -> float:
    factor = read_number(NAME, settings, "power_factor", "power factor")
    if factor is not None and not 0 < factor <= 1:
        raise Unavailable(f"{NAME}.power_factor is {factor:g}", "give the least that the load has, such as 0.95")
    return _LEAST_POWER_FACTOR if factor is None else factor


def _range(settings: Mapping[str, str], key: str, unit: str) -> str | None:
    text = settings.get(key)
    if text is None or text.lower() == "auto":
        return None if text is None else "Auto"
    number = read_number(NAME, settings, key, unit)
    if not number:
        raise Unavailable(f"{NAME}.{key} is {text}", f"give {unit}, or auto")
    return f"{number:g}"


def _probed(
    connection: PtdConnection, address: tuple[str, int], initial: SetRanges, wanted: _Wanted, probe_s: float
) -> _Wanted:
    """The lowest ranges that hold what a short measurement in automatic ranges shows, with room for the current."""
    if address in _probed_before:
        volts, amperes = _probed_before[address]
        return replace(wanted, volts=volts, amperes=amperes)
    try:
        for unit in "VA":
            connection.set_range(f"SR,{unit},Auto")
        connection.go(_MARK)  # samples from before the ranges have settled are rejected by PTDaemon, and not used here
        time.sleep(probe_s)
        connection.stop()
        samples = connection.fetch().samples
    except (PtdLost, ValueError, Refused) as error:
        _not_restored[address] = initial
        connection.close()
        raise Unavailable(f"probing for ranges failed: {error}", "set ptdaemon.volts and ptdaemon.amps") from error
    found = [one for sample in samples for one in sample.channels or (sample.total,) if _status(one.amperes) == 0]
    most_volts = max((one.volts for one in found), default=0.0)
    most_amperes = max((one.amperes for one in found), default=0.0)
    if not (most_volts > 0 and most_amperes > 0):
        _restore(connection, address, initial)
        connection.close()
        raise Unavailable(f"no valid sample came within {probe_s:g} s", "set ptdaemon.probe_s to more, 5 or above")
    _probed_before[address] = (f"{most_volts:g}", f"{most_amperes * CURRENT_MARGIN:g}")
    return replace(wanted, volts=_probed_before[address][0], amperes=_probed_before[address][1])


def _restore(connection: PtdConnection, address: tuple[str, int], initial: SetRanges) -> None:
    """Set the ranges that were found; where that fails, the next driver at this address does."""
    _not_restored[address] = initial
    with suppress(PtdLost, ValueError, Refused):
        for unit in "VA":
            connection.set_range(initial.command(unit))
        del _not_restored[address]
        _probed_before.pop(address, None)


class PtdGroup(Group):
    """The first read sets the ranges; those of the time that they settle give no rows, nor do those before a sample."""

    name = "power"
    default_hz = 10.0  # PTDaemon is asked when a sample is due; often then, so that its instant is known well
    max_hz = 10.0

    def __init__(
        self,
        connection: PtdConnection,
        address: tuple[str, int],
        identity: Identity,
        initial: SetRanges,
        found: SetRanges,
        wanted: _Wanted,
        options: DriverOptions,
    ) -> None:
        self._connection = connection
        self._address = address
        self._initial = initial
        self._wanted = wanted
        self._clock_ns: Callable[[], int] = options.clock_ns
        self.is_changed = False  # ranges, so that close sets them back
        self._go_at_ns: int | None = None
        self._measures = False
        self._asked_ns = self._clock_ns()  # when the last answer that brought samples, or none, had come
        self._stamps = StampClock()
        self._last_us: int | None = None  # stamp of the last sample
        self._due_ns = 0
        self._next_uncertainty_ns = 0
        self._told: list[str] = []
        self._ranges = found
        prefix = f"{NAME}:{options.instance}" if options.instance else NAME
        self.channels = _channels(prefix, identity, _accuracy(identity, found, wanted), wanted.channels)

    def read(self) -> Sequence[Row]:
        try:
            return self._read()
        except Refused as error:
            raise ReadFailed(f"PTDaemon refuses: {error}; choose other ranges") from error
        except (PtdLost, ValueError) as error:
            raise DeviceLost(f"PTDaemon at {self._address[0]}:{self._address[1]}: {error}") from error

    def remarks(self) -> Sequence[str]:
        told, self._told = self._told, []
        return told

    def close(self) -> None:
        """End the measurement and set the ranges that were found."""
        if self._measures:
            with suppress(PtdLost, ValueError, Refused):
                self._connection.stop()
        if self.is_changed:
            _restore(self._connection, self._address, self._initial)
        self._connection.close()

    def _read(self) -> Sequence[Row]:
        if self._go_at_ns is None:
            self._set_ranges()
            self._go_at_ns = self._clock_ns() + (round(self._wanted.settle_s * 1e9) if self.is_changed else 0)
        if not self._measures:
            if self._clock_ns() < self._go_at_ns:
                return ()
            self._asked_ns = self._clock_ns()
            self._connection.go(_MARK)
            self._measures = True
        if self._clock_ns() < self._due_ns - _EARLY_NS:
            return ()
        after_ns = self._asked_ns
        fetched = self._connection.fetch()
        before_ns = self._asked_ns = self._clock_ns()
        if fetched.damaged:
            self._told.append(f"{fetched.damaged} lines of PTDaemon's samples cannot be read")
        rows = [self._row(sample, after_ns, before_ns) for sample in fetched.samples]
        if rows and before_ns >= self._next_uncertainty_ns:
            self._next_uncertainty_ns = before_ns + _ASKED_EVERY_NS
            self._judge_uncertainty()
        return rows

    def _set_ranges(self) -> None:
        for unit, wanted in (("V", self._wanted.volts), ("A", self._wanted.amperes)):
            if wanted is not None:
                self.is_changed = True
                self._connection.set_range(f"SR,{unit},{wanted}")
        if self.is_changed:
            self._ranges = self._connection.ranges()

    def _row(self, sample: Sample, after_ns: int, before_ns: int) -> Row:
        t_ns, width_ns = self._stamps.place(sample.t_us, after_ns, before_ns)
        if self._last_us is not None:
            self._due_ns = t_ns + min(max(0, sample.t_us - self._last_us) * 1000, _PERIOD_NS)
        self._last_us = sample.t_us
        found = [sample.total, *sample.channels]
        expected = len(self.channels) // len(_QUANTITIES)
        if len(found) != expected:
            channels = len(sample.channels) or 1
            self._told.append(f"PTDaemon gives {channels} channels: set {NAME}.channels={channels}")
            found = (found + [Values(-2.0, -2.0, -2.0, -2.0)] * expected)[:expected]
        values = [number for one in found for number in (one.watts, one.volts, one.amperes, one.power_factor)]
        statuses = bytes(map(_status, values))
        if any(map(self._clips, found)):
            self._told.append("the meter clips: its range is too low")
            statuses = statuses.replace(bytes([Status.NEW]), bytes([Status.OVER_RANGE]))
        return Row(t_ns, width_ns, values, statuses)

    def _clips(self, values: Values) -> bool:
        pairs = ((values.volts, self._ranges.volts), (values.amperes, self._ranges.amperes))
        return any(limit is not None and value >= _CLIPS_AT * limit for value, limit in pairs)

    def _judge_uncertainty(self) -> None:
        found = self._connection.statistics("Uncertainty")
        if found.most is None:
            self._told.append("PTDaemon cannot tell the uncertainty: its ranges are automatic, or samples are rejected")
        elif found.most > LIMIT:
            self._told.append(f"PTDaemon's uncertainty left {LIMIT:.0%}: lower ranges are needed, or more load")


def _status(value: float) -> Status:
    if not math.isfinite(value) or value in _MARKS:
        return Status.MISSING
    return Status.INVALID if value < 0 else Status.NEW


def _accuracy(identity: Identity, found: SetRanges, wanted: _Wanted) -> Accuracy | None:
    """Of fixed ranges; automatic ones have no accuracy that PTDaemon would tell."""
    if "Auto" in (wanted.volts, wanted.amperes):
        return None
    volts = found.volts if wanted.volts is None else float(wanted.volts)
    amperes = found.amperes if wanted.amperes is None else float(wanted.amperes)
    if volts is None or amperes is None:
        return None
    return accuracy_at(identity.meter, volts, amperes, wanted.channels, wanted.least_factor)


def _channels(prefix: str, identity: Identity, accuracy: Accuracy | None, count: int) -> tuple[Channel, ...]:
    devices = ["wall", *(f"wall-ch{number}" for number in range(1, count + 1) if count > 1)]
    return tuple(
        Channel(
            name=f"{prefix}/{device}/{name}",
            device=device if prefix == NAME else f"{prefix.partition(':')[2]}-{device}",
            quantity=quantity,
            unit=unit,
            kind="gauge",
            scope=("wall" if device == "wall" else "rail") if quantity == "power" else "none",
            parent=None if device == "wall" else devices[0],
            model=identity.model,
            update_period_s=1.0,
            stamped=True,
            window_s=1.0,
            accuracy=accuracy if quantity == "power" and device == "wall" else None,
            description=f"{name.replace('_', ' ')} of {identity.meter}"
            + (", sum of its channels" if device == "wall" and count > 1 else ""),
        )
        for device in devices
        for name, quantity, unit in _QUANTITIES
    )
