"""The true energy lies within ±U as often as U promises, and U is not padded (see benchmarks/truth.py)."""

from __future__ import annotations

import pytest
import truth


def check(phases: int, seed: int) -> None:
    for row in truth.run(phases, per_trace=5, seed=seed):
        assert row["within_U"] >= 0.95, row
        assert 0.2 <= row["median_error_over_U"] <= 0.7, row


def test_true_energies_lie_within_u() -> None:
    check(phases=1000, seed=1)


@pytest.mark.long
def test_true_energies_lie_within_u_over_many_phases() -> None:
    check(phases=4000, seed=11)
