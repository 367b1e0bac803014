"""A power analyzer on a line: found, asked who it is, set, read, and put back at the end."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from drivers.analyzers.channels import MeterChannels
from drivers.analyzers.description import Description
from drivers.analyzers.dialog import Dialog
from drivers.analyzers.group import MeterGroup
from drivers.analyzers.meter import Meter
from drivers.analyzers.reading import Reader
from drivers.analyzers.replies import BadReply
from drivers.analyzers.settings import MeterSettings, check_settings, read_settings
from drivers.contract import Driver, DriverOptions, Unavailable
from drivers.line_port import LinePort, NoReply, open_port
from drivers.links import LinkLost, SerialSettings

_GREETINGS = 3  # questions before nobody is there
KNOWN_ELSEWHERE: Mapping[str, str] = {
    r"YOKOGAWA,(WT210|WT230|7604\d\d|7605\d\d),": "wt210",
    r"YOKOGAWA,WT310": "wt310e",
    r"YOKOGAWA,WT33\d": "wt330e",
    r"GW ?INSTEK,GPM-?8": "gpm83xx",
    r"HIOKI,.*333[5-7]": "pw333x",
    r"CHROMA,.*6620\d": "chroma6620x",
    r"ZES.*LMG": "lmg",
}


class AnalyzerDriver(Driver):
    """What all analyzers share. A subclass describes its own."""

    name: ClassVar[str]
    own_settings: ClassVar[tuple[str, ...]] = ()  # beside the general ones and the knobs

    def __init__(self, meter: Meter, group: MeterGroup) -> None:
        self.groups = (group,)
        self.notes = tuple(meter.notes)
        self._meter = meter

    @classmethod
    @abstractmethod
    def draft(cls, settings: Mapping[str, str]) -> Description:
        """What can be said of a meter before it is asked who it is: enough to open the line and to ask.

        Raises:
            Unavailable: the settings make no sense.
        """

    @classmethod
    def describe(cls, identity: str, draft: Description, settings: Mapping[str, str]) -> Description:
        """The whole description of the meter that answered."""
        return draft

    @classmethod
    def open(cls, options: DriverOptions) -> AnalyzerDriver:
        """Find the meter at the setting `port`, and set it as the others ask for.

        Raises:
            Unavailable: see there.
        """
        draft = cls.draft(options.settings)
        cls._check_settings(options.settings, draft)
        wanted = read_settings(cls.name, options.settings, draft)
        serial = SerialSettings(wanted.baud or draft.baud, draft.rtscts)
        place = wanted.port
        if place.startswith("/dev/"):
            place = str(options.root / place[1:])
        port = open_port(place, serial, terminator=draft.terminator, tcp_port=draft.tcp_port)
        meter: Meter | None = None
        try:
            if draft.stream is not None and port.by_message:
                reason = f"{draft.title} sends readings by itself, and {place} carries what is asked for alone"
                raise Unavailable(reason, "connect its serial line or its network (TCP)")
            dialog = Dialog(port, draft.identify, wanted.reply_s)
            identity = cls._greet(dialog, draft)
            description = cls.describe(identity, draft, options.settings)
            cls._check_settings(options.settings, description)
            wanted = read_settings(cls.name, options.settings, description)
            meter = Meter(dialog, description)
            opened_ns = options.clock_ns()
            meter.set_up(wanted)
            return cls(meter, _group(cls.name, options, meter, wanted, opened_ns))
        except BaseException as error:
            if meter is not None:
                meter.close()
            port.close()
            if isinstance(error, LinkLost):
                raise Unavailable(f"the line to the meter broke off: {error}", "plug it in again") from error
            if isinstance(error, (NoReply, BadReply)):
                fix = f"check cable and line; where the meter is set to another rate, give {cls.name}.baud=RATE"
                raise Unavailable(f"the meter at {port.place} stopped making sense: {error}", fix) from error
            raise

    @classmethod
    def _check_settings(cls, settings: Mapping[str, str], description: Description) -> None:
        knobs = (knob.name for knob in description.knobs if knob.name)
        check_settings(cls.name, settings, (*cls.own_settings, *knobs))

    @classmethod
    def _greet(cls, dialog: Dialog, draft: Description) -> str:
        """Ask who is there.

        Raises:
            Unavailable: nobody, somebody who cannot be understood, or another meter.
            LinkLost: see there.
        """
        heard: Exception | None = None
        known = re.compile(draft.identity)
        for _ in range(_GREETINGS):
            try:
                identity = dialog.greet(known)
            except (NoReply, BadReply) as error:
                if isinstance(error, BadReply) or error.partial or heard is None:
                    heard = error
                continue
            if known.match(identity):
                dialog.identity = identity
                return identity
            heard = BadReply(identity)
            if re.search(r"[\w-]+,[\w-]+", identity):
                raise _another(cls.name, identity)
        raise _no_answer(cls.name, dialog.port, heard)

    def close(self) -> None:
        """Put the meter back and release the line."""
        self._meter.close()


def _group(name: str, options: DriverOptions, meter: Meter, wanted: MeterSettings, opened_ns: int) -> MeterGroup:
    full_name = f"{name}:{options.instance}" if options.instance else name
    channels = MeterChannels(full_name, options.instance or wanted.scope, meter, wanted)
    return MeterGroup(
        Reader(meter.dialog, meter.description, meter.range_watts),
        meter.dialog,
        channels,
        period_s=meter.period_s,
        least_power_factor=wanted.least_power_factor,
        opened_ns=opened_ns,
        clock_ns=options.clock_ns,
    )


def _another(name: str, identity: str) -> Unavailable:
    other = next((driver for pattern, driver in KNOWN_ELSEWHERE.items() if re.match(pattern, identity, re.I)), None)
    fix = (
        f"use the driver {other}: {other}.port=…" if other not in (None, name) else "check which meter is on this line"
    )
    return Unavailable(f"another device answers: {identity[:80]}", fix)


def _no_answer(name: str, port: LinePort, heard: Exception | None) -> Unavailable:
    if isinstance(heard, BadReply) or (isinstance(heard, NoReply) and heard.partial):
        fix = "check which device it is"
        if port.baud is not None:
            fix = f"it is probably set to another rate than {port.baud} baud: give {name}.baud=RATE as in its menu"
        return Unavailable(f"what answers at {port.place} makes no sense: {heard}", fix)
    fix = "check that the meter is on, and set to this interface"
    if port.baud is None:
        return Unavailable(f"nobody answers at {port.place}", fix)
    fix += f"; that the cable is the meter's (crossed, or straight); give {name}.baud=RATE as in its menu"
    return Unavailable(f"nobody answers at {port.place} at {port.baud} baud", fix)
