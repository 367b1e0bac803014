"""What to say of hosts that were named and that nobody knows: a misspelt one shall not be waited for in silence."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

_MOST_LISTED = 8


def not_enrolled(hosts: Collection[str], enrolled: Collection[str]) -> str:
    """Those of `hosts` whose agents have no key here, in plain words; empty: all have."""
    unknown = [host for host in hosts if host not in enrolled]
    if not unknown:
        return ""
    named = [f"{host} is not enrolled{_meant(host, enrolled)}" for host in unknown[:_MOST_LISTED]]
    return f"{'; '.join(named)}. Enrolled are {_listed(enrolled)}. To enrol an agent: power-director keys add NAME KEY"


def not_connected(hosts: Collection[str], connected: Collection[str]) -> list[str]:
    """What to say of each of these hosts, which have not come yet."""
    return [
        f"{host} is not connected{_meant(host, connected)}; connected now: {_listed(connected)}"
        for host in hosts
        if host not in connected
    ]


def _meant(host: str, known: Collection[str]) -> str:
    close = get_close_matches(host, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _listed(hosts: Collection[str]) -> str:
    names = sorted(hosts)
    return (", ".join(names[:_MOST_LISTED]) or "none") + (
        f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    )
