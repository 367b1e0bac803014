"""A meter that was found: identified, set as the user wishes, checked, and put back."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import msgspec

from drivers.analyzer_ranges import next_range, range_above, ranges_for
from drivers.analyzers.description import Description, Knob, Ranges
from drivers.analyzers.dialog import Dialog
from drivers.analyzers.kept_settings import KeptSettings
from drivers.analyzers.reading import Reader
from drivers.analyzers.replies import BadReply, Value
from drivers.analyzers.settings import MeterSettings
from drivers.contract import Status, Unavailable
from drivers.line_port import LinkLost, NoReply

MOST_ERRORS = 20  # that a queue may hold from before
_INTEGRATION = "integration"
_OFF = ("0", "OFF")
_ON = ("1", "ON")


class Meter:
    """Its settings, and the record of what they were before."""

    def __init__(self, dialog: Dialog, description: Description) -> None:
        self.dialog = dialog
        self.description = description
        self.notes: list[Unavailable] = []
        self.period_s = description.period_s
        self.range_volts: float | None = None  # None: unknown, or chosen by the meter as it goes
        self.range_amperes: float | None = None
        self.told: list[str] = []  # settings in words, for the record
        self._kept = KeptSettings(dialog.identity)

    @property
    def range_watts(self) -> float | None:
        """Vr·Ar of one element, where both are fixed."""
        if self.range_volts is None or self.range_amperes is None:
            return None
        return self.range_volts * self.range_amperes

    @property
    def largest_watts(self) -> float | None:
        """Vr·Ar of the highest ranges, whatever the meter chooses."""
        ranges = self.description.ranges
        return ranges.volts[-1] * ranges.amperes[-1] if ranges is not None else None

    def set_up(self, settings: MeterSettings) -> None:
        """Set what the user asks for, check that it is so, and read the rest.

        Raises:
            Unavailable: the meter refuses.
            LinkLost, NoReply, BadReply: see there.
        """
        for command in self.description.begin:
            self.dialog.tell(command)
        self._empty_errors()
        if self._kept.inherited:
            self.put_back()
        self._check_no_integration(settings)
        answers = {}
        for knob in self.description.knobs:
            answers[knob.name] = self._turn(knob, settings.knobs.get(knob.name, "") or knob.always)
        self._adapt(answers)
        if self.description.ranges is not None:
            self._settle_ranges(self.description.ranges, settings)
        self._learn_period()
        for command in self.description.select:
            self._tell_checked(command)
        self._arm()
        if settings.integrate:
            self._integrate()
        if self.description.stream is not None:
            for command in self.description.stream.start:
                self.dialog.tell(command)

    def put_back(self) -> None:
        """Set everything as it was found.

        Raises:
            LinkLost, NoReply, BadReply: the line failed; what is to be put back stays on record.
        """
        for what in sorted(self._kept.commands, key=lambda what: what != _INTEGRATION):
            for command in self._kept.commands[what]:
                self.dialog.tell(command)
        self._empty_errors()  # its answer says that all of it has arrived
        self._kept.forget()

    def close(self) -> None:
        """Put the meter back and leave it to its front panel. Does not raise."""
        with suppress(LinkLost, NoReply, BadReply):
            if self.description.stream is not None:
                for command in self.description.stream.stop:
                    self.dialog.tell(command)
                self.dialog.lose_step()
            self.put_back()
            for command in self.description.end:
                self.dialog.tell(command)
        self.dialog.port.close()

    def drop_freshness(self, reason: str) -> None:
        """Go on without the meter's word on what is new."""
        self.description = msgspec.structs.replace(self.description, freshness=None)
        self.notes.append(
            Unavailable(f"{reason}: a reading may be as old as one update", "nothing to do: U allows for it")
        )

    # Settings

    def _adapt(self, answers: dict[str, str]) -> None:
        """Let ranges and specification be those of the crest factor and the line filter that are set."""
        specification, ranges = self.description.specification, self.description.ranges
        if ranges is not None and answers.get("crest_factor") in ranges.halving_crest_factors:
            volts, amperes = ([each / 2 for each in table] for table in (ranges.volts, ranges.amperes))
            ranges = msgspec.structs.replace(ranges, volts=tuple(volts), amperes=tuple(amperes))
            if specification is not None:
                specification = msgspec.structs.replace(specification, range=2 * specification.range)
        if specification is not None and answers.get("line_filter", "OFF").upper() not in _OFF:
            reading = specification.reading + specification.line_filter
            specification = msgspec.structs.replace(specification, reading=reading)
        self.description = msgspec.structs.replace(self.description, specification=specification, ranges=ranges)

    def _turn(self, knob: Knob, wanted: str) -> str:
        """Keep a setting, change it if that is wanted, and return what it is; empty: not known."""
        before = self._ask_optional(knob)
        if before is None:
            if wanted and wanted != knob.always:
                raise Unavailable(
                    f"{self.description.title} does not answer {knob.ask!r}", f"leave the setting {knob.name} out"
                )
            return ""
        if not wanted and not knob.name:  # what `select` and the like change
            self._kept.keep(knob.ask, [knob.set.replace("{value}", before)])
        elif wanted and not _same(wanted, before):
            self._kept.keep(knob.ask, [knob.set.replace("{value}", before)])
            self._tell_checked(knob.set.replace("{value}", wanted))
            before = self.dialog.ask(knob.ask)
            if not _same(wanted, before):
                raise Unavailable(
                    f"{self.description.title} was told {knob.set.replace('{value}', wanted)!r} and answers {before!r}",
                    "look whether the meter offers that value, or leave the setting out",
                )
        if knob.name:
            word = next((word for word, sent in knob.words.items() if _same(sent, before)), _plain(before))
            self.told.append(f"{knob.name.replace('_', ' ')} {word}")
        return before

    def _ask_optional(self, knob: Knob) -> str | None:
        try:
            return self.dialog.ask(knob.ask)
        except (NoReply, BadReply):
            if not knob.optional:
                raise
            self.dialog.lose_step()
            self._empty_errors()
            return None

    def _tell_checked(self, command: str) -> None:
        self.dialog.tell(command)
        if self.description.ask_error:
            reply = self.dialog.ask(self.description.ask_error)
            if not re.match(self.description.no_error, reply):
                raise Unavailable(
                    f"{self.description.title} refuses {command!r}: {reply[:80]}",
                    "look the error up in the meter's manual; while it integrates it takes few settings",
                )

    def _empty_errors(self) -> None:
        if not self.description.ask_error:
            self.dialog.ask(self.description.identify)  # all before it has been understood
            return
        for _ in range(MOST_ERRORS):
            if re.match(self.description.no_error, self.dialog.ask(self.description.ask_error)):
                return

    def _learn_period(self) -> None:
        knob = self.description.knob("rate")
        if knob is None:
            return
        reply = self._ask_optional(knob) or "unknown"
        try:
            seconds = float(reply)
        except ValueError:
            seconds = 0.0
        if 0 < seconds < 3600:
            self.period_s = seconds
        elif self.description.period_s is None:
            self.period_s = None
            self.notes.append(
                Unavailable(f"its update rate is {reply!r}: how long a reading averages is not known", "set its rate")
            )

    def _arm(self) -> None:
        fresh = self.description.freshness
        if fresh is None:
            return
        try:
            for command in fresh.arm:
                self.dialog.tell(command)
            reader = Reader(self.dialog, self.description, None)
            if fresh.ask_updated:
                reader.has_update()
            reader.read()
        except (NoReply, BadReply) as error:
            if not fresh.optional:
                raise
            self.dialog.lose_step()
            self.drop_freshness(f"it does not tell when it has a new value ({error})")
            self._empty_errors()

    # Ranges

    def _settle_ranges(self, ranges: Ranges, settings: MeterSettings) -> None:
        if settings.probe_s and (not ranges.set_volts or self.description.stream is not None):
            raise Unavailable(f"this driver cannot find ranges of {self.description.title}", "leave probe_s out")
        if settings.probe_s:
            self._probe(ranges, settings.probe_s)
        else:
            self._set_range(ranges, "volts", settings.volts)
            self._set_range(ranges, "amperes", settings.amperes)
        self.range_volts = self._present(ranges.ask_volts, ranges.ask_auto_volts)
        self.range_amperes = self._present(ranges.ask_amperes, ranges.ask_auto_amperes)
        if not ranges.ask_volts and settings.volts not in ("", "auto"):
            self.range_volts = next_range(ranges.volts, float(settings.volts))
        if not ranges.ask_amperes and settings.amperes not in ("", "auto"):
            self.range_amperes = next_range(ranges.amperes, float(settings.amperes))
        for value, unit, name in ((self.range_volts, "V", "voltage"), (self.range_amperes, "A", "current")):
            self.told.append(f"{name} range {value:g} {unit}" if value is not None else f"{name} range not fixed")
        if self.range_watts is None:
            reason = (
                "a range is automatic, or not known: no value comes while it changes, and MLPerf accepts no such run"
            )
            if self.description.specification is not None:
                reason += "; U allows for the highest range"
            fix = "fix both: volts=HIGHEST and amps=HIGHEST of the load, or probe_s=SECONDS under load"
            self.notes.append(Unavailable(reason, fix if ranges.set_volts else "set them on the meter"))

    def _set_range(self, ranges: Ranges, kind: str, wanted: str) -> None:
        if not wanted:
            return
        volts = kind == "volts"
        table = ranges.volts if volts else ranges.amperes
        ask, command = (ranges.ask_volts, ranges.set_volts) if volts else (ranges.ask_amperes, ranges.set_amperes)
        auto = Knob(
            name="",
            ask=ranges.ask_auto_volts if volts else ranges.ask_auto_amperes,
            set=ranges.set_auto_volts if volts else ranges.set_auto_amperes,
        )
        if not command:
            return
        self._kept.keep(ask, [command.replace("{value}", self.dialog.ask(ask))])
        if auto.ask:
            self._kept.keep(auto.ask, [auto.set.replace("{value}", self.dialog.ask(auto.ask))])
        if wanted == "auto":
            if not auto.set:
                raise Unavailable(f"this driver knows no automatic {kind} range", "give the highest of the load")
            self._tell_checked(auto.set.replace("{value}", ranges.on))
            return
        chosen = next_range(table, float(wanted))
        if chosen is None:
            raise Unavailable(
                f"{self.description.title} has no range of {wanted} {kind}; its highest is {table[-1]:g}",
                "measure each supply by itself, or take a meter that measures more",
            )
        if auto.set:
            self._tell_checked(auto.set.replace("{value}", ranges.off))
        self._tell_checked(command.replace("{value}", f"{chosen:g}"))
        answer = self.dialog.ask(ask)
        if not _same(f"{chosen:g}", answer):
            raise Unavailable(
                f"{self.description.title} was told the range {chosen:g} {kind} and answers {answer!r}",
                "look at the crest factor and the wiring that the meter is set to",
            )

    def _present(self, ask: str, ask_auto: str) -> float | None:
        if ask_auto and self.dialog.ask(ask_auto).strip().upper() not in _OFF:
            return None
        try:
            return float(self.dialog.ask(ask)) if ask else None
        except ValueError:
            return None

    def _probe(self, ranges: Ranges, seconds: float) -> None:
        """Look at the load for a while on automatic ranges, then take the lowest that do not clip."""
        for kind in ("volts", "amperes"):
            self._set_range(ranges, kind, "auto")
        for command in self.description.select:
            self._tell_checked(command)
        highest = self._highest(seconds)
        volts, amperes = ranges_for(ranges.volts, ranges.amperes, highest["volts"], highest["amperes"])
        if not highest["volts"] or volts is None or amperes is None:
            raise Unavailable(
                f"the probe saw at most {highest['volts']:g} V and {highest['amperes']:g} A: no range of the meter "
                "is made for that",
                "switch the load on while probing, or give volts and amps",
            )
        while True:
            self._set_range(ranges, "volts", f"{volts:g}")
            self._set_range(ranges, "amperes", f"{amperes:g}")
            clipped = self._clipped(max(3 * (self.period_s or 1.0), 1.0))
            if not clipped:
                return
            higher_volts, higher_amperes = range_above(ranges.volts, volts), range_above(ranges.amperes, amperes)
            if "amperes" in clipped and higher_amperes is not None:
                amperes = higher_amperes
            elif "volts" in clipped and higher_volts is not None:
                volts = higher_volts
            else:
                raise Unavailable("the load clips in the highest ranges", "measure each supply by itself")

    def _highest(self, seconds: float) -> dict[str, float]:
        found = {"volts": 0.0, "amperes": 0.0}
        for values in self._watch(seconds):
            for item, value in zip(self.description.items, values, strict=True):
                if item.quantity in found and value.status == Status.NEW:
                    found[item.quantity] = max(found[item.quantity], abs(value.value))
        return found

    def _clipped(self, seconds: float) -> set[str]:
        last: set[str] = set()
        for values in self._watch(seconds):
            last = {
                item.quantity
                for item, value in zip(self.description.items, values, strict=True)
                if value.status == Status.OVER_RANGE
            }
        return last

    def _watch(self, seconds: float) -> list[list[Value]]:
        """Readings over some time; those that fail are left out."""
        reader = Reader(self.dialog, self.description, None)
        found = []
        end_s = time.monotonic() + seconds
        while True:
            with suppress(NoReply, BadReply):
                found.append(reader.read()[0])
            if time.monotonic() >= end_s:
                return found
            time.sleep(min(0.1, max(end_s - time.monotonic(), 0.0)))

    # Integration

    def _check_no_integration(self, settings: MeterSettings) -> None:
        integrator = self.description.integrator
        if integrator is None or not integrator.ask_state:
            return
        state = self.dialog.ask(integrator.ask_state)
        if re.fullmatch(integrator.idle, state):
            return
        if settings.integrate or settings.knobs or settings.volts or settings.amperes or settings.probe_s:
            raise Unavailable(
                f"an integration is under way on the meter, or its result is held ({state}); settings are refused then",
                "stop it and reset it on the meter, or leave the settings out",
            )
        self.notes.append(
            Unavailable(f"an integration of somebody else is under way on the meter ({state})", "it is left alone")
        )

    def _integrate(self) -> None:
        integrator = self.description.integrator
        assert integrator is not None
        self._kept.keep(_INTEGRATION, [*integrator.stop, *integrator.reset])
        for command in (*integrator.reset, *integrator.start):
            self._tell_checked(command)


def _plain(answer: str) -> str:
    try:
        return f"{float(answer):g}"
    except ValueError:
        return answer


def _same(sent: str, answer: str) -> bool:
    """Whether a meter's answer means what it was told."""
    sent, answer = sent.strip().upper(), answer.strip().strip('"').upper()
    if sent == answer or (sent in _ON and answer in _ON) or (sent in _OFF and answer in _OFF):
        return True
    try:
        return abs(float(sent) - float(answer)) <= 1e-3 * abs(float(sent))
    except ValueError:
        return len(sent) > 2 and len(answer) > 2 and (sent.startswith(answer) or answer.startswith(sent))
