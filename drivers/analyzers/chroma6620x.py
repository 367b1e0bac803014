"""Driver `chroma6620x`: Chroma 66201, 66202, 66203, 66204 and 66205. See docs/devices/chroma-6620x.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from drivers.analyzer_uncertainty import Specification
from drivers.analyzers.description import Description, Freshness, Item, Ranges
from drivers.analyzers.driver import AnalyzerDriver

_OVER_VOLTS, _OVER_AMPERES, _PROTECTED = 1, 2, 4


class Chroma6620xDriver(AnalyzerDriver):
    """The channel that the meter has selected. Its ranges are set by hand, and told with volts= and amps=."""

    name: ClassVar[str] = "chroma6620x"

    @classmethod
    def draft(cls, settings: Mapping[str, str]) -> Description:
        return Description(
            title="Chroma 6620x",
            identity=r"(?i:CHROMA).*,\s*6620\d",
            begin=("SYST:HEAD OFF",),
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
            ranges=Ranges(volts=(150.0, 300.0, 500.0), amperes=(0.01, 0.1, 0.2, 0.4, 2.0, 8.0, 20.0)),
            freshness=Freshness(ask_condition="STAT:CHAN:COND?", optional=True),
            specification=Specification(
                reading=0.001, range=0.001, phase=0.002, source="Chroma 66202, 47–63 Hz; not confirmed"
            ),
        )
