"""The published MLPerf Inference power sessions and what the official code says of them, where they are at hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "inference"
SESSIONS = GOLDEN / "sessions"

needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden logs (../shared/golden) are not here")


def golden() -> list[dict[str, str]]:
    """The official figures, a row per session; none where the logs are not here."""
    if not GOLDEN.is_dir():
        return []
    with (GOLDEN / "golden.csv").open(newline="") as file:
        return list(csv.DictReader(file))
