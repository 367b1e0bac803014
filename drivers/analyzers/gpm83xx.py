"""Driver `gpm83xx`: GW Instek GPM-8213 and GPM-8310, whose commands follow Yokogawa's.

docs/devices/gwinstek-gpm.md tells where each command comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from drivers.analyzer_ranges import AMPERES, SMALL_AMPERES, VOLTS
from drivers.analyzer_uncertainty import Specification
from drivers.analyzers.description import Description, Freshness, Integrator, Item, ItemQuantity, Knob, Ranges
from drivers.analyzers.driver import AnalyzerDriver

_FUNCTIONS: dict[ItemQuantity, str] = {"volts": "U", "amperes": "I", "watts": "P", "power_factor": "LAMBDA"}
_OVER: dict[ItemQuantity, int] = {"volts": 0b011 << 6, "amperes": 0b101 << 6, "watts": 0b111 << 6}
_PERIOD_S = 0.25


class Gpm83xxDriver(AnalyzerDriver):
    """One element; the tree of commands is that of the WT300, with items that name no element."""

    name: ClassVar[str] = "gpm83xx"

    @classmethod
    def draft(cls, settings: Mapping[str, str]) -> Description:
        items = [Item(quantity=quantity, over=_OVER.get(quantity, 0)) for quantity in _FUNCTIONS]
        functions = list(_FUNCTIONS.values())
        if settings.get("integrate", "").lower() == "on":
            items.append(Item(quantity="watt_hours"))
            functions.append("WH")
        places = range(1, len(functions) + 1)
        return Description(
            title="GW Instek GPM",
            identity=r"(?i:GW ?INSTEK),GPM-?8",
            baud=9600,
            tcp_port=23,
            terminator="\r\n",
            begin=(":COMM:HEAD OFF",),
            end=(":COMM:REM 0",),
            knobs=(
                Knob(name="rate", ask=":RATE?", set=":RATE {value}", optional=True),
                Knob(name="crest_factor", ask=":INP:CFAC?", set=":INP:CFAC {value}", words={"3": "3", "6": "6"}),
                Knob(name="mode", ask=":INP:MODE?", set=":INP:MODE {value}", words={"rms": "RMS", "dc": "DC"}),
                Knob(
                    name="line_filter",
                    ask=":INP:FILT:LINE?",
                    set=":INP:FILT:LINE {value}",
                    words={"on": "ON", "off": "OFF"},
                ),
                Knob(name="", ask=":STAT:FILT1?", set=":STAT:FILT1 {value}", optional=True),
                Knob(name="", ask=":NUM:NORM:NUMB?", set=":NUM:NORM:NUMB {value}"),
                *(Knob(name="", ask=f":NUM:NORM:ITEM{k}?", set=f":NUM:NORM:ITEM{k} {{value}}") for k in places),
            ),
            select=(
                f":NUM:NORM:NUMB {len(functions)}",
                *(f":NUM:NORM:ITEM{k} {function}" for k, function in zip(places, functions, strict=True)),
            ),
            read=":NUM:NORM:VAL?",
            number=r"[+-]?\d+\.\d+E[+-]\d{2}",
            items=tuple(items),
            period_s=_PERIOD_S,
            ranges=Ranges(
                volts=VOLTS,
                amperes=(*SMALL_AMPERES, *AMPERES),
                ask_volts=":INP:VOLT:RANG?",
                set_volts=":INP:VOLT:RANG {value}",
                ask_amperes=":INP:CURR:RANG?",
                set_amperes=":INP:CURR:RANG {value}",
                ask_auto_volts=":INP:VOLT:AUTO?",
                set_auto_volts=":INP:VOLT:AUTO {value}",
                ask_auto_amperes=":INP:CURR:AUTO?",
                set_auto_amperes=":INP:CURR:AUTO {value}",
                halving_crest_factors=("6",),
            ),
            freshness=Freshness(
                arm=(":STAT:FILT1 FALL",), ask_updated=":STAT:EESR?", ask_condition=":STAT:COND?", optional=True
            ),
            integrator=Integrator(reset=(":INTEG:RES",), start=(":INTEG:STAR",), stop=(":INTEG:STOP",)),
            specification=Specification(
                reading=0.001,
                range=0.0005,
                phase=0.001,
                line_filter=0.003,
                source="GW Instek GPM-8310, 45–66 Hz, its manual's page 232",
            ),
        )
