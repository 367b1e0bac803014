"""One number of a device as SNMP gives it, and what is to be believed of it. Bytes and sockets are the client's."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from drivers.contract import Channel, Kind, Quantity, Scope, Status, Unavailable
from drivers.host_list import Host
from drivers.polling import Freshness
from drivers.snmp.ber import Oid
from drivers.snmp.pdu import Value

Table = dict[Oid, Value]  # by index
Walk = Callable[[Oid], Awaitable[Table]]  # reads a column of a table; raises ReadFailed

_OUTLET = re.compile(r"[0-9]{1,10}(\.[0-9]{1,10}){0,3}(=[\w-]{1,64})?", re.ASCII)
# No MIB states an accuracy.
_PERCENT = 5.0
_SOURCE = "assumed ± 5 %, as the MIB states no accuracy: see the data sheet, then set accuracy_percent"


@dataclass(frozen=True)
class Place:
    """What a number belongs to."""

    device: str
    scope: Scope
    parent: str | None = None
    text: str = ""


@dataclass(frozen=True)
class Metric:
    """A channel, and the objects that tell its value."""

    channel: Channel
    value: Oid
    highest: int
    state: Oid | None = None  # of a sensor that says whether it works …
    works: frozenset[int] | None = None  # … which it does in these states; None: in all but -1
    stamp: Oid | None = None  # when the device last took the value
    freshness: Freshness = field(default_factory=Freshness)

    @property
    def oids(self) -> list[Oid]:
        return [oid for oid in (self.value, self.state, self.stamp) if oid is not None]

    def judge(self, values: Mapping[Oid, Value]) -> tuple[float | int, Status]:
        """The raw value and its status, from the device's answers."""
        value = values.get(self.value)
        absent: float | int = float("nan") if self.channel.kind == "gauge" else 0
        if value is None or value == -1:  # -1: this model cannot tell
            return absent, Status.MISSING
        if self.state is not None:
            state = values.get(self.state)
            if not isinstance(state, int) or (state == -1 if self.works is None else state not in self.works):
                return absent, Status.MISSING
        if not isinstance(value, int) or not 0 <= value <= self.highest:
            return absent, Status.INVALID
        stamp = values.get(self.stamp) if self.stamp is not None else None
        raw = float(value) if self.channel.kind == "gauge" else value
        return raw, self.freshness.judge(stamp or None, (value,))


def make_metric(
    host: Host,
    place: Place,
    quantity: Quantity,
    *,
    value: Oid,
    step: float,
    highest: int = 2**31 - 1,
    update_period_s: float | None = None,
    state: Oid | None = None,
    works: frozenset[int] | None = None,
    stamp: Oid | None = None,
    model: str = "",
) -> Metric:
    """A metric whose raw value counts steps of `step` W or J; its accuracy beyond them is assumed, or set by the user.

    A gauge is off by half a step. A counter is cut at both ends of an interval: its difference by a whole one.
    """
    kind: Kind = "counter" if quantity == "energy" else "gauge"
    unit = "J" if quantity == "energy" else "W"
    cut = step if quantity == "energy" else step / 2
    channel = Channel(
        name=f"snmp/{place.device}/{quantity}",
        device=place.device,
        quantity=quantity,
        unit=unit,
        kind=kind,
        scope=place.scope,
        parent=place.parent,
        model=model,
        scale=step,
        update_period_s=update_period_s,
        accuracy=host.accuracy(_PERCENT, cut, f"{_SOURCE}, and its steps of {step:g} {unit}"),
        description=place.text,
    )
    return Metric(channel, value, highest, state, works, stamp)


def wanted_outlets(host: Host) -> dict[str, str] | None:
    """The setting `outlets`, such as "3=node17,4=node17" or "3,4": which count, and what each feeds. None: all.

    Raises:
        Unavailable: it has another form.
    """
    text = host.settings.get("outlets", "").strip()
    if not text:
        return None
    wanted: dict[str, str] = {}
    for part in text.split(","):
        number, _, fed = part.strip().partition("=")
        if not _OUTLET.fullmatch(part.strip()) or number in wanted:
            raise Unavailable(
                f"outlets is {text!r}, where {part!r} is no outlet, or is there twice",
                "give numbers, and what they feed: outlets=3=node17,4=node17",
            )
        wanted[number] = fed
    return wanted


def outlet_place(host: Host, number: str, fed: str | None, parent: str | None) -> Place:
    """Of an outlet: a device of its own, which is inside the PDU's total where that is read, too."""
    feeds = f", feeds {fed}" if fed else ""
    prefix = f"{fed}-" if fed else ""
    device = f"{prefix}{host.name}-outlet{number.replace('.', '-')}"
    return Place(device, "wall", parent, f"outlet {number} of {host.name} at {host.address}{feeds}")


def keep_wanted(found: Sequence[str], wanted: Mapping[str, str] | None, what: str) -> list[str]:
    """The numbers to read.

    Raises:
        Unavailable: one that is wanted is not there.
    """
    if wanted is None:
        return list(found)
    lacking = [number for number in wanted if number not in found]
    if lacking:
        there = ", ".join(found[:48]) or "none"
        raise Unavailable(
            f"the device has no metered {what} {', '.join(lacking)}; it has {there}", "correct snmp.outlets"
        )
    return list(wanted)


def dotted(index: Oid) -> str:
    return ".".join(map(str, index))
