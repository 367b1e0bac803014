"""Driver `pw333x`: Hioki PW3335, PW3336 and PW3337.

Ranges of the PW3336 and PW3337: a published program for the PW3337 (class CPWAN_HIOKI_PW3337, J. Bednar, 2020) sets
them with `:VOLTAGE:RANGE`, `:VOLTAGE:AUTO`, `:CURRENT:RANGE` and `:CURRENT:AUTO`, the commands of the PW3335.
docs/devices/hioki-pw333x.md tells what is not confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from msgspec.structs import replace

from drivers.analyzer_uncertainty import Specification
from drivers.analyzers.description import Description, Integrator, Item, ItemQuantity, Ranges
from drivers.analyzers.driver import AnalyzerDriver
from drivers.analyzers.settings import wants_integral
from drivers.analyzers.wt_tree import setting
from drivers.contract import Unavailable

_PERIOD_S = 0.2  # of its display, and of what it answers
_LETTERS: dict[ItemQuantity, str] = {"volts": "U", "amperes": "I", "watts": "P", "power_factor": "PF"}
_ELEMENTS = {"PW3335": 1, "PW3336": 2, "PW3337": 3}
_HIGH_VOLTS = (15.0, 30.0, 60.0, 150.0, 300.0, 600.0, 1000.0)
_HIGH_AMPERES = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_VOLTS = {"PW3335": (6.0, *_HIGH_VOLTS), "PW3336": _HIGH_VOLTS, "PW3337": _HIGH_VOLTS}
_AMPERES = {
    "PW3335": (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, *_HIGH_AMPERES),
    "PW3336": (*_HIGH_AMPERES, 50.0),
    "PW3337": (*_HIGH_AMPERES, 50.0),
}


class Pw333xDriver(AnalyzerDriver):
    """Answers carry their names: `U1 +230.12E+0;I1 …`."""

    name: ClassVar[str] = "pw333x"
    own_settings: ClassVar[tuple[str, ...]] = ("elements",)

    @classmethod
    def draft(cls, settings: Mapping[str, str]) -> Description:
        return Description(
            title="Hioki PW333x",
            identity=r"HIOKI,.*333[567]",
            tcp_port=3300,
            terminator="\r\n",
            knobs=(setting(":HEAD", always="ON", optional=True), setting(":TRAN:SEP", always="0", optional=True)),
            read=":MEAS? U,I,P,PF",
            separator=";",
            number=r"[+-]\d+\.\d+E[+-]\d",
            missing=r"[+-]7+\.7+E\+9|[+-]8+\.8+E\+9",
            over=r"[+-]9+\.9+E\+9",
            items=_items((0,), settings),
            period_s=_PERIOD_S,
            ranges=Ranges(
                volts=_VOLTS["PW3335"],
                amperes=_AMPERES["PW3335"],
                ask_volts=":VOLT:RANG?",
                set_volts=":VOLT:RANG {value}",
                ask_amperes=":CURR:RANG?",
                set_amperes=":CURR:RANG {value}",
                ask_auto_volts=":VOLT:AUTO?",
                set_auto_volts=":VOLT:AUTO {value}",
                ask_auto_amperes=":CURR:AUTO?",
                set_auto_amperes=":CURR:AUTO {value}",
            ),
            integrator=Integrator(
                reset=(":INTEG:STAT RESET",),
                start=(":INTEG:STAT START",),
                stop=(":INTEG:STAT STOP",),
                ask_state=":INTEG:STAT?",
                idle="RESET",
                optional=True,
            ),
            specification=Specification(
                reading=0.001, range=0.0005, phase=0.001, source="Hioki PW3336, 45–66 Hz, below half of the range"
            ),
        )

    @classmethod
    def describe(cls, identity: str, draft: Description, settings: Mapping[str, str]) -> Description:
        """Elements and ranges as the model has them."""
        model = next(model for model in _ELEMENTS if model[2:] in identity.split(",")[1])
        have = tuple(range(1, _ELEMENTS[model] + 1))
        elements = _chosen(cls.name, settings, have) if len(have) > 1 else (0,)
        names = [f"{letter}{element or ''}" for element in elements for letter in _LETTERS.values()]
        if wants_integral(settings):
            names += [f"WP{element or ''}" for element in elements]
        assert draft.ranges is not None
        ranges = replace(draft.ranges, volts=_VOLTS[model], amperes=_AMPERES[model], optional=len(have) > 1)
        return replace(
            draft,
            title=f"Hioki {model}",
            items=_items(elements, settings),
            read=f":MEAS? {','.join(names)}",
            sums=len(elements) > 1,
            ranges=ranges,
        )


def _items(elements: tuple[int, ...], settings: Mapping[str, str]) -> tuple[Item, ...]:
    items = [
        Item(quantity=quantity, element=element, header=f"{letter}{element or ''}")
        for element in elements
        for quantity, letter in _LETTERS.items()
    ]
    if wants_integral(settings):
        items += [Item(quantity="watt_hours", element=e, header=f"WP{e or ''}") for e in elements]
    return tuple(items)


def _chosen(name: str, settings: Mapping[str, str], have: tuple[int, ...]) -> tuple[int, ...]:
    found = settings.get("elements", ",".join(map(str, have))).split(",")
    if len(set(found)) < len(found) or not all(part in map(str, have) for part in found):
        raise Unavailable(f"{name}.elements is {','.join(found)!r}", f"give some of {','.join(map(str, have))}")
    return tuple(map(int, found))
