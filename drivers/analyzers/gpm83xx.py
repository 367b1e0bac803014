"""Driver `gpm83xx`: GW Instek GPM-8213 and GPM-8310, whose commands follow Yokogawa's.

docs/devices/gwinstek-gpm.md tells where each command comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from drivers.analyzer_ranges import AMPERES, SMALL_AMPERES, VOLTS
from drivers.analyzer_uncertainty import Specification
from drivers.analyzers.description import Description, Freshness, Integrator, Item, ItemQuantity
from drivers.analyzers.driver import AnalyzerDriver
from drivers.analyzers.settings import wants_integral
from drivers.analyzers.wt_tree import SWITCH, input_ranges, numeric_items, setting

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
        if wants_integral(settings):
            items.append(Item(quantity="watt_hours"))
            functions.append("WH")
        knobs, select = numeric_items("NUMB", functions)
        return Description(
            title="GW Instek GPM",
            identity=r"(?i:GW ?INSTEK),GPM-?8",
            baud=9600,
            tcp_port=23,
            terminator="\r\n",
            end=(":COMM:REM 0",),
            knobs=(
                setting(":COMM:HEAD", always="OFF", optional=True),
                setting(":RATE", "rate", optional=True),
                setting(":INP:CFAC", "crest_factor", words={"3": "3", "6": "6"}),
                setting(":INP:MODE", "mode", words={"rms": "RMS", "dc": "DC"}),
                setting(":INP:FILT:LINE", "line_filter", words=SWITCH),
                setting(":STAT:FILT1", optional=True),
                *knobs,
            ),
            select=select,
            read=":NUM:NORM:VAL?",
            number=r"[+-]?\d+\.\d+E[+-]\d{2}",
            items=tuple(items),
            period_s=_PERIOD_S,
            ranges=input_ranges(":INP", VOLTS, (*SMALL_AMPERES, *AMPERES), ("6",)),
            freshness=Freshness(
                arm=(":STAT:FILT1 FALL",), ask_updated=":STAT:EESR?", ask_condition=":STAT:COND?", optional=True
            ),
            integrator=Integrator(
                reset=(":INTEG:RES",),
                start=(":INTEG:STAR",),
                stop=(":INTEG:STOP",),
                ask_state=":INTEG:STAT?",
                idle="RES.*",
                optional=True,
            ),
            specification=Specification(
                reading=0.001,
                range=0.0005,
                phase=0.001,
                line_filter=0.003,
                fast_rate=0.0005,
                source="GW Instek GPM-8310, 45–66 Hz, its manual's page 232",
            ),
        )
