"""Driver `lmg`: ZES Zimmer LMG95 and LMG600, which send a reading at the end of each cycle.

docs/devices/zes-lmg.md tells where each command comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from msgspec.structs import replace

from drivers.analyzers.description import Description, Item, ItemQuantity, Knob, Ranges, Stream
from drivers.analyzers.driver import AnalyzerDriver
from drivers.contract import Unavailable

_NAMES: dict[ItemQuantity, str] = {"volts": "utrms", "amperes": "itrms", "watts": "p", "power_factor": "pf"}
_ELEMENTS = "1234567"


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
            end=("gtl",),
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
        """The words of the LMG95, which has one channel, and of the LMG600, whose channels are numbered."""
        single = "LMG95" in identity.upper().replace(" ", "")
        elements = (0,) if single else _chosen(cls.name, settings)
        places = [str(element or "") for element in elements]
        actions = "?;".join(f"{name}{place}" for place in places for name in _NAMES.values())
        language = "syst:lang short" if single else "*zlang short"
        first = places[0]
        auto = ("uam", "iam") if single else (f"uauto{first}", f"iauto{first}")
        settable = len(elements) == 1 and not single
        return replace(
            draft,
            title="ZES Zimmer LMG95" if single else "ZES Zimmer LMG600",
            begin=("cont off", language),
            items=_items(elements if len(elements) > 1 else (0,)),
            sums=len(elements) > 1,
            ranges=Ranges(
                volts=(6.0, 12.5, 25.0, 60.0, 130.0, 250.0, 400.0, 600.0),
                amperes=(0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0, 20.0),
                ask_volts=f"urng{first}?" if settable else "",
                set_volts=f"urng{first} {{value}}" if settable else "",
                ask_amperes=f"irng{first}?" if settable else "",
                set_amperes=f"irng{first} {{value}}" if settable else "",
                ask_auto_volts=f"{auto[0]}?" if settable else "",
                set_auto_volts=f"{auto[0]} {{value}}" if settable else "",
                ask_auto_amperes=f"{auto[1]}?" if settable else "",
                set_auto_amperes=f"{auto[1]} {{value}}" if settable else "",
                on="1",
                off="0",
            ),
            stream=Stream(start=(f"actn;{actions}?", "cont on"), stop=("cont off",)),
        )


def _is_lmg600(port: str) -> bool:
    """The LMG600 has an Ethernet port of its own; an LMG95 is behind a serial line, or a converter at another port."""
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
