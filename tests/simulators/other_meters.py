"""Simulated meters of other makers, written from their manuals and from what others read of them.

GPM: replies as a GPM-8213 with firmware V1.05 was seen to give them. Hioki: as a PW3335 was seen to. LMG: as in logs of
an LMG95 and an LMG670.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from meter_core import AMPERES, VOLTS, MeterCore, Shown
from yokogawa_meter import Wt300, number


class Gpm(Wt300):
    """A GPM-8213: as a WT300, but items name no element, and replies to `NUMB?` keep their header."""

    settings = {  # noqa: RUF012  # as in Wt300
        **{key: value for key, value in Wt300.settings.items() if not key.startswith((":NUM", ":MEAS"))},
        ":NUM:NORM:NUMB": "3",
        **{f":NUM:NORM:ITEM{k}": item for k, item in enumerate(("U", "I", "P", *["NONE"] * 7), start=1)},
    }

    def __init__(self, core: MeterCore, has_status: bool = True) -> None:
        super().__init__(core, "GWInstek,GPM-8213,GES913349,V1.05")
        self.has_status = has_status

    def _one(self, command: str) -> str | None:
        head = command.partition(" ")[0].upper()
        if head in (":COMM:REM", ":STAT:ERR?") or (not self.has_status and head.startswith((":STAT:", ":RATE"))):
            return None
        if head == ":NUM:NORM:NUMB?":
            return f":NUM:NORM:NUMB {self.set[':NUM:NORM:NUMB']}"
        if head == ":NUM:NORM:VAL?":
            return ",".join(self._item(self.set[f":NUM:NORM:ITEM{k}"]) for k in range(1, self._count() + 1))
        return super()._one(command)

    def _count(self) -> int:
        return int(self.set[":NUM:NORM:NUMB"])

    def _item(self, item: str) -> str:
        return super()._item(f"{'LAMB' if item == 'LAMBDA' else item},1")


class Hioki:
    """A PW3335; with several loads a PW3337."""

    def __init__(self, core: MeterCore) -> None:
        self.core = core
        model = "PW3335" if len(core.loads) == 1 else "PW3337"
        self.identity = f"HIOKI,{model},140123456,V1.20"

    def handle(self, line: str) -> str | None:
        self.core.advance()
        head, _, value = line.strip().partition(" ")
        head = head.upper()
        if head == "*IDN?":
            return self.identity
        if head == ":MEAS?":
            return ";".join(f"{item} {self._item(item)}" for item in value.split(","))
        if head.startswith((":VOLT:", ":CURR:")):
            return self._range(head, value)
        if head == ":INTEG:STAT":
            {
                "START": self.core.start_integration,
                "STOP": self.core.stop_integration,
                "RESET": self.core.reset_integration,
            }[value]()
        return None

    def _range(self, head: str, value: str) -> str | None:
        kind = "volts" if head.startswith(":VOLT") else "amperes"
        if head.endswith("AUTO?"):
            state = "ON" if getattr(self.core, f"auto_{kind}") else "OFF"
            return f":{'VOLTAGE' if kind == 'volts' else 'CURRENT'}:AUTO {state}"
        if head.endswith("RANG?"):
            return f":{'VOLTAGE' if kind == 'volts' else 'CURRENT'}:RANGE {getattr(self.core, f'{kind}_range'):g}"
        if head.endswith("AUTO"):
            setattr(self.core, f"auto_{kind}", value == "ON")
        elif float(value) in (VOLTS if kind == "volts" else AMPERES):
            setattr(self.core, f"{kind}_range", float(value))
        return None

    def _item(self, item: str) -> str:
        name = item.rstrip("1234567")
        place = int(item[len(name) :] or 1) - 1
        if name == "WP":
            return hioki_number(self.core.watt_hours[place]) if self.core.holds_integral else "+7777.77E+9"
        shown = self.core.shown[place]
        value = {"U": shown.volts, "I": shown.amperes, "P": shown.watts, "PF": shown.power_factor}[name]
        if shown.over:
            return "+999.99E+9"
        return "+777.77E+9" if math.isnan(value) else hioki_number(value)


class Chroma:
    """A 66202 with headers off."""

    def __init__(self, core: MeterCore) -> None:
        self.core = core

    def handle(self, line: str) -> str | None:
        self.core.advance()
        (shown,) = self.core.shown
        if line == "*IDN?":
            return "Chroma ATE,66202,662020001234,1.20"
        if line == "STAT:CHAN:COND?":
            return "2" if shown.over else "0"
        if line.startswith("FETC? "):
            return ",".join(self._item(item, shown) for item in line[6:].split(","))
        return None

    def _item(self, item: str, shown: Shown) -> str:
        value = {"V": shown.volts, "I": shown.amperes, "W": shown.watts, "PF": shown.power_factor}[item]
        if shown.over:
            return "-3"
        return "-1" if math.isnan(value) else f"{value:.5f}"


class Lmg:
    """An LMG95, or with several loads an LMG670: after `cont on` it sends a line at the end of each cycle."""

    def __init__(self, core: MeterCore) -> None:
        self.core = core
        self.single = len(core.loads) == 1
        self.identity = (
            "ZES ZIMMER,LMG95,03920401,3.136" if self.single else "ZES ZIMMER Electronic Systems,LMG670,1,2.010"
        )
        self.actions: list[str] = []
        self.sends = False
        self._sent = 0

    def handle(self, line: str) -> str | None:
        self.core.advance()
        head, _, value = line.strip().lower().partition(" ")
        if head == "*idn?":
            return self.identity
        if head == "cycl?":
            return f"{self.core.period_s:g}"
        if head == "cycl":
            self.core.set_period(float(value))
        if head.startswith("actn;"):
            self.actions = [action.rstrip("?") for action in head[5:].split(";")]
        if head == "cont":
            self.sends, self._sent = value == "on", self.core.updates
        return None

    def unasked(self) -> Iterator[str]:
        self.core.advance()
        if self.sends and self.core.updates > self._sent:
            self._sent = self.core.updates
            yield ";".join(map(self._item, self.actions))

    def _item(self, action: str) -> str:
        name = action.rstrip("1234567")
        shown = self.core.shown[int(action[len(name) :] or 1) - 1]
        if shown.over:
            return "9.900000E+37"
        value = {"utrms": shown.volts, "itrms": shown.amperes, "p": shown.watts, "pf": shown.power_factor}[name]
        return "9.910000E+37" if math.isnan(value) else f"{value:.6E}"


def hioki_number(value: float) -> str:
    """With a sign, five digits, and an exponent that is a multiple of three: +110.14E+0."""
    text = number(abs(value))
    mantissa, _, exponent = text.partition("E")
    return f"{'-' if value < 0 else '+'}{mantissa}E{int(exponent):+d}"
