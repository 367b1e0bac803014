"""Envelopes as the page holds them: a header in JSON, and their values as one deflated text of base64.

Per envelope three series of 16-bit numbers, N each: the mean as differences from bin to bin (modulo 2¹⁶; 65535: not
measured), mean − least, and largest − mean. The unit of the numbers is `step`; mean = (base + number) × step. Of each
series come all low bytes, then all high bytes, which deflate packs better.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from director.report_page.plot_data import Envelope

LEVELS = 10_000  # numbers between the least and the largest value of an envelope
NOT_MEASURED = 0xFFFF


@dataclass(frozen=True)
class Header:
    """How to read one envelope's values."""

    n: int
    t0: float  # s
    w: float  # s, of a bin
    base: int
    step: float


def encode(envelopes: Sequence[Envelope]) -> tuple[list[Header], str]:
    """Headers, and the values of all in their order."""
    headers, parts = [], []
    for envelope in envelopes:
        header, content = _encode(envelope)
        headers.append(header)
        parts.append(content)
    return headers, base64.b64encode(zlib.compress(b"".join(parts), 6)).decode()


def json_in_html(content: object) -> str:
    """JSON for a script element: nothing in it can end the element or start a comment."""
    text = msgspec.json.encode(content).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _encode(envelope: Envelope) -> tuple[Header, bytes]:
    seen = np.isfinite(envelope.mean)
    lowest, highest = float(envelope.least[seen].min()), float(envelope.most[seen].max())
    step = _round_step(highest - lowest, max(abs(lowest), abs(highest)))
    base = math.floor(lowest / step)
    low, mean, high = (
        np.rint(np.where(seen, values, lowest) / step).astype(np.int64) - base
        for values in (envelope.least, envelope.mean, envelope.most)
    )
    middle = np.where(seen, mean, NOT_MEASURED).astype(np.uint16)
    series = (np.diff(middle, prepend=np.uint16(0)), (mean - low).astype(np.uint16), (high - mean).astype(np.uint16))
    planes = [plane for s in series for plane in ((s & 0xFF).astype(np.uint8), (s >> 8).astype(np.uint8))]
    header = Header(
        n=len(envelope.mean),
        t0=envelope.begin_ns * 1e-9,
        w=envelope.bin_ns * 1e-9,
        base=base,
        step=step,
    )
    return header, b"".join(plane.tobytes() for plane in planes)


def _round_step(span: float, size: float) -> float:
    """1, 2 or 5 times a power of ten, so that LEVELS of them hold the span; of a constant, a fine share of it."""
    least = max(span / LEVELS, size * 1e-6, 1e-9)
    power = 10.0 ** math.floor(math.log10(least))
    return next((m * power for m in (1, 2, 5) if m * power >= least), 10 * power)
