"""A meter that was found: identified, set as the user wishes, checked, and put back."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import msgspec

from drivers.analyzer_ranges import range_above, ranges_for
from drivers.analyzers.commands import Commands, is_off, same
from drivers.analyzers.description import Description, Freshness, Knob
from drivers.analyzers.dialog import Dialog
from drivers.analyzers.kept_settings import KeptSettings
from drivers.analyzers.meter_ranges import KINDS, Kind, MeterRanges
from drivers.analyzers.reading import Reader
from drivers.analyzers.replies import BadReply, Value
from drivers.analyzers.settings import MeterSettings
from drivers.contract import Status, Unavailable
from drivers.line_port import NoReply
from drivers.links import LinkLost

_INTEGRATION = "integration"
_PROBED: dict[
    tuple[str, str], dict[Kind, str]
] = {}  # in this process, by identity and place: ranges that a probe found


class Meter:
    """Its settings, and the record of what they were before."""

    def __init__(self, dialog: Dialog, description: Description) -> None:
        self.dialog = dialog
        self.description = description
        self.notes: list[Unavailable] = []
        self.period_s = description.period_s
        self.told: list[str] = []  # settings in words, for the record
        self._commands = Commands(dialog, description)
        self._kept = KeptSettings(dialog.identity)
        self._ranges: MeterRanges | None = None

    @property
    def range_watts(self) -> float | None:
        """Vr·Ar of one element, where both are known and fixed; of several, of that with the highest ranges."""
        if self._ranges is None:
            return None
        volts, amperes = (self._ranges.present[kind] for kind in KINDS)
        return volts * amperes if volts is not None and amperes is not None else None

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
        self._commands.empty_errors()
        if self._kept.inherited and (error := self.put_back()):
            reason = f"it refused to be put back as it was before an earlier session, which was cut off: {error}"
            self.notes.append(Unavailable(reason, "look at the meter's settings"))
        self._check_no_integration(settings)
        answers = {}
        for knob in self.description.knobs:
            answers[knob.name] = self._turn(knob, settings.knobs.get(knob.name, "") or knob.always)
        self._adapt(answers)
        self._learn_period()
        self._settle_ranges(settings)
        for command in self.description.select:
            self._commands.tell(command)
        self._arm()
        if settings.integrate:
            self._integrate()
        if self.description.stream is not None:
            for command in self.description.stream.start:
                self.dialog.tell(command)

    def put_back(self) -> str:
        """Set everything as it was found. Return what the meter says against it, if it does.

        Raises:
            LinkLost, NoReply, BadReply: the line failed; what is to be put back stays on record.
        """
        for what in sorted(self._kept.commands, key=lambda what: what != _INTEGRATION):
            for command in self._kept.commands[what]:
                self.dialog.tell(command)
        error = self._commands.empty_errors()  # its answer says that all of it has arrived
        self._kept.forget()
        return error

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

    def _drop_freshness(self, fresh: Freshness, error: Exception) -> None:
        """Go on without the meter's word on what is new, or clipped."""
        self.description = msgspec.structs.replace(self.description, freshness=None)
        reason = f"it does not tell when it has a new value ({error}): a reading may be as old as one update"
        fix = "nothing to do: U allows for it"
        if not fresh.ask_updated:
            reason = f"it does not answer {fresh.ask_condition!r} ({error}): that it clips is seen in its values alone"
            fix = "nothing to do"
        self.notes.append(Unavailable(reason, fix))

    # Settings

    def _adapt(self, answers: dict[str, str]) -> None:
        """Let ranges and specification be those of the mode, crest factor, line filter and rate that are set."""
        specification, ranges = self.description.specification, self.description.ranges
        if specification is not None and answers.get("mode", "").upper().startswith("DC"):
            if specification.dc_range is None:
                reason = f"no limits of {self.description.title} in DC are known: U leaves the meter's own error out"
                self.notes.append(Unavailable(reason, "measure with mode=rms"))
                specification = None
            else:
                specification = msgspec.structs.replace(specification, range=specification.dc_range, phase=0.0)
        if ranges is not None and answers.get("crest_factor") in ranges.halving_crest_factors:
            volts, amperes = ([each / 2 for each in table] for table in (ranges.volts, ranges.amperes))
            ranges = msgspec.structs.replace(ranges, volts=tuple(volts), amperes=tuple(amperes))
            if specification is not None:
                specification = msgspec.structs.replace(specification, range=2 * specification.range)
        if specification is not None:
            reading = specification.reading
            reading += specification.line_filter * (not is_off(answers.get("line_filter") or "OFF"))
            reading += specification.fast_rate * _is_fast(answers.get("rate", ""))
            specification = msgspec.structs.replace(specification, reading=reading)
        self.description = msgspec.structs.replace(self.description, specification=specification, ranges=ranges)
        self._adapt_sum(answers.get("wiring", ""))

    def _adapt_sum(self, wiring: str) -> None:
        """Let the meter's own sum be that of the wiring that is set."""
        of = next((of for word, of in self.description.sigma_of.items() if same(word, wiring)), ())
        items = [
            msgspec.structs.replace(item, sum_of=of) if item.quantity == "watts" and item.element == 0 and of else item
            for item in self.description.items
        ]
        self.description = msgspec.structs.replace(self.description, items=tuple(items))
        read = tuple(item.element for item in items if item.quantity == "watts" and item.element)
        if of and of != read:
            own, ours = (" + ".join(f"P{element}" for element in elements) for elements in (of, read))
            reason = f"by the wiring that is set ({wiring}) the meter's own Σ is {own}; power is given as {ours}"
            fix = "set wiring=3p4w where each element measures a supply by itself; for a three-wire load, elements=1,3"
            self.notes.append(Unavailable(reason, fix))

    def _turn(self, knob: Knob, wanted: str) -> str:
        """Keep a setting, change it if that is wanted, and return what it is; empty: not known."""
        before = self._commands.ask_optional(knob.ask, knob.optional)
        if before is None:
            if wanted and wanted != knob.always:
                raise Unavailable(
                    f"{self.description.title} does not answer {knob.ask!r}", f"leave the setting {knob.name} out"
                )
            if wanted:  # it must be so, and may be: nobody can tell
                self._commands.tell(knob.set.replace("{value}", wanted))
            return ""
        if not wanted and not knob.name:  # what `select` and the like change
            self._kept.keep(knob.ask, [knob.set.replace("{value}", before)])
        elif wanted and not same(wanted, before):
            self._kept.keep(knob.ask, [knob.set.replace("{value}", before)])
            self._commands.tell(knob.set.replace("{value}", wanted))
            before = self.dialog.ask(knob.ask)
            if not same(wanted, before):
                raise Unavailable(
                    f"{self.description.title} was told {knob.set.replace('{value}', wanted)!r} and answers {before!r}",
                    "look whether the meter offers that value, or leave the setting out",
                )
        if knob.name:
            word = next((word for word, sent in knob.words.items() if same(sent, before)), _plain(before))
            self.told.append(f"{knob.name.replace('_', ' ')} {word}")
        return before

    def _learn_period(self) -> None:
        knob = self.description.knob("rate")
        if knob is None:
            return
        reply = self._commands.ask_optional(knob.ask, knob.optional) or "unknown"
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
            self._drop_freshness(fresh, error)
            self._commands.empty_errors()

    # Ranges

    def _settle_ranges(self, settings: MeterSettings) -> None:
        ranges = self.description.ranges
        if ranges is None:
            return
        self._ranges = found = MeterRanges(self._commands, self._kept, ranges)
        if settings.probe_s and (not ranges.set_volts or self.description.stream is not None):
            raise Unavailable(f"this driver cannot find ranges of {self.description.title}", "leave probe_s out")
        if found.is_silent():
            reason = f"{self.description.title} does not answer what its ranges are: they are neither set nor checked"
            fix = "fix them on the meter, and tell them as volts and amps"
            if settings.probe_s:
                raise Unavailable(reason, f"{fix} instead of probe_s")
            self.notes.append(Unavailable(reason, fix))
        seen = found.for_seen({"volts": settings.volts_seen, "amperes": settings.amperes_seen})
        wanted: dict[Kind, str] = {
            "volts": settings.volts or seen["volts"],
            "amperes": settings.amperes or seen["amperes"],
        }
        if settings.probe_s:
            key = (self.dialog.identity, self.dialog.port.place)
            if key not in _PROBED:  # else it was lost and is opened again: its channels speak of the ranges found first
                _PROBED[key] = self._probe(found, settings.probe_s)
            wanted = _PROBED[key]
        found.settle(wanted)
        self.told += found.told()
        if self.range_watts is None:
            reason = (
                "a range is automatic, or not known: no value comes while it changes, and MLPerf accepts no such run"
            )
            if self.description.specification is not None:
                reason += "; U allows for the highest range"
            fix = "fix both: volts=HIGHEST and amps=HIGHEST of the load"
            if self.description.stream is None:
                fix += ", or probe_s=SECONDS under load"
            self.notes.append(Unavailable(reason, fix if found.ranges.set_volts else "set them on the meter"))

    def _probe(self, found: MeterRanges, seconds: float) -> dict[Kind, str]:
        """Look at the load for a while on automatic ranges, then take the lowest that do not clip."""
        for kind in KINDS:
            found.set(kind, "auto")
        for command in self.description.select:
            self._commands.tell(command)
        highest = self._highest(seconds)
        tables = {"volts": found.ranges.volts, "amperes": found.ranges.amperes}
        volts, amperes = ranges_for(tables["volts"], tables["amperes"], highest["volts"], highest["amperes"])
        if not highest["volts"] or volts is None or amperes is None:
            raise Unavailable(
                f"the probe saw at most {highest['volts']:g} V and {highest['amperes']:g} A: no range of the meter "
                "is made for that",
                "switch the load on while probing, or give volts and amps",
            )
        chosen: dict[Kind, float] = {"volts": volts, "amperes": amperes}
        while True:
            for kind in KINDS:
                found.set(kind, f"{chosen[kind]:g}")
            clipped = self._clipped(max(3 * (self.period_s or 1.0), 1.0))
            if not clipped:
                return {kind: f"{chosen[kind]:g}" for kind in KINDS}
            for kind in ("amperes", "volts"):  # power clips with either: the current is the likelier one
                higher = range_above(tables[kind], chosen[kind])
                if kind in clipped and higher is not None:
                    chosen[kind] = higher
                    break
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
        """What clips at any time; what the meter shows of the range before is not counted."""
        self._watch(2 * (self.period_s or 0.0))
        return {
            item.quantity
            for values in self._watch(seconds)
            for item, value in zip(self.description.items, values, strict=True)
            if value.status == Status.OVER_RANGE
        }

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
        state = self._commands.ask_optional(integrator.ask_state, integrator.optional)
        if state is None or re.fullmatch(integrator.idle, state):
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
            self._commands.tell(command)


def _plain(answer: str) -> str:
    try:
        return f"{float(answer):g}"
    except ValueError:
        return answer


def _is_fast(rate: str) -> bool:
    """Whether a meter's answer says that it updates every 0.1 s, or as it likes; not known is neither."""
    try:
        return float(rate) <= 0.1
    except ValueError:
        return bool(rate)
