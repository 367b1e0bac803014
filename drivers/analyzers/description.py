"""What one analyzer says and understands, as data: the same for those that are built in and those of a TOML file.

Commands are text for the wire; `{value}` in them is replaced by a setting's value. Numbers are in SI units.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from drivers.analyzer_uncertainty import Specification

ItemQuantity = Literal["watts", "volts", "amperes", "volt_amperes", "power_factor", "watt_hours"]
ANY_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?"


class Knob(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One setting of the meter. It is asked for before it is changed, and put back at the end."""

    name: str  # what the user calls it: "crest_factor"; empty: not for the user
    ask: str
    set: str
    words: dict[str, str] = {}  # what the user may say, and what is sent for it; empty: numbers, sent as they are
    always: str = ""  # set to this in any case: readings would mean something else
    optional: bool = False  # a meter that does not answer the question is read without


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value of a reading."""

    quantity: ItemQuantity
    element: int = 0  # which input; 0: the only one, or all together
    header: str = ""  # what stands before it in the reply; checked
    over: int = 0  # bits of the condition that say that it clipped
    sum_of: tuple[int, ...] = ()  # the meter's own sum of these elements; checked


class Ranges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ranges that a meter has, ascending, and how they are asked for and set. Without commands, the user's word.

    `{element}` in a command is replaced by each of `elements`: each has its ranges, and all are set alike.
    """

    volts: tuple[float, ...]
    amperes: tuple[float, ...]
    volt_words: dict[str, float] = {}  # what the meter calls its ranges, where it does not call them by their number
    ampere_words: dict[str, float] = {}
    elements: tuple[str, ...] = ("",)
    ask_volts: str = ""
    set_volts: str = ""
    ask_amperes: str = ""
    set_amperes: str = ""
    ask_auto_volts: str = ""  # replies what `off` says, 0 or OFF, or else it is on
    set_auto_volts: str = ""
    ask_auto_amperes: str = ""
    set_auto_amperes: str = ""
    on: str = "ON"  # what the commands of automatic ranges are told
    off: str = "OFF"
    automatic: str = ""  # the word in place of a range with which the meter chooses by itself
    optional: bool = False  # a meter that does not answer the questions: the user's word is taken, nothing is set
    halving_crest_factors: tuple[str, ...] = ()  # replies to the knob `crest_factor` at which all ranges are half

    def check(self) -> None:
        """Raises ValueError for what msgspec cannot see."""
        for table, words, command in (
            (self.volts, self.volt_words, self.set_volts),
            (self.amperes, self.ampere_words, self.set_amperes),
        ):
            if not table or list(table) != sorted(set(table)) or not 0 < table[0] <= table[-1] < math.inf:
                raise ValueError("ranges are numbers above 0, in ascending order")
            if words and command and not set(table) <= set(words.values()):
                raise ValueError("a range has no word")
        pairs = (
            (self.set_volts, self.ask_volts),
            (self.set_amperes, self.ask_amperes),
            (self.set_auto_volts, self.ask_auto_volts),
            (self.set_auto_amperes, self.ask_auto_amperes),
        )
        if any(command and not question for command, question in pairs):
            raise ValueError("a range that is set is asked for, too: it is checked, and put back at the end")
        for command, _ in pairs:
            if command and "{value}" not in command:
                raise ValueError(f"the command {command!r} has no {{value}}")
        if not self.elements:
            raise ValueError("elements is empty; leave it out where commands name none")


class Freshness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the meter tells that it has a new value, and that it clipped."""

    arm: tuple[str, ...] = ()
    ask_updated: str = ""  # reading it clears it
    updated: int = 1  # bits of its reply
    ask_condition: str = ""
    optional: bool = False  # a meter that does not answer is read without


class Stream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A meter that sends a reading by itself at each update."""

    start: tuple[str, ...]
    stop: tuple[str, ...]


class Integrator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the meter integrates by itself."""

    reset: tuple[str, ...]
    start: tuple[str, ...]
    stop: tuple[str, ...]
    ask_state: str = ""
    idle: str = ""  # what its reply matches when no integration is under way and none is held
    optional: bool = False  # a meter that does not answer is taken as idle


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One meter."""

    title: str  # "Yokogawa WT310E"
    identity: str  # regular expression that the reply to `identify` must match
    identify: str = "*IDN?"
    baud: int = 9600
    rtscts: bool = False
    tcp_port: int | None = None
    terminator: Literal["\n", "\r\n", "\r"] = "\n"
    begin: tuple[str, ...] = ()  # sent first
    end: tuple[str, ...] = ()  # sent last
    ask_error: str = ""  # takes one error from the meter's queue
    no_error: str = r"[+-]?0\b"
    knobs: tuple[Knob, ...] = ()
    select: tuple[str, ...] = ()  # chooses what a reading holds
    read: str
    compound: bool = False  # queries may be joined by semicolons, and so are their replies
    separator: str = ","
    number: str = ANY_NUMBER
    missing: str = r"NAN"  # of a value: there is none
    over: str = r"[+-]?INF"  # of a value: it clipped
    items: tuple[Item, ...]
    sums: bool = False  # the elements' power is added up
    sigma_of: dict[str, tuple[int, ...]] = {}  # replies to the knob `wiring`: the elements of the meter's own sum
    period_s: float | None = None  # how often it has a new value; the knob `rate` tells better
    window_s: float | None = None  # what a value averages over; None: its period
    ranges: Ranges | None = None
    freshness: Freshness | None = None
    stream: Stream | None = None
    integrator: Integrator | None = None
    specification: Specification | None = None

    def knob(self, name: str) -> Knob | None:
        """The setting that the user calls so."""
        return next((knob for knob in self.knobs if knob.name == name), None)

    def __post_init__(self) -> None:
        """Raises ValueError for what msgspec cannot see."""
        idle = self.integrator.idle if self.integrator is not None else ""
        for pattern in (self.identity, self.no_error, self.number, self.missing, self.over, idle):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        kinds = [(item.quantity, item.element) for item in self.items]
        if not any(item.quantity == "watts" for item in self.items):
            raise ValueError("no item is of the quantity 'watts'")
        if len(set(kinds)) < len(kinds):
            raise ValueError("two items have one quantity and one element")
        if not self.separator:
            raise ValueError("the separator is empty")
        for knob in self.knobs:
            if "{value}" not in knob.set:
                raise ValueError(f"the command {knob.set!r} has no {{value}}")
        for name, seconds in (("period_s", self.period_s), ("window_s", self.window_s)):
            least = 0.0 if name == "window_s" else 1e-3
            if seconds is not None and not least <= seconds < math.inf:
                raise ValueError(f"{name} is {seconds:g}: it is a number of seconds, at least {least:g}")
        for limit in msgspec.structs.asdict(self.specification).values() if self.specification is not None else ():
            if isinstance(limit, float) and not 0 <= limit < 1:
                raise ValueError(f"the specification says {limit:g}: its limits are shares, from 0 to 1")
        if self.baud <= 0 or not 0 < (self.tcp_port or 1) < 1 << 16:
            raise ValueError("baud and tcp_port are whole numbers above 0")
        for command in _texts(self):
            if not (command.isascii() and command.isprintable()):
                raise ValueError(f"{command!r} cannot be sent: it is not plain text in one line")
        if self.ranges is not None:
            self.ranges.check()


def _texts(part: Any) -> Iterator[str]:
    """Every text in a description: all that could be sent."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, msgspec.Struct):
        for field, value in msgspec.structs.asdict(part).items():
            if field not in ("title", "terminator", "source"):
                yield from _texts(value)
    elif isinstance(part, (tuple, list)):
        for each in part:
            yield from _texts(each)
    elif isinstance(part, dict):
        yield from _texts(list(part.values()))
