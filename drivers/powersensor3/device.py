"""What a PowerSensor3 is asked before it streams: who it is, and how its sensors are set up."""

from __future__ import annotations

import math
import re
import struct
import time
from contextlib import suppress
from typing import NamedTuple

from drivers.contract import Unavailable
from drivers.links import Link, LinkLost
from drivers.powersensor3.frames import HIGHEST_LEVEL, SENSORS

REPLY_S = 1.0
_SENSOR = struct.Struct("<16s16sff?")  # type, name of the pair, reference in V, sensitivity in V per A or V, in use
_VERSION = re.compile(rb"[\w.]*\d+\.\d+\.\d+|F4\d\d-[\w.-]+")
_ADC_VOLTS = 3.3
_QUIET_S = 0.1
_LONGEST_DRAIN_S = 2.0
_BIPOLAR_VOLTS = 0.1  # a sensor whose zero stands higher sees both signs
_CHECK = "check that it is a PowerSensor3, with its firmware loaded; unplug it and plug it in again"


class Sensor(NamedTuple):
    """One of the eight inputs."""

    kind: str  # "MLX91221-20", as its owner wrote it
    pair: str
    reference_volts: float
    sensitivity: float
    in_use: bool

    @property
    def per_level(self) -> float:
        """Amperes or volts of one level."""
        return _ADC_VOLTS / HIGHEST_LEVEL / self.sensitivity

    @property
    def at_zero(self) -> float:
        """Amperes or volts of level 0."""
        return -self.reference_volts / self.sensitivity

    @property
    def clips_low(self) -> bool:
        """Whether level 0 says that the input is beyond its range, not that it is zero."""
        return self.reference_volts > _BIPOLAR_VOLTS


class Pair(NamedTuple):
    """A current and a voltage that make a power."""

    number: int
    current: Sensor
    voltage: Sensor

    @property
    def device(self) -> str:
        """As it is called in channels."""
        name = re.sub(r"[^\w.-]+", "_", self.current.pair).strip("_")
        return f"pair{self.number}-{name}" if name else f"pair{self.number}"


class Device:
    """A PowerSensor3 on a line. Belongs to one thread."""

    def __init__(self, link: Link, place: str) -> None:
        self.link = link
        self.place = place
        self.version = ""
        self.pairs: list[Pair] = []
        self.half_pairs: list[int] = []  # of which one sensor only is in use

    def identify(self) -> None:
        """Stop what may be streaming, and read version and configuration.

        Raises:
            Unavailable: it is no PowerSensor3, or one without sensors.
            LinkLost: see there.
        """
        self.link.send(b"T")
        until_s = time.monotonic() + _LONGEST_DRAIN_S
        while self.link.receive(_QUIET_S):
            if time.monotonic() > until_s:
                raise Unavailable(f"what is at {self.place} goes on sending when told to stop", _CHECK)
        self.link.send(b"V")
        reply = self._receive_until(b"\n", 64)
        if not _VERSION.match(reply.strip()):
            told = f"what is at {self.place} answers {reply[:40]!r}" if reply else f"nothing at {self.place} answers"
            raise Unavailable(told, _CHECK)
        self.version = reply.strip().decode("ascii", "replace")
        sensors = self._read_sensors()
        for number in range(SENSORS // 2):
            pair = Pair(number, sensors[2 * number], sensors[2 * number + 1])
            if pair.current.in_use and pair.voltage.in_use:
                self.pairs.append(pair)
        if not self.pairs:
            raise Unavailable("none of its pairs of sensors is in use", "configure it with its own program psconfig")

    def start(self) -> None:
        """Begin to stream. Raises LinkLost."""
        self.link.send(b"S")

    def close(self) -> None:
        """Stop the stream and release the line."""
        with suppress(LinkLost):
            self.link.send(b"T")
        self.link.close()

    def _read_sensors(self) -> list[Sensor]:
        self.link.send(b"R")
        sensors = []
        for number in range(SENSORS):
            record = self._receive_count(_SENSOR.size)
            if len(record) < _SENSOR.size:
                raise Unavailable(f"the configuration of sensor {number} of {self.place} broke off", _CHECK)
            sensors.append(_sensor(number, record))
            self.link.send(b"s")
        if self._receive_count(1) != b"D":
            raise Unavailable(f"the configuration of {self.place} does not end as it should", _CHECK)
        self.half_pairs = [n // 2 for n in range(0, SENSORS, 2) if sensors[n].in_use != sensors[n + 1].in_use]
        return sensors

    def _receive_until(self, end: bytes, most: int) -> bytes:
        received = b""
        until_s = time.monotonic() + REPLY_S
        while end not in received and len(received) < most and (left_s := until_s - time.monotonic()) > 0:
            received += self.link.receive(left_s)
        return received

    def _receive_count(self, count: int) -> bytes:
        """As many bytes, or fewer where no more come. One more is a mistake: it is not asked for."""
        received = b""
        until_s = time.monotonic() + REPLY_S
        while len(received) < count and (left_s := until_s - time.monotonic()) > 0:
            received += self.link.receive(left_s)
        if len(received) > count:
            raise Unavailable(f"more came from {self.place} than was asked for", _CHECK)
        return received


def _sensor(number: int, record: bytes) -> Sensor:
    """Raises Unavailable."""
    kind, pair, reference, sensitivity, _ = _SENSOR.unpack(record)
    if record[-1] > 1:
        raise Unavailable(f"the configuration of sensor {number} makes no sense", _CHECK)
    in_use = bool(record[-1])
    usable = math.isfinite(reference) and abs(reference) <= 2 * _ADC_VOLTS and 1e-6 < abs(sensitivity) < 1e6
    if in_use and not usable:
        raise Unavailable(
            f"sensor {number} is set to a reference of {reference:g} V and a sensitivity of {sensitivity:g}",
            "configure it with its own program psconfig",
        )
    return Sensor(_text(kind), _text(pair), reference, sensitivity, in_use)


def _text(raw: bytes) -> str:
    return "".join(char for char in raw.split(b"\0")[0].decode("latin-1") if char.isprintable())
