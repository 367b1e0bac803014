"""Driver `lmg`: ZES Zimmer LMG95, LMG450, LMG500 and LMG600, which send a reading at the end of each cycle.

The short language is that of published programs: lmgtools (github.com/cuveland/lmgtools) for the LMG95 and the LMG670,
its offspring for the LMG450, and lmgd (github.com/tud-zih-energy/lmgd), which sets ranges of an LMG670 with `IAUTO1 0`,
`IRNG1`, `UAUTO1 0`, `URNG1`, and of the older ones with the SCPI commands that these abbreviate. The questions are
those commands with a question mark, as for all settings; docs/devices/zes-lmg.md tells what is not confirmed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from msgspec.structs import replace

from drivers.analyzers.description import Description, Item, ItemQuantity, Knob, Ranges, Stream
from drivers.analyzers.driver import AnalyzerDriver
from drivers.contract import Unavailable

_NAMES: dict[ItemQuantity, str] = {"volts": "utrms", "amperes": "itrms", "watts": "p", "power_factor": "pf"}
_ELEMENTS = "1234567"
_VOLTS = (6.0, 12.5, 25.0, 60.0, 130.0, 250.0, 400.0, 600.0)
_WIDE_VOLTS = (3.0, *_VOLTS, 1000.0)
_MIDDLE_AMPERES = (0.6, 1.2, 2.5, 5.0, 10.0)
_LOW_AMPERES = (0.15, 0.3)
_LOWEST_AMPERES = (0.02, 0.04, 0.08)


class _Family(NamedTuple):
    """What differs between the meters."""

    short: str  # to the short language
    scpi: str  # and back
    automatic: tuple[str, str]  # of voltage and current
    on: str
    off: str
    volts: tuple[float, ...]
    amperes: tuple[float, ...]


_OLD = _Family("syst:lang short", "lang scpi", ("uam", "iam"), "auto", "manual", _VOLTS, ())
_FAMILIES: Mapping[str, _Family] = {
    "LMG95": _OLD._replace(amperes=(*_LOW_AMPERES, *_MIDDLE_AMPERES, 20.0)),
    "LMG450": _OLD._replace(amperes=(*_MIDDLE_AMPERES, 16.0)),
    "LMG500": _OLD._replace(volts=_WIDE_VOLTS, amperes=(*_LOWEST_AMPERES, *_LOW_AMPERES, *_MIDDLE_AMPERES, 20.0, 32.0)),
    "LMG600": _Family(
        *("*zlang short", "*zlang scpi", ("uauto", "iauto"), "1", "0"),
        volts=_WIDE_VOLTS,
        amperes=(0.005, 0.01, *_LOWEST_AMPERES, *_LOW_AMPERES, *_MIDDLE_AMPERES, 20.0, 32.0),
    ),
}


class LmgDriver(AnalyzerDriver):
    """Speaks the short language."""

    name: ClassVar[str] = "lmg"
    own_settings: ClassVar[tuple[str, ...]] = ("elements",)

    @classmethod
    def draft(cls, settings: Mapping[str, str]) -> Description:
        return Description(
            title="ZES Zimmer LMG",
            identity=r"(?i:.*LMG)",
            identify="*idn?",
            baud=115200,
            rtscts=True,
            tcp_port=5025,
            terminator="\n" if _is_lmg600(settings.get("port", "")) else "\r\n",
            knobs=(Knob(name="rate", ask="cycl?", set="cycl {value}"),),
            read="",
            separator=";",
            missing=r"(?i:nan|9\.910*E\+?37)",
            over=r"(?i:[+-]?inf|[+-]?9\.90*E\+?37)",
            items=_items((0,)),
            ranges=Ranges(volts=(1000.0,), amperes=(32.0,)),
            stream=Stream(start=(), stop=("cont off",)),
        )

    @classmethod
    def describe(cls, identity: str, draft: Description, settings: Mapping[str, str]) -> Description:
        """The words of the LMG95, which has one channel, and of the others, whose channels are numbered."""
        model = _model(identity)
        family = _FAMILIES[model]
        elements = (0,) if model == "LMG95" else _chosen(cls.name, settings)
        places = tuple(str(element or "") for element in elements)
        actions = "?;".join(f"{name}{place}" for place in places for name in _NAMES.values())
        volts_auto, amperes_auto = (f"{word}{{element}}" for word in family.automatic)
        return replace(
            draft,
            title=f"ZES Zimmer {model}",
            begin=(family.short, "cont off"),
            end=(family.scpi, "gtl"),
            items=_items(elements if len(elements) > 1 else (0,)),
            sums=len(elements) > 1,
            ranges=Ranges(
                volts=family.volts,
                amperes=family.amperes,
                elements=places,
                ask_volts="urng{element}?",
                set_volts="urng{element} {value}",
                ask_amperes="irng{element}?",
                set_amperes="irng{element} {value}",
                ask_auto_volts=f"{volts_auto}?",
                set_auto_volts=f"{volts_auto} {{value}}",
                ask_auto_amperes=f"{amperes_auto}?",
                set_auto_amperes=f"{amperes_auto} {{value}}",
                on=family.on,
                off=family.off,
                optional=True,
            ),
            stream=Stream(start=(f"actn;{actions}?", "cont on"), stop=("cont off",)),
        )


def _model(identity: str) -> str:
    """The family of the meter that answered; one that is not known speaks the language of the newest."""
    found = re.search(r"LMG ?(95|450|500)\b", identity.upper())
    return f"LMG{found[1]}" if found else "LMG600"


def _is_lmg600(port: str) -> bool:
    """The LMG600 has an Ethernet port of its own; others are behind a serial line, or a converter at another port."""
    return port.startswith("tcp:") and (port.endswith(":5025") or port.count(":") == 1)


def _items(elements: tuple[int, ...]) -> tuple[Item, ...]:
    return tuple(Item(quantity=quantity, element=element) for element in elements for quantity in _NAMES)


def _chosen(name: str, settings: Mapping[str, str]) -> tuple[int, ...]:
    found = settings.get("elements", "1").split(",")
    if len(set(found)) < len(found) or not all(len(part) == 1 and part in _ELEMENTS for part in found):
        raise Unavailable(
            f"{name}.elements is {','.join(found)!r}", f"give some of 1 … 7, such as {name}.elements=1,2,3"
        )
    return tuple(map(int, found))
