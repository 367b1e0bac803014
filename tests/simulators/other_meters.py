"""Simulated meters of other makers, written from their manuals and from what others read of them.

GPM: replies as a GPM-8213 with firmware V1.05 was seen to give them. Hioki: as a PW3335 was seen to. LMG: as in logs of
an LMG95 and an LMG670, and in programs for them. Chroma: words of ranges as programs for a 66202 and a 66205 have them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

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
    """A PW3335; with several loads a PW3337, whose channels are all set at once, and answer each for itself."""

    def __init__(self, core: MeterCore, *, answers_ranges: bool = True, serial: str = "140123456") -> None:
        self.core = core
        model = "PW3335" if len(core.loads) == 1 else "PW3337"
        self.identity = f"HIOKI,{model},{serial},V1.20"
        self.set = {":HEAD": "OFF", ":TRAN:SEP": "1"}
        self.answers_ranges = answers_ranges

    def handle(self, line: str) -> str | None:
        self.core.advance()
        head, _, value = line.strip().partition(" ")
        head = head.upper()
        if head == "*IDN?":
            return self.identity
        if head.rstrip("?") in self.set:
            return self._setting(head, value)
        if head == ":MEAS?":
            separator = ";" if self.set[":TRAN:SEP"] == "0" else ","
            named = self.set[":HEAD"] == "ON"
            return separator.join(
                f"{item} {self._item(item)}" if named else self._item(item) for item in value.split(",")
            )
        if head.startswith((":VOLT:", ":CURR:")):
            return self._range(head, value)
        if head == ":INTEG:STAT?":
            state = "START" if self.core.integrating else "STOP" if self.core.holds_integral else "RESET"
            return self._named(":INTEGRATE:STATE", state)
        if head == ":INTEG:STAT":
            {
                "START": self.core.start_integration,
                "STOP": self.core.stop_integration,
                "RESET": self.core.reset_integration,
            }[value]()
        return None

    def _setting(self, head: str, value: str) -> str | None:
        if not head.endswith("?"):
            self.set[head] = value
            return None
        long = {":HEAD?": ":HEADER", ":TRAN:SEP?": ":TRANSMIT:SEPARATOR"}[head]
        return self._named(long, self.set[head[:-1]])

    def _named(self, name: str, value: str) -> str:
        return f"{name} {value}" if self.set[":HEAD"] == "ON" else value

    def _range(self, head: str, value: str) -> str | None:
        kind = "volts" if head.startswith(":VOLT") else "amperes"
        name = ":VOLTAGE" if kind == "volts" else ":CURRENT"
        if head.endswith("?") and not self.answers_ranges:
            return None
        if head.endswith("AUTO?"):
            return self._named(f"{name}:AUTO", "ON" if getattr(self.core, f"auto_{kind}") else "OFF")
        if head.endswith("RANG?"):
            of_each = [f"{getattr(self.core, f'{kind}_range'):g}"] * len(self.core.loads)
            return self._named(f"{name}:RANGE", ",".join(of_each))
        if head.endswith("AUTO"):
            setattr(self.core, f"auto_{kind}", value == "ON")
        elif float(value) in (VOLTS if kind == "volts" else AMPERES):
            setattr(self.core, f"{kind}_range", float(value))
            setattr(self.core, f"auto_{kind}", False)
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
    """A 66202 or another of its series: words for ranges, and headers and separators as they are set."""

    volt_words: ClassVar[dict[str, float]] = {"V150": 150.0, "V300": 300.0, "V500": 500.0}
    low_shunt: ClassVar[dict[str, float]] = {"A001": 0.01, "A01": 0.1, "A04": 0.4, "A2L": 2.0}
    ampere_words: ClassVar[dict[str, float]] = {**low_shunt, "A02": 0.2, "A2H": 2.0, "A8": 8.0, "A20": 20.0}

    def __init__(self, core: MeterCore, model: str = "66202") -> None:
        self.core = core
        self.model = model
        self.set = {
            "SYST:HEAD": "OFF",
            "SYST:TRAN:SEP": "0",
            "VOLT:RANG": "V500",
            "CURR:RANG": "A20",
            "CURR:SHUN": "AUTO",
            "MEAS:MODE": "AVERAGE",
        }
        core.volts_range, core.amperes_range = 500.0, 20.0
        if model == "66205":
            self.set = {key: value for key, value in self.set.items() if key not in ("CURR:SHUN", "MEAS:MODE")}
            self.volt_words = {f"V{volts}": float(volts) for volts in (15, 30, 60, 150, 300, 600)}
            self.ampere_words = {"A05": 0.5, "A2": 2.0, "A5": 5.0, "A20": 20.0, "A30": 30.0}
            self.set["VOLT:RANG"] = "V600"
            core.volts_range = 600.0

    def handle(self, line: str) -> str | None:
        self.core.advance()
        (shown,) = self.core.shown
        head, _, value = line.partition(" ")
        if head == "*IDN?":
            return f"Chroma ATE,{self.model},{self.model}0001234,1.20"
        if head == "STAT:CHAN:COND?":
            return "2" if shown.over else "0"
        if head == "FETC?":
            return (",", ";")[int(self.set["SYST:TRAN:SEP"])].join(self._item(item, shown) for item in value.split(","))
        if head.rstrip("?") == ("MEAS:UPD" if self.model == "66205" else "MEAS:WIND"):
            if head.endswith("?"):
                return self._named(head, f"{self.core.period_s:.1f}")
            self.core.set_period(float(value))
        elif head.rstrip("?") in self.set:
            return self._setting(head, value.upper())
        return None

    def _named(self, head: str, value: str) -> str:
        return f":{head[:-1]} {value}" if self.set["SYST:HEAD"] == "ON" else value

    def _setting(self, head: str, value: str) -> str | None:
        if head.endswith("?"):
            return self._named(head, self.set[head[:-1]])
        if head in ("VOLT:RANG", "CURR:RANG"):
            kind, words = ("volts", self.volt_words) if head == "VOLT:RANG" else ("amperes", self.ampere_words)
            shunt = self.set.get("CURR:SHUN", "AUTO")
            if value != "AUTO":
                if value not in words or (
                    kind == "amperes" and shunt != "AUTO" and (shunt == "LOW") != (value in self.low_shunt)
                ):
                    return None  # refused, and nothing is said
                setattr(self.core, f"{kind}_range", words[value])
            setattr(self.core, f"auto_{kind}", value == "AUTO")
        self.set[head] = value
        return None

    def _item(self, item: str, shown: Shown) -> str:
        value = {"V": shown.volts, "I": shown.amperes, "W": shown.watts, "PF": shown.power_factor}[item]
        if shown.over:
            return "-3"
        return "-1" if math.isnan(value) else f"{value:.5f}"


class Lmg:
    """An LMG95, with several loads an LMG670, or another: after `cont on` it sends a line at the end of each cycle.

    What is not of the language that is set is not understood.
    """

    def __init__(self, core: MeterCore, model: str = "", *, answers_ranges: bool = True) -> None:
        self.core = core
        self.model = model or ("LMG95" if len(core.loads) == 1 else "LMG670")
        self.identity = f"ZES ZIMMER Electronic Systems GmbH,{self.model},03920401,3.136"
        self.is_old = self.model != "LMG670"
        self.answers_ranges = answers_ranges
        self.is_short = False
        self.actions: list[str] = []
        self.sends = False
        self._sent = 0
        places = [""] if self.model == "LMG95" else [str(place) for place in range(1, len(core.loads) + 1)]
        self.ranges = {f"{kind}rng{place}": 400.0 if kind == "u" else 10.0 for kind in "ui" for place in places}
        word = "am" if self.is_old else "auto"
        self.automatic = {f"{kind}{word}{place}": True for kind in "ui" for place in places}

    def handle(self, line: str) -> str | None:
        self.core.advance()
        head, _, value = line.strip().lower().partition(" ")
        if head == "*idn?":
            return self.identity
        if (head, value) in (
            (("syst:lang", "short"), ("lang", "scpi")) if self.is_old else (("*zlang", "short"), ("*zlang", "scpi"))
        ):
            self.is_short = value == "short"
        if not self.is_short or head == "gtl":
            return None
        if head == "cycl?":
            return f"{self.core.period_s:g}"
        if head == "cycl":
            self.core.set_period(float(value))
        if head.startswith("actn;"):
            self.actions = [action.rstrip("?") for action in head[5:].split(";")]
        if head == "cont":
            self.sends, self._sent = value == "on", self.core.updates
        return self._range(head, value)

    def _range(self, head: str, value: str) -> str | None:
        name = head.rstrip("?")
        if head.endswith("?"):
            if not self.answers_ranges:
                return None
            if name in self.automatic:
                return str(int(self.automatic[name]))
            return f"{self.ranges[name]:.4E}" if name in self.ranges else None
        if name in self.automatic:
            self.automatic[name] = value in ("1", "auto")
        elif name in self.ranges:
            self.ranges[name] = float(value)
            setattr(self.core, "volts_range" if name[0] == "u" else "amperes_range", float(value))
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
