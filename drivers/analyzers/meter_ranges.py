"""A meter's ranges of voltage and current: asked for, set, checked, and noted as they were before."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from drivers.analyzer_ranges import CURRENT_MARGIN, next_range, range_for_seen
from drivers.analyzers.commands import Commands, is_off, same
from drivers.analyzers.description import Ranges
from drivers.analyzers.kept_settings import KeptSettings
from drivers.contract import Unavailable

Kind = Literal["volts", "amperes"]
KINDS: tuple[Kind, ...] = ("volts", "amperes")
_UNITS: Mapping[Kind, tuple[str, str]] = {"volts": ("voltage", "V"), "amperes": ("current", "A")}
_EQUAL = 1e-3  # of a range: as its number may be rounded on its way


class _Lane(NamedTuple):
    """How one element's range of one kind is spoken of."""

    ask: str
    set: str
    ask_auto: str
    set_auto: str


class MeterRanges:
    """Those of one meter. All elements are set alike."""

    def __init__(self, commands: Commands, kept: KeptSettings, ranges: Ranges) -> None:
        """Nothing is asked yet."""
        self.ranges = ranges
        # None: unknown, or chosen by the meter as it goes
        self.present: dict[Kind, float | None] = dict.fromkeys(KINDS)
        self._commands = commands
        self._kept = kept

    def is_silent(self) -> bool:
        """Whether the meter does not answer the questions, and need not: then nothing is asked and set from here on.

        Raises:
            LinkLost, NoReply, BadReply: see there.
        """
        if not self.ranges.optional or all(self._answers(kind) for kind in KINDS):
            return False
        nothing = {f"{verb}_{kind}": "" for verb in ("ask", "set", "ask_auto", "set_auto") for kind in KINDS}
        self.ranges = msgspec.structs.replace(self.ranges, **nothing)
        return True

    def for_seen(self, seen: Mapping[Kind, float | None]) -> dict[Kind, str]:
        """Which ranges to set for what a ranging stage saw at most: the lowest that have room for it.

        Empty where nothing was seen, or where this meter is set by hand: nobody knows then that it was.
        """
        wanted: dict[Kind, str] = {}
        for kind, margin in zip(KINDS, (1.0, CURRENT_MARGIN), strict=True):
            most = seen[kind]
            wanted[kind] = ""
            if most and all(lane.set for lane in self._lanes(kind)):
                wanted[kind] = f"{range_for_seen(self._table(kind), most, margin):g}"
        return wanted

    def settle(self, wanted: Mapping[Kind, str]) -> None:
        """Set what is wanted (a number, "auto", or empty for as it is), and learn what is set then.

        Raises:
            Unavailable: the meter refuses, or has no such range.
            LinkLost, NoReply, BadReply: see there.
        """
        for kind in KINDS:
            self.set(kind, wanted[kind])
        for kind in KINDS:
            self.present[kind] = self._present(kind, wanted[kind])

    def set(self, kind: Kind, wanted: str) -> None:
        """Set one range of all elements, and check that it is so. A meter without such commands is left alone.

        Raises:
            Unavailable, LinkLost, NoReply, BadReply: as `settle`.
        """
        if not wanted:
            return
        chosen = None if wanted == "auto" else self._chosen(kind, wanted)
        for lane in self._lanes(kind):
            if not lane.set:
                continue
            self._keep(kind, lane)
            if chosen is None:
                self._set_automatic(kind, lane)
            else:
                self._set_fixed(kind, lane, chosen)

    def told(self) -> Iterator[str]:
        """The ranges in words, for the record."""
        for kind in KINDS:
            name, unit = _UNITS[kind]
            present = self.present[kind]
            yield f"{name} range {present:g} {unit}" if present is not None else f"{name} range not fixed"

    def _lanes(self, kind: Kind) -> Iterator[_Lane]:
        ranges = self.ranges
        commands = (
            (ranges.ask_volts, ranges.set_volts, ranges.ask_auto_volts, ranges.set_auto_volts)
            if kind == "volts"
            else (ranges.ask_amperes, ranges.set_amperes, ranges.ask_auto_amperes, ranges.set_auto_amperes)
        )
        for element in ranges.elements:
            yield _Lane(*(command.replace("{element}", element) for command in commands))

    def _table(self, kind: Kind) -> tuple[float, ...]:
        return self.ranges.volts if kind == "volts" else self.ranges.amperes

    def _words(self, kind: Kind) -> Mapping[str, float]:
        return self.ranges.volt_words if kind == "volts" else self.ranges.ampere_words

    def _chosen(self, kind: Kind, wanted: str) -> float:
        chosen = next_range(self._table(kind), float(wanted))
        if chosen is None:
            raise Unavailable(
                f"{self._commands.title} has no range of {wanted} {kind}; its highest is {self._table(kind)[-1]:g}",
                "measure each supply by itself, or take a meter that measures more",
            )
        return chosen

    # Asking

    def _answers(self, kind: Kind) -> bool:
        return all(
            self._commands.ask_optional(question, True) is not None
            for lane in self._lanes(kind)
            for question in (lane.ask, lane.ask_auto)
            if question
        )

    def _present(self, kind: Kind, wanted: str) -> float | None:
        found = []
        for lane in self._lanes(kind):
            if not lane.ask:
                return self._chosen(kind, wanted) if wanted not in ("", "auto") else None
            if lane.ask_auto and not self._is_fixed(self._commands.dialog.ask(lane.ask_auto)):
                return None
            values = range_values(self._commands.dialog.ask(lane.ask), self._words(kind))
            if not values:
                return None
            found += values
        if (
            not any(lane.set for lane in self._lanes(kind))
            and wanted not in ("", "auto")
            and min(found) < float(wanted)
        ):
            raise Unavailable(
                f"{self._commands.title} is set to a range of {min(found):g} {kind}, and the load has {wanted}",
                "set a higher one on the meter: this driver cannot",
            )
        return max(found)

    def _is_fixed(self, answer: str) -> bool:
        return all(is_off(part) or same(self.ranges.off, part) for part in parts_of(answer))

    # Setting

    def _keep(self, kind: Kind, lane: _Lane) -> None:
        """Note how to put a range back: first the range, then whether the meter chooses it."""
        answer = self._commands.dialog.ask(lane.ask)
        before = parts_of(answer)
        if any(part != before[0] for part in before):
            raise Unavailable(
                f"{self._commands.title} is set to several ranges of {_UNITS[kind][0]} ({answer[:60]}), "
                "which could not be put back",
                f"set all channels to one range on the meter, or leave {'volts' if kind == 'volts' else 'amps'} out",
            )
        self._kept.keep(lane.ask, [lane.set.replace("{value}", before[0])])
        if lane.ask_auto:
            automatic = parts_of(self._commands.dialog.ask(lane.ask_auto))[0]
            self._kept.keep(lane.ask_auto, [lane.set_auto.replace("{value}", automatic)])

    def _set_automatic(self, kind: Kind, lane: _Lane) -> None:
        ranges = self.ranges
        if ranges.automatic:
            self._commands.tell(lane.set.replace("{value}", ranges.automatic))
            answer = self._commands.dialog.ask(lane.ask)
            is_so = all(same(ranges.automatic, part) for part in parts_of(answer))
        elif lane.set_auto:
            self._commands.tell(lane.set_auto.replace("{value}", ranges.on))
            answer = self._commands.dialog.ask(lane.ask_auto)
            is_so = not self._is_fixed(answer)
        else:
            raise Unavailable(f"this driver knows no automatic {kind} range", "give the highest of the load")
        if not is_so:
            raise Unavailable(
                f"{self._commands.title} was told to choose its {kind} range by itself and answers {answer!r}",
                "give the highest of the load",
            )

    def _set_fixed(self, kind: Kind, lane: _Lane, chosen: float) -> None:
        words = self._words(kind)
        word = next((word for word, value in words.items() if value == chosen), f"{chosen:g}")
        if lane.set_auto:
            self._commands.tell(lane.set_auto.replace("{value}", self.ranges.off))
        self._commands.tell(lane.set.replace("{value}", word))
        answer = self._commands.dialog.ask(lane.ask)
        values = range_values(answer, words)
        if not values or any(abs(value - chosen) > _EQUAL * chosen for value in values):
            raise Unavailable(
                f"{self._commands.title} was told the range {chosen:g} {kind} and answers {answer!r}",
                "look at the crest factor, the wiring and the shunt that the meter is set to",
            )


def range_values(answer: str, words: Mapping[str, float]) -> list[float]:
    """The ranges in an answer, one or one of each channel; none where one of them is no range."""
    found = []
    for part in parts_of(answer):
        value = words.get(part.upper())
        if value is None:
            try:
                value = float(part) if not words else math.nan
            except ValueError:
                value = math.nan
        if not 0 < value < math.inf:
            return []
        found.append(value)
    return found


def parts_of(answer: str) -> list[str]:
    """What an answer says of each channel, without the headers that the later ones may have."""
    return [part.strip().rpartition(" ")[2].strip('"') for part in re.split("[;,]", answer)]
