"""Drivers `wt210`, `wt310e` and `wt330e`: Yokogawa power meters, as their interface manuals describe them.

Dialogs and uncertainty formula were checked against published logs of PTDaemon; see docs/devices/yokogawa.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from msgspec.structs import replace

from drivers.analyzer_ranges import AMPERES, SMALL_AMPERES, VOLTS
from drivers.analyzer_uncertainty import WT210, WT300
from drivers.analyzers.description import Description, Freshness, Integrator, Item, ItemQuantity, Knob, Ranges
from drivers.analyzers.driver import AnalyzerDriver
from drivers.contract import Unavailable

LARGE_AMPERES = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)
_NUMBER = r"[+-]?\d+\.\d+E[+-]\d{2}"
_SWITCH = {"on": "ON", "off": "OFF"}
_FUNCTIONS: dict[ItemQuantity, str] = {"volts": "U", "amperes": "I", "watts": "P", "power_factor": "LAMB"}
_WT210_ITEMS = (
    *("V", "A", "W", "VA", "VAR", "PF", "DEGR", "VHZ", "AHZ", "WH", "WHP", "WHM", "AH", "AHP", "AHM"),
    *("MATH", "VPK", "APK", "TIME"),
)
_WT210_READ: dict[str, ItemQuantity] = {
    "V": "volts", "A": "amperes", "W": "watts", "PF": "power_factor", "WH": "watt_hours"
}  # fmt: skip


def over_bits(quantity: ItemQuantity, element: int) -> int:
    """Bits of the condition that spoil a quantity: OVR of the element, POV for its voltage, POA for its current."""
    first = 6 + 3 * (element - 1)
    over, peak_volts, peak_amperes = 1 << first, 1 << first + 1, 1 << first + 2
    if quantity == "volts":
        return over | peak_volts
    return over | peak_amperes if quantity == "amperes" else over | peak_volts | peak_amperes


def _freshness() -> Freshness:
    return Freshness(
        arm=(":STAT:FILT1 FALL",),  # bit 0 of the condition falls when an update is complete
        ask_updated=":STAT:EESR?",
        updated=1,
        ask_condition=":STAT:COND?",
    )


def _integrator(idle: str) -> Integrator:
    return Integrator(
        reset=(":INTEG:RES",),
        start=(":INTEG:STAR",),
        stop=(":INTEG:STOP",),
        ask_state=":INTEG:STAT?" if idle else "",
        idle=idle,
    )


class Wt300Driver(AnalyzerDriver):
    """WT310, WT310E and their EH."""

    name: ClassVar[str] = "wt310e"
    own_settings: ClassVar[tuple[str, ...]] = ("elements",)
    family: ClassVar[str] = "WT310"
    all_elements: ClassVar[tuple[int, ...]] = (1,)

    @classmethod
    def draft(cls, settings: Mapping[str, str]) -> Description:
        elements = _elements(cls.name, settings, cls.all_elements)
        items = [
            Item(quantity=quantity, element=element if len(elements) > 1 else 0, over=over_bits(quantity, element))
            for element in elements
            for quantity in _FUNCTIONS
        ]
        functions = [f"{function},{element}" for element in elements for function in _FUNCTIONS.values()]
        if settings.get("integrate", "").lower() == "on":
            items += [Item(quantity="watt_hours", element=e if len(elements) > 1 else 0) for e in elements]
            functions += [f"WH,{element}" for element in elements]
        places = range(1, len(functions) + 1)
        return Description(
            title=f"Yokogawa {cls.family}",
            identity=rf"YOKOGAWA,{cls.family}",
            begin=(":COMM:HEAD OFF", ":COMM:REM ON"),
            end=(":COMM:REM OFF",),
            ask_error=":STAT:ERR?",
            knobs=(
                Knob(name="rate", ask=":RATE?", set=":RATE {value}"),
                Knob(
                    name="crest_factor",
                    ask=":INP:CFAC?",
                    set=":INP:CFAC {value}",
                    words={"3": "3", "6": "6", "6a": "A6"},
                ),
                Knob(
                    name="mode",
                    ask=":INP:MODE?",
                    set=":INP:MODE {value}",
                    words={"rms": "RMS", "vmean": "VMEAN", "dc": "DC"},
                ),
                Knob(
                    name="sync",
                    ask=":INP:SYNC?",
                    set=":INP:SYNC {value}",
                    words={"voltage": "VOLT", "current": "CURR", "off": "OFF"},
                ),
                Knob(name="line_filter", ask=":INP:FILT:LINE?", set=":INP:FILT:LINE {value}", words=_SWITCH),
                Knob(name="frequency_filter", ask=":INP:FILT:FREQ?", set=":INP:FILT:FREQ {value}", words=_SWITCH),
                Knob(name="", ask=":MEAS:AVER:STAT?", set=":MEAS:AVER:STAT {value}", always="OFF"),
                Knob(name="", ask=":MEAS:MHOL?", set=":MEAS:MHOL {value}", always="OFF"),
                Knob(name="", ask=":NUM:FORM?", set=":NUM:FORM {value}", always="ASC"),
                Knob(name="", ask=":STAT:FILT1?", set=":STAT:FILT1 {value}"),
                Knob(name="", ask=":NUM:NORM:NUM?", set=":NUM:NORM:NUM {value}"),
                *(Knob(name="", ask=f":NUM:NORM:ITEM{k}?", set=f":NUM:NORM:ITEM{k} {{value}}") for k in places),
            ),
            select=(
                f":NUM:NORM:NUM {len(functions)}",
                *(f":NUM:NORM:ITEM{k} {function}" for k, function in zip(places, functions, strict=True)),
            ),
            read=":NUM:NORM:VAL?",
            compound=True,
            number=_NUMBER,
            items=tuple(items),
            sums=len(elements) > 1,
            ranges=Ranges(
                volts=VOLTS,
                amperes=AMPERES if cls.family == "WT33" else (*SMALL_AMPERES, *AMPERES),
                ask_volts=":INP:VOLT:RANG?",
                set_volts=":INP:VOLT:RANG {value}",
                ask_amperes=":INP:CURR:RANG?",
                set_amperes=":INP:CURR:RANG {value}",
                ask_auto_volts=":INP:VOLT:AUTO?",
                set_auto_volts=":INP:VOLT:AUTO {value}",
                ask_auto_amperes=":INP:CURR:AUTO?",
                set_auto_amperes=":INP:CURR:AUTO {value}",
                halving_crest_factors=("6", "A6"),
            ),
            freshness=_freshness(),
            integrator=_integrator("RES.*"),
            specification=WT300,
        )

    @classmethod
    def describe(cls, identity: str, draft: Description, settings: Mapping[str, str]) -> Description:
        """Title and current ranges as the model has them."""
        model = identity.split(",")[1]
        described = replace(draft, title=f"Yokogawa {model}")
        if draft.ranges is not None and re.match(r"WT310E?H|WT310HC", model):
            described = replace(described, ranges=replace(draft.ranges, amperes=LARGE_AMPERES))
        if model.startswith("WT332") and 2 in (item.element for item in draft.items):
            raise Unavailable(f"{model} has the elements 1 and 3", f"set {cls.name}.elements=1,3")
        return described


class Wt330Driver(Wt300Driver):
    """WT332, WT333 and their E: several elements, added up."""

    name: ClassVar[str] = "wt330e"
    family: ClassVar[str] = "WT33"
    all_elements: ClassVar[tuple[int, ...]] = (1, 2, 3)


class Wt210Driver(AnalyzerDriver):
    """WT210, set to 488.2 mode."""

    name: ClassVar[str] = "wt210"

    @classmethod
    def draft(cls, settings: Mapping[str, str]) -> Description:
        integrates = settings.get("integrate", "").lower() == "on"
        chosen = [item for item in _WT210_READ if item != "WH" or integrates]  # in the order in which it replies
        return Description(
            title="Yokogawa WT210",
            identity=r"YOKOGAWA,(7604\d\d|WT210),",
            begin=(":COMM:HEAD OFF", ":COMM:REM ON"),
            end=(":COMM:REM OFF",),
            ask_error=":STAT:ERR?",
            knobs=(
                Knob(name="rate", ask=":SAMP:RATE?", set=":SAMP:RATE {value}"),
                Knob(name="crest_factor", ask=":CONF:CFAC?", set=":CONF:CFAC {value}", words={"3": "3", "6": "6"}),
                Knob(
                    name="mode",
                    ask=":CONF:MODE?",
                    set=":CONF:MODE {value}",
                    words={"rms": "RMS", "vmean": "VMEAN", "dc": "DC"},
                ),
                Knob(
                    name="sync",
                    ask=":CONF:SYNC?",
                    set=":CONF:SYNC {value}",
                    words={"voltage": "VOLT", "current": "CURR", "off": "OFF"},
                ),
                Knob(name="line_filter", ask=":CONF:LFIL?", set=":CONF:LFIL {value}", words=_SWITCH),
                Knob(name="frequency_filter", ask=":CONF:FILT?", set=":CONF:FILT {value}", words=_SWITCH),
                Knob(name="", ask=":CONF:AVER:STAT?", set=":CONF:AVER:STAT {value}", always="OFF"),
                Knob(name="", ask=":CONF:MHOL?", set=":CONF:MHOL {value}", always="OFF"),
                Knob(name="", ask=":STAT:FILT1?", set=":STAT:FILT1 {value}"),
                *(
                    Knob(
                        name="",
                        ask=f":MEAS:ITEM:{item}?",
                        set=f":MEAS:ITEM:{item} {{value}}",
                        always="ON" if item in chosen else "OFF",
                    )
                    for item in _WT210_ITEMS
                ),
            ),
            read=":MEAS:VAL?",
            compound=True,
            number=_NUMBER,
            missing=r"NAN|9\.91E\+37",
            over=r"[+-]?INF|[+-]?9\.90?E\+37",
            items=tuple(
                Item(quantity=quantity, over=over_bits(quantity, 1) if quantity != "watt_hours" else 0)
                for name, quantity in _WT210_READ.items()
                if name in chosen
            ),
            ranges=Ranges(
                volts=VOLTS,
                amperes=(*SMALL_AMPERES, *AMPERES),
                ask_volts=":CONF:VOLT:RANG?",
                set_volts=":CONF:VOLT:RANG {value}",
                ask_amperes=":CONF:CURR:RANG?",
                set_amperes=":CONF:CURR:RANG {value}",
                ask_auto_volts=":CONF:VOLT:AUTO?",
                set_auto_volts=":CONF:VOLT:AUTO {value}",
                ask_auto_amperes=":CONF:CURR:AUTO?",
                set_auto_amperes=":CONF:CURR:AUTO {value}",
                halving_crest_factors=("6",),
            ),
            freshness=_freshness(),
            integrator=_integrator(""),  # it cannot tell
            specification=WT210,
        )


def _elements(name: str, settings: Mapping[str, str], have: tuple[int, ...]) -> list[int]:
    text = settings.get("elements", "")
    if not text:
        return list(have)
    found = text.split(",")
    if len(set(found)) < len(found) or not all(part in map(str, have) for part in found):
        raise Unavailable(
            f"{name}.elements is {text!r}",
            f"give some of {','.join(map(str, have))}, such as {name}.elements={have[0]}",
        )
    return [int(part) for part in found]
