"""Simulated Yokogawa meters: what they say is as the interface manuals and PTDaemon's published dialogs have it."""

from __future__ import annotations

import math
from typing import ClassVar

from meter_core import AMPERES, VOLTS, MeterCore

_SWITCH = {"ON": "1", "OFF": "0", "1": "1", "0": "0"}


class YokogawaMeter:
    """What WT210 and WT300 share: lines of several commands, an error queue, a status register, settings."""

    identity = ""
    settings: ClassVar[dict[str, str]] = {}
    switches: frozenset[str] = frozenset()
    refused_while_integrating: tuple[str, ...] = ()

    def __init__(self, core: MeterCore) -> None:
        self.core = core
        self.errors: list[str] = []
        self.set = dict(self.settings)
        self.header = True

    def handle(self, line: str) -> str | None:
        """The answers to all questions of a line, joined."""
        self.core.advance()
        answers = [answer for part in line.split(";") if (answer := self._one(part.strip())) is not None]
        return ";".join(answers) if answers else None

    def _one(self, command: str) -> str | None:
        head, _, value = command.partition(" ")
        head, value = head.upper(), value.strip()
        if head == "*IDN?":
            return self.identity
        if head in (":STAT:ERR?", ":STATUS:ERROR?"):
            return self.errors.pop(0) if self.errors else '0,"No error"'
        if head == ":STAT:EESR?":
            fell, self.core.fell = self.core.fell and self.set.get(":STAT:FILT1") == "FALL", False
            return self._told(head, str(int(fell)))
        if head == ":STAT:COND?":
            return self._told(head, str(self._condition()))
        special = self._special(head, value)
        if special is not NotImplemented:
            return special  # type: ignore[return-value]
        return self._setting(head, value)

    def _told(self, head: str, value: str) -> str:
        return f"{head[:-1]} {value}" if self.header else value

    def _setting(self, head: str, value: str) -> str | None:
        name = head.rstrip("?")
        if name not in self.set:
            self.errors.append('113,"Undefined header"')
            return None
        if head.endswith("?"):
            return self._told(head, self.set[name])
        if self.core.holds_integral and name.startswith(self.refused_while_integrating):
            self.errors.append('813,"Invalid operation while integration is running"')
            return None
        if name in self.switches:
            if value.upper() not in _SWITCH:
                self.errors.append('131,"Invalid suffix"')
                return None
            value = _SWITCH[value.upper()]
        self.set[name] = value.upper()
        return None

    def _special(self, head: str, value: str) -> object:
        if head == ":COMM:HEAD?":
            return self._told(head, str(int(self.header)))
        if head == ":COMM:HEAD":
            self.header = _SWITCH[value.upper()] == "1"
            return None
        if head == ":COMM:REM":
            return None
        if head == ":INTEG:STAR":
            self.core.start_integration()
            return None
        if head == ":INTEG:STOP":
            self.core.stop_integration()
            return None
        if head == ":INTEG:RES":
            self.core.reset_integration()
            return None
        return NotImplemented

    def _range(self, head: str, value: str, kind: str) -> object:
        """A range or its automation, of volts or amperes."""
        core = self.core
        if head.endswith("AUTO?"):
            return self._told(head, str(int(getattr(core, f"auto_{kind}"))))
        if head.endswith("RANG?"):
            return self._told(head, f"{getattr(core, f'{kind}_range'):.1E}")
        if core.holds_integral:
            self.errors.append('813,"Invalid operation while integration is running"')
        elif head.endswith("AUTO"):
            setattr(core, f"auto_{kind}", _SWITCH[value.upper()] == "1")
        else:
            ranges: tuple[float, ...] = VOLTS if kind == "volts" else AMPERES
            if self.set.get(":INP:CFAC", "3") != "3":
                ranges = tuple(each / 2 for each in ranges)
            wanted = next((each for each in ranges if math.isclose(each, float(value))), None)
            if wanted is None:
                self.errors.append('222,"Data out of range"')
            else:
                setattr(core, f"{kind}_range", float(wanted))
                setattr(core, f"auto_{kind}", False)
        return None

    def _condition(self) -> int:
        bits = 2 if self.core.integrating else 0
        for number, shown in enumerate(self.core.shown):
            bits |= (1 << 6 + 3 * number) if shown.over else 0
        return bits


class Wt300(YokogawaMeter):
    """WT310E; with three loads a WT333E."""

    settings: ClassVar[dict[str, str]] = {
        ":INP:CFAC": "3",
        ":INP:MODE": "RMS",
        ":INP:SYNC": "VOLT",
        ":INP:WIR": "P3W4",
        ":INP:FILT:LINE": "0",
        ":INP:FILT:FREQ": "0",
        ":MEAS:AVER:STAT": "0",
        ":MEAS:MHOL": "0",
        ":NUM:FORM": "ASC",
        ":STAT:FILT1": "NEVER",
        ":NUM:NORM:NUM": "3",
        **{f":NUM:NORM:ITEM{k}": item for k, item in enumerate(("U,1", "I,1", "P,1", *["NONE"] * 17), start=1)},
    }
    switches = frozenset({":INP:FILT:LINE", ":INP:FILT:FREQ", ":MEAS:AVER:STAT", ":MEAS:MHOL"})
    refused_while_integrating = (":INP:", ":MEAS:")

    def __init__(self, core: MeterCore, identity: str = "") -> None:
        super().__init__(core)
        model = "WT310E" if len(core.loads) == 1 else "WT333E"
        self.identity = identity or f"YOKOGAWA,{model},C2WA21018V,F1.04"
        if len(core.loads) == 1:
            del self.set[":INP:WIR"]

    def _special(self, head: str, value: str) -> object:
        if head == ":RATE?":
            return self._told(head, f"{self.core.period_s:.3E}")
        if head == ":RATE":
            if self.core.holds_integral:
                self.errors.append('813,"Invalid operation while integration is running"')
            elif float(value) in (0.1, 0.25, 0.5, 1, 2, 5, 10, 20):
                self.core.set_period(float(value))
            else:
                self.errors.append('222,"Data out of range"')
            return None
        if head == ":INTEG:STAT?":
            state = "START" if self.core.integrating else "STOP" if self.core.holds_integral else "RESET"
            return self._told(head, state)
        if head == ":NUM:NORM:VAL?":
            items = [self.set[f":NUM:NORM:ITEM{k}"] for k in range(1, int(self.set[":NUM:NORM:NUM"]) + 1)]
            return self._told(head, ",".join(map(self._item, items)))
        if head.startswith((":INP:VOLT:", ":INP:CURR:")):
            return self._range(head, value, "volts" if ":VOLT:" in head else "amperes")
        return super()._special(head, value)

    def _item(self, item: str) -> str:
        function, _, element = item.partition(",")
        if item == "P,SIGMA" and ":INP:WIR" in self.set:
            elements = (0, 1, 2) if self.set[":INP:WIR"] == "P3W4" else (0, 2)  # 1P3W, 3P3W, 3V3A: P1 + P3
            return number(sum(self.core.shown[element].watts for element in elements))
        if not element.isdigit() or int(element) > len(self.core.loads):
            return "NAN"
        shown = self.core.shown[int(element) - 1]
        if function == "WH":
            return number(self.core.watt_hours[int(element) - 1], 6) if self.core.holds_integral else "NAN"
        value = {"U": shown.volts, "I": shown.amperes, "P": shown.watts, "LAMB": shown.power_factor}.get(function)
        return number(value if value is not None else math.nan)


class Wt210(YokogawaMeter):
    """A WT210 in 488.2 mode."""

    identity = "YOKOGAWA,760401,0,F1.12"
    items = (
        *("V", "A", "W", "VA", "VAR", "PF", "DEGR", "VHZ", "AHZ", "WH", "WHP", "WHM", "AH", "AHP", "AHM"),
        *("MATH", "VPK", "APK", "TIME"),
    )
    settings: ClassVar[dict[str, str]] = {
        ":CONF:CFAC": "3",
        ":CONF:MODE": "RMS",
        ":CONF:SYNC": "VOLTAGE",
        ":CONF:LFIL": "0",
        ":CONF:FILT": "0",
        ":CONF:AVER:STAT": "0",
        ":CONF:MHOL": "0",
        ":STAT:FILT1": "NEVER",
        **{f":MEAS:ITEM:{item}": "1" if item in ("V", "A", "W", "VHZ") else "0" for item in items},
    }
    switches = frozenset(
        {":CONF:LFIL", ":CONF:FILT", ":CONF:AVER:STAT", ":CONF:MHOL", *(f":MEAS:ITEM:{item}" for item in items)}
    )
    refused_while_integrating = (":CONF:",)

    def _special(self, head: str, value: str) -> object:
        if head == ":SAMP:RATE?":
            return self._told(head, f"{self.core.period_s:.1E}")
        if head == ":SAMP:RATE":
            self.core.set_period(float(value))
            return None
        if head == ":MEAS:VAL?":
            chosen = [item for item in self.items if self.set[f":MEAS:ITEM:{item}"] == "1"]
            return self._told(head, ",".join(map(self._item, chosen)))
        if head.startswith((":CONF:VOLT:", ":CONF:CURR:")):
            return self._range(head, value, "volts" if ":VOLT:" in head else "amperes")
        return super()._special(head, value)

    def _item(self, item: str) -> str:
        shown = self.core.shown[0]
        if item == "WH":
            return number(self.core.watt_hours[0], 6) if self.core.holds_integral else "9.91E+37"
        value = {"V": shown.volts, "A": shown.amperes, "W": shown.watts, "PF": shown.power_factor}.get(item, math.nan)
        if math.isnan(value):
            return "9.91E+37"
        return "9.90E+37" if math.isinf(value) else number(value)


def number(value: float, digits: int = 5) -> str:
    """As the meters write numbers: 232.75E+00, with exponents that are multiples of three."""
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INF"
    exponent = 3 * math.floor(math.log10(abs(value)) / 3) if value else 0
    mantissa = value / 10**exponent
    before = len(str(int(abs(mantissa))))
    return f"{mantissa:.{max(digits - before, 1)}f}E{exponent:+03d}"
