"""Which machine a meter measures that is read on another one."""

from __future__ import annotations

from collections.abc import Sequence, Set

from director.energy.components import Component, may_lie_within
from director.session.files import SessionError
from drivers.contract import Scope


def check_measured(measures: Sequence[tuple[str, str]], hosts: Sequence[str]) -> None:
    """Whether the session has the hosts that somebody says meters of others measure.

    Raises:
        SessionError: it has not, or a device is said to measure two.
    """
    said: dict[str, str] = {}
    for device, host in measures:
        if host not in hosts:
            raise SessionError(f"--measures {device}={host}: the session has no host {host}; it has {', '.join(hosts)}")
        if said.setdefault(device, host) != host:
            raise SessionError(f"--measures {device}: it is said to measure {said[device]} and {host}; it can be one")


def counted_twice(cut: Sequence[Component], at_work: Set[str]) -> list[str]:
    """A warning where the total adds what may be a meter of a machine to what that machine measures of itself.

    A host on which nothing was run, and which reads nothing but whole machines, looks like one that reads meters of
    others. Args: `cut`, what the total is taken over; `at_work`, hosts that the job is known to have run on.
    """
    of_host: dict[str, list[Component]] = {}
    for component in cut:
        if not component.interconnect:
            of_host.setdefault(component.of_host, []).append(component)
    meters: dict[Scope, Component] = {}  # one of each scope
    for host, own in of_host.items():
        if host not in at_work and all(c.scope in ("wall", "node") for c in own):
            for component in own:
                meters.setdefault(component.scope, component)
    for own in of_host.values():
        for component in own:
            meter = next((meters[scope] for scope in meters if may_lie_within(component.scope, scope)), None)
            if meter is not None:
                host = component.of_host
                return [
                    f"the total adds {meter.name} and {component.name}: if that meter measures {host}, the energy of "
                    f"{host} is counted twice; then say so: power-director report --measures {meter.name}={host}"
                ]
    return []
