"""What a reviewer is told of the difference between official and physical energy, whatever kind of result it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_SHARE = 0.0005  # of the physical energy; smaller causes are not told


@dataclass
class Cause:
    """A part of official − physical energy."""

    kind: str  # "window", "readings", "switch" or "scaling"
    joules: float
    text: str


def cause_text(causes: Sequence[Cause], physical_joules: float | None) -> str:
    """The causes that matter, largest first, each with its share of the physical energy."""
    if not physical_joules:
        return ""
    shares = sorted(((cause.joules / physical_joules, cause.text) for cause in causes), key=lambda c: -abs(c[0]))
    told = [f"{share:+.2%} {text}" for share, text in shares if abs(share) >= LEAST_SHARE]
    return "; ".join(told) or "none above 0.05 %"


def plain(text: str) -> str:
    """Text that others wrote, without characters that move the cursor."""
    return "".join(c if c.isprintable() else "�" for c in text)
