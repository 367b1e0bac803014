"""What one analyzer says and understands, as data: the same for those that are built in and those of a TOML file.

Commands are text for the wire; `{value}` in them is replaced by a setting's value. Numbers are in SI units.
"""

from __future__ import annotations

import re
from typing import Literal

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


class Ranges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ranges that a meter has, ascending, and how they are set. Without commands the user's word is taken."""

    volts: tuple[float, ...]
    amperes: tuple[float, ...]
    ask_volts: str = ""
    set_volts: str = ""
    ask_amperes: str = ""
    set_amperes: str = ""
    ask_auto_volts: str = ""  # replies 0 or OFF, or else it is on
    set_auto_volts: str = ""
    ask_auto_amperes: str = ""
    set_auto_amperes: str = ""
    on: str = "ON"  # what the commands of automatic ranges are told
    off: str = "OFF"
    halving_crest_factors: tuple[str, ...] = ()  # replies to the knob `crest_factor` at which all ranges are half


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

    @property
    def elements(self) -> tuple[int, ...]:
        """Those whose power is read."""
        return tuple(item.element for item in self.items if item.quantity == "watts")

    def __post_init__(self) -> None:
        """Raises ValueError for what msgspec cannot see."""
        for pattern in (self.identity, self.no_error, self.number, self.missing, self.over):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        kinds = [(item.quantity, item.element) for item in self.items]
        if not self.elements:
            raise ValueError("no item is of the quantity 'watts'")
        if len(set(kinds)) < len(kinds):
            raise ValueError("two items have one quantity and one element")
        if not self.separator:
            raise ValueError("the separator is empty")
        for knob in self.knobs:
            if "{value}" not in knob.set:
                raise ValueError(f"the command {knob.set!r} has no {{value}}")
        if self.ranges is not None:
            for ranges in (self.ranges.volts, self.ranges.amperes):
                if not ranges or list(ranges) != sorted(set(ranges)) or ranges[0] <= 0:
                    raise ValueError("ranges are numbers above 0, in ascending order")
