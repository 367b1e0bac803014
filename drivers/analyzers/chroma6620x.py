"""Driver `chroma6620x`: Chroma 66201, 66202, 66203, 66204 and 66205.

Ranges go by words. Those of the 66202 and its shunts are of a published program for it (github.com/yarda/chroma66202),
those of the 66205 of PyMeasure's driver (pymeasure.instruments.chroma); the maker's manual of the 66200 series asks for
them likewise (`VOLT:RANG?` is answered `AUTO` there). docs/devices/chroma-6620x.md tells what is not confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from msgspec.structs import replace

from drivers.analyzer_uncertainty import Specification
from drivers.analyzers.description import Description, Freshness, Item, Knob, Ranges
from drivers.analyzers.driver import AnalyzerDriver
from drivers.analyzers.wt_tree import setting

_OVER_VOLTS, _OVER_AMPERES, _PROTECTED = 1, 2, 4
_LOW_SHUNT = {"A001": 0.01, "A01": 0.1, "A04": 0.4, "A2L": 2.0}
_HIGH_SHUNT = {"A02": 0.2, "A2H": 2.0, "A8": 8.0, "A20": 20.0}
_VOLTS = {f"V{volts}": float(volts) for volts in (15, 30, 60, 150, 300, 500, 600)}
_AMPERES = {
    "66201": _LOW_SHUNT,
    "66202": {**_LOW_SHUNT, **_HIGH_SHUNT},
    "66205": {"A0005": 0.005, "A002": 0.02, "A005": 0.05, "A02": 0.2, "A03": 0.3, "A05": 0.5}
    | {"A2": 2.0, "A5": 5.0, "A20": 20.0, "A30": 30.0},
}
_HIGHEST = Ranges(volts=(600.0,), amperes=(30.0,))  # of the 66203 and 66204, whose ranges are not known: none is higher
_OF_SHUNT: Mapping[str, Mapping[str, float]] = {"low": _LOW_SHUNT, "high": _HIGH_SHUNT}
_SHUNTS = {"auto": "AUTO", "low": "LOW", "high": "HIGH"}


class Chroma6620xDriver(AnalyzerDriver):
    """The channel that the meter has selected."""

    name: ClassVar[str] = "chroma6620x"

    @classmethod
    def draft(cls, settings: Mapping[str, str]) -> Description:
        return Description(
            title="Chroma 6620x",
            identity=r"(?i:CHROMA).*,\s*6620\d",
            knobs=(
                setting("SYST:HEAD", always="OFF", optional=True),
                setting("SYST:TRAN:SEP", always="0", optional=True),  # commas
                setting("MEAS:WIND", "rate", optional=True),
                setting("CURR:SHUN", "shunt", words=_SHUNTS, optional=True),
            ),
            read="FETC? V,I,W,PF",
            number=r"[+-]?\d+(\.\d+)?(E[+-]\d{2})?",
            missing=r"-1(\.0+)?",  # not measured yet
            over=r"-[23](\.0+)?",  # the range changed, or a limit was passed
            items=(
                Item(quantity="volts", over=_OVER_VOLTS),
                Item(quantity="amperes", over=_OVER_AMPERES | _PROTECTED),
                Item(quantity="watts", over=_OVER_VOLTS | _OVER_AMPERES | _PROTECTED),
                Item(quantity="power_factor"),
            ),
            period_s=0.5,
            ranges=_HIGHEST,
            freshness=Freshness(ask_condition="STAT:CHAN:COND?", optional=True),
            specification=Specification(
                reading=0.001, range=0.001, phase=0.002, source="Chroma 66202, 47–63 Hz; not confirmed"
            ),
        )

    @classmethod
    def describe(cls, identity: str, draft: Description, settings: Mapping[str, str]) -> Description:
        """Ranges, and what a reading averages over, as the model has them."""
        model = identity.split(",")[1].strip()
        head, separator, window, shunt = draft.knobs
        windowed: tuple[Knob, ...] = ()
        volts = {word: value for word, value in _VOLTS.items() if value in (150.0, 300.0, 500.0)}
        if model in ("66201", "66202"):  # else it averages over a number of readings
            windowed = (setting("MEAS:MODE", always="WINDOW", optional=True), window)
        elif model == "66205":
            windowed = (setting("MEAS:UPD", "rate", optional=True),)
            volts = {word: value for word, value in _VOLTS.items() if value != 500.0}
        words = _AMPERES.get(model, {})
        chosen = _OF_SHUNT.get(settings.get("shunt", "").lower(), words) if model == "66202" else words
        return replace(
            draft,
            title=f"Chroma {model}",
            knobs=(head, separator, *windowed, *((shunt,) if model == "66202" else ())),
            ranges=_ranges(volts, chosen, words) if words else _read_only(),
        )


def _ranges(volts: Mapping[str, float], chosen: Mapping[str, float], amperes: Mapping[str, float]) -> Ranges:
    """Current ranges are taken from `chosen`; those of the other shunt are understood, too."""
    return Ranges(
        volts=tuple(sorted(volts.values())),
        amperes=tuple(sorted(set(chosen.values()))),
        volt_words=dict(volts),
        ampere_words={**chosen, **amperes},
        ask_volts="VOLT:RANG?",
        set_volts="VOLT:RANG {value}",
        ask_amperes="CURR:RANG?",
        set_amperes="CURR:RANG {value}",
        automatic="AUTO",
        optional=True,
    )


def _read_only() -> Ranges:
    """Of a meter whose ranges are not known: what it says is understood, as all models write it."""
    amperes = {word: value for words in _AMPERES.values() for word, value in words.items()}
    return replace(
        _HIGHEST,
        volt_words=_VOLTS,
        ampere_words=amperes,
        ask_volts="VOLT:RANG?",
        ask_amperes="CURR:RANG?",
        automatic="AUTO",
        optional=True,
    )
