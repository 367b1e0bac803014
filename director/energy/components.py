"""The power tree: which devices contain which, and the cut over which a total is taken.

A total is the sum over the outermost measured devices, so that no joule counts twice: where a wall meter sees the
node, the node's own sensor and its GPUs explain the wall figure but are not added to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from drivers.contract import Channel, Scope

# Scopes that may contain a scope, innermost first.
_WITHIN: dict[Scope, tuple[Scope, ...]] = {
    "wall": (),
    "node": ("wall",),
    "psys": ("node", "wall"),
    "module": ("node", "wall"),
    "package": ("psys", "module", "node", "wall"),
    "dram": ("psys", "module", "node", "wall"),
    "core": ("package", "psys", "module", "node", "wall"),
    "uncore": ("package", "psys", "module", "node", "wall"),
    "gpu": ("module", "node", "wall"),
    "gpu_memory": ("gpu", "module", "node", "wall"),
}


@dataclass
class Component:
    """One device of one host with the channels that tell its power or energy."""

    host: str
    device: str
    scope: Scope
    channels: list[Channel] = field(default_factory=list)
    parent: Component | None = None
    interconnect: bool = False  # a switch, which holds nothing else of its host
    measures: str = ""  # the host whose power it sees; empty: its own

    @property
    def of_host(self) -> str:
        """The host whose power it sees."""
        return self.measures or self.host

    @property
    def name(self) -> str:
        """`host/device`."""
        return f"{self.host}/{self.device}"

    @property
    def estimate(self) -> bool:
        """Whether every channel is a model's word, not a measurement."""
        return all(channel.estimate for channel in self.channels)

    @property
    def counted(self) -> bool:
        """Whether it can stand in a total: its place in the tree is known."""
        return self.scope in _WITHIN


def build_tree(channels: Sequence[tuple[str, Channel]], measures: Mapping[str, str] | None = None) -> list[Component]:
    """Components of (host, channel) pairs, power and energy channels only, each with its parent, outermost first.

    `measures`: by `host/device`, which other host's power it sees.
    """
    found: dict[tuple[str, str, Scope], Component] = {}
    for host, channel in channels:
        if channel.quantity not in ("power", "energy") or channel.scope == "none" or channel.kind == "state":
            continue
        # one board, named "module0" by NVML and "module-0" by its own rail sensors
        device = channel.device.replace("module-", "module") if channel.scope == "module" else channel.device
        key = (host, device, channel.scope)
        found.setdefault(key, Component(host, device, channel.scope)).channels.append(channel)
    components = sorted(found.values(), key=lambda c: (natural(c.host), c.host, _depth(c.scope), natural(c.device)))
    beside: dict[str, list[Component]] = {}
    for component in components:
        component.measures = (measures or {}).get(component.name, "")
        beside.setdefault(component.of_host, []).append(component)
    for component in components:
        component.parent = _parent(component, beside[component.of_host])
    return components


def may_lie_within(inner: Scope, outer: Scope) -> bool:
    """Whether what is seen of one scope may be a part of what is seen of the other."""
    return outer in _WITHIN.get(inner, ())


def roots(components: Sequence[Component]) -> list[Component]:
    """The cut for totals: counted components that no other measured component contains.

    A component whose place in the tree is unknown stands for all of its host where it is the only one: nothing counts
    twice then.
    """
    of_host = Counter((c.of_host, c.interconnect) for c in components)
    return [c for c in components if c.parent is None and (c.counted or of_host[c.of_host, c.interconnect] == 1)]


def split_interconnect(
    channels: Sequence[tuple[str, Channel]], names: Sequence[str]
) -> tuple[list[tuple[str, Channel]], list[tuple[str, Channel]], list[str]]:
    """Channels of nodes and of the interconnect, and names that fit none: `HOST/DEVICE`, or `HOST` for all it has."""
    wanted = set(names)
    nodes: list[tuple[str, Channel]] = []
    switches: list[tuple[str, Channel]] = []
    fitted: set[str] = set()
    for host, channel in channels:
        fits = wanted & {host, f"{host}/{channel.device}"}
        fitted |= fits
        (switches if fits else nodes).append((host, channel))
    return nodes, switches, sorted(wanted - fitted)


def children(component: Component, components: Sequence[Component]) -> list[Component]:
    """Components directly inside."""
    return [c for c in components if c.parent is component]


def _depth(scope: Scope) -> int:
    order = list(_WITHIN)
    return order.index(scope) if scope in _WITHIN else len(order)


def natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts "gpu2" before "gpu10"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _parent(component: Component, candidates: Sequence[Component]) -> Component | None:
    named = {channel.parent for channel in component.channels if channel.parent}
    for candidate in candidates:
        if candidate is not component and candidate.device in named:
            return candidate
    for scope in _WITHIN.get(component.scope, ()):
        around = [c for c in candidates if c.scope == scope]
        if scope == "module":  # a module holds only what its number says: not every GPU sits on one
            around = [c for c in around if _number(c.device) == _number(component.device)]
        if not around:
            continue
        same = [c for c in around if _number(c.device) == _number(component.device)]
        # several of that scope and none of the same number: it lies in one of them, whichever, and must not be added
        return (same or around)[0]
    return None


def _number(device: str) -> str:
    match = re.search(r"\d+", device)
    return match.group() if match else ""
