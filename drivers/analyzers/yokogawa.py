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
from drivers.analyzers.description import Description, Freshness, Integrator, Item, ItemQuantity
from drivers.analyzers.driver import AnalyzerDriver
from drivers.analyzers.settings import wants_integral
from drivers.analyzers.wt_tree import SWITCH, input_ranges, numeric_items, setting
from drivers.contract import Unavailable

LARGE_AMPERES = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)
_NUMBER = r"[+-]?\d+\.\d+E[+-]\d{2}"
_MODES = {"rms": "RMS", "vmean": "VMEAN", "dc": "DC"}
_SIGMA_OF: dict[str, tuple[int, ...]] = {"P1W3": (1, 3), "P3W3": (1, 3), "V3A3": (1, 3), "P3W4": (1, 2, 3)}
_WIRINGS = {"1p3w": "P1W3", "3p3w": "P3W3", "3v3a": "V3A3", "3p4w": "P3W4"}
_SYNC = {"voltage": "VOLT", "current": "CURR", "off": "OFF"}
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
        return cls._description(settings, elements, has_sigma=len(elements) == len(cls.all_elements) > 1)

    @classmethod
    def _description(cls, settings: Mapping[str, str], elements: list[int], *, has_sigma: bool) -> Description:
        items = [
            Item(quantity=quantity, element=element if len(elements) > 1 else 0, over=over_bits(quantity, element))
            for element in elements
            for quantity in _FUNCTIONS
        ]
        functions = [f"{function},{element}" for element in elements for function in _FUNCTIONS.values()]
        if has_sigma:
            items.append(Item(quantity="watts", over=sum(over_bits("watts", element) for element in elements)))
            functions.append("P,SIGMA")
        if wants_integral(settings):
            items += [Item(quantity="watt_hours", element=e if len(elements) > 1 else 0) for e in elements]
            functions += [f"WH,{element}" for element in elements]
        knobs, select = numeric_items("NUM", functions)
        return Description(
            title=f"Yokogawa {cls.family}",
            identity=rf"YOKOGAWA,{cls.family}",
            begin=(":COMM:REM ON",),
            end=(":COMM:REM OFF",),
            ask_error=":STAT:ERR?",
            knobs=(
                setting(":COMM:HEAD", always="OFF"),
                setting(":RATE", "rate"),
                setting(":INP:CFAC", "crest_factor", words={"3": "3", "6": "6", "6a": "A6"}),
                setting(":INP:MODE", "mode", words=_MODES),
                setting(":INP:SYNC", "sync", words=_SYNC),
                setting(":INP:FILT:LINE", "line_filter", words=SWITCH),
                setting(":INP:FILT:FREQ", "frequency_filter", words=SWITCH),
                setting(":MEAS:AVER:STAT", always="OFF"),
                setting(":MEAS:MHOL", always="OFF"),
                setting(":NUM:FORM", always="ASC"),
                *([setting(":INP:WIR", "wiring", words=_WIRINGS)] if len(cls.all_elements) > 1 else []),
                setting(":STAT:FILT1"),
                *knobs,
            ),
            select=select,
            read=":NUM:NORM:VAL?",
            compound=True,
            number=_NUMBER,
            items=tuple(items),
            sums=len(elements) > 1,
            sigma_of=_SIGMA_OF if has_sigma else {},
            ranges=input_ranges(
                ":INP", VOLTS, AMPERES if cls.family == "WT33" else (*SMALL_AMPERES, *AMPERES), ("6", "A6")
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
        if model.startswith("WT332"):
            elements = [item.element for item in draft.items if item.quantity == "watts" and item.element]
            if settings.get("elements") and 2 in elements:
                raise Unavailable(f"{model} has the elements 1 and 3", f"set {cls.name}.elements=1,3")
            if elements in ([1, 2, 3], [1, 3]):
                described = replace(cls._description(settings, [1, 3], has_sigma=True), title=described.title)
        return described


class Wt330Driver(Wt300Driver):
    """WT332, WT333 and their E: several elements, added up, and beside them the meter's own Σ.

    By the manual (IM WT310E-01EN, appendix 1) Σ is P1 + P3 for the wirings 1P3W, 3P3W and 3V3A, and P1 + P2 + P3 for
    3P4W: of supplies that are measured each by itself it is the total only for the last.
    """

    name: ClassVar[str] = "wt330e"
    family: ClassVar[str] = "WT33"
    all_elements: ClassVar[tuple[int, ...]] = (1, 2, 3)


class Wt210Driver(AnalyzerDriver):
    """WT210, set to 488.2 mode."""

    name: ClassVar[str] = "wt210"

    @classmethod
    def draft(cls, settings: Mapping[str, str]) -> Description:
        integrates = wants_integral(settings)
        chosen = [item for item in _WT210_READ if item != "WH" or integrates]  # in the order in which it replies
        return Description(
            title="Yokogawa WT210",
            identity=r"YOKOGAWA,(7604\d\d|WT210),",
            begin=(":COMM:REM ON",),
            end=(":COMM:REM OFF",),
            ask_error=":STAT:ERR?",
            knobs=(
                setting(":COMM:HEAD", always="OFF"),
                setting(":SAMP:RATE", "rate"),
                setting(":CONF:CFAC", "crest_factor", words={"3": "3", "6": "6"}),
                setting(":CONF:MODE", "mode", words=_MODES),
                setting(":CONF:SYNC", "sync", words=_SYNC),
                setting(":CONF:LFIL", "line_filter", words=SWITCH),
                setting(":CONF:FILT", "frequency_filter", words=SWITCH),
                setting(":CONF:AVER:STAT", always="OFF"),
                setting(":CONF:MHOL", always="OFF"),
                setting(":STAT:FILT1"),
                *(setting(f":MEAS:ITEM:{item}", always="ON" if item in chosen else "OFF") for item in _WT210_ITEMS),
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
            ranges=input_ranges(":CONF", VOLTS, (*SMALL_AMPERES, *AMPERES), ("6",)),
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
