"""Figures as a person reads them: with a prefix that fits, and no more digits than the uncertainty allows."""

from __future__ import annotations

import math

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_PREFIXED = ("J", "J/", "J·s", "sample/J", "token/J", "query/J", "stream/J")


def figure_text(value: float, expanded: float | None, unit: str) -> str:
    """`12.3 ± 0.4 kJ`; U with two digits, the value as far as U reaches.

    >>> figure_text(12345.6, 432.1, "J")
    '12.35 ± 0.43 kJ'
    >>> figure_text(0.001, None, "J")
    '1.000 mJ'
    >>> figure_text(-0.3, 90.0, "J")
    '0 ± 90 J'
    """
    scale, prefix = _prefix(max(abs(value), abs(expanded or 0.0)), unit)
    unit = unit.replace(" (= ", f" (= {prefix}")  # another name of the unit, which takes the prefix too
    shown = value / scale
    if expanded is None or not math.isfinite(expanded) or expanded <= 0:
        return f"{_four_digits(shown)} {prefix}{unit}".strip()
    u = expanded / scale
    digits = min(max(1 - math.floor(math.log10(u)), 0), 9)
    shown = round(shown, digits) + 0.0  # not "-0"
    return f"{shown:.{digits}f} ± {u:.{digits}f} {prefix}{unit}".strip()


def _prefix(size: float, unit: str) -> tuple[float, str]:
    if not unit.startswith(_PREFIXED) or size == 0 or not math.isfinite(size):
        return 1.0, ""
    return next(((s, p) for s, p in _PREFIXES if size >= s), _PREFIXES[-1])


def _four_digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{min(max(3 - math.floor(math.log10(abs(value))), 0), 9)}f}"


def share_text(share: float) -> str:
    """A share in percent, at most five characters up to 9999 %.

    >>> share_text(0.2887), share_text(0.0003), share_text(0.0)
    ('28.9%', '0.03%', '0%')
    """
    percent = 100 * share
    return f"{percent:.{2 if percent < 10 else 1 if percent < 100 else 0}f}%" if percent else "0%"


def watts_text(watts: float | None) -> str:
    """Power with the digits that fit a table."""
    if watts is None:
        return "–"
    return f"{watts:.0f}" if abs(watts) >= 1000 else f"{watts:.1f}"


def duration_text(seconds: float) -> str:
    """`850 ms`, `12.3 s`, `1 h 02 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
