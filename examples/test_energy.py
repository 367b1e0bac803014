"""Tests that measure energy: `pytest examples/test_energy.py`, or with `--measure-energy` a figure for every test."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest

from director import MeasuredBlock

DATA = bytes(range(256)) * 2_000


def test_compressing_costs_less_than_a_limit(energy: Callable[..., MeasuredBlock]) -> None:
    with energy() as m:
        for _ in range(10):
            zlib.compress(DATA)
    if m.joules is None:
        pytest.skip(m.reason)
    assert m.joules < 500, m


def test_a_lower_level_gives_the_same_data() -> None:
    assert zlib.decompress(zlib.compress(DATA, level=1)) == DATA
