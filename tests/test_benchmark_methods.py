"""The rules that the error curves compare with, against figures worked out by hand."""

from __future__ import annotations

import os
from pathlib import Path

import error_curves
import numpy as np
import pytest
from simulated_devices import WALL_METER, Profile
from simulated_work import DEVICES, LENGTHS_S, PLACES, Work, make_work


class Meter:
    """Shows 100 W until instant 2, and 300 W from then on; a counter of its millijoules."""

    def at(self, t: np.ndarray) -> np.ndarray:
        return np.where(t < 2.0, 1000.0, 3000.0)


def phase(begin_s: float, end_s: float) -> Work:
    edges = np.array([begin_s]), np.array([end_s])
    return Work(Meter(), 1.0, [0], *edges, np.array([0.0]), [], 10.0)  # type: ignore[arg-type]


READS_S = np.array([0.5, 1.5, 2.5, 3.5, 4.5])  # 100, 100, 300, 300, 300 W


@pytest.mark.parametrize(
    ("key", "begin_s", "end_s", "joules"),
    [
        ("inference", 1.0, 4.0, (100 + 300 + 300) / 3 * 3.0),
        ("training", 1.0, 4.0, 300.0 + 300.0),  # the first sample has none before it
        ("smi", 1.0, 4.0, 700.0),
        ("sum", 1.0, 4.0, 700.0 / WALL_METER.rate_hz),
        ("inference", 1.6, 2.4, 0.0),  # no sample within
        ("training", 1.0, 2.4, 0.0),
    ],
)
def test_rules_for_power(key: str, begin_s: float, end_s: float, joules: float) -> None:
    found = error_curves.power_rules(WALL_METER, phase(begin_s, end_s), READS_S, key)
    assert found == pytest.approx([joules])


def test_true_energy_is_that_of_the_straight_lines() -> None:
    load = Profile([0.0, 2.0, 2.0, 4.0], [100.0, 300.0, 50.0, 50.0])
    assert load.energy(np.array([0.0, 1.0, 2.0, 3.0])) == pytest.approx([0.0, 150.0, 400.0, 450.0])


@pytest.mark.parametrize("place", PLACES)
def test_phases_have_the_lengths_and_the_counter_their_energy(place: str) -> None:
    device = DEVICES["rapl"]
    work = make_work(device, place, 4)
    assert work.by_length(work.end_s - work.begin_s) == pytest.approx(LENGTHS_S)
    joules = error_curves.counter_rules(device, work, "edges")
    gain = joules[work.length_numbers.index(11)] / work.true_joules[work.length_numbers.index(11)]
    assert abs(gain - 1) <= 0.05
    assert joules == pytest.approx(gain * work.true_joules, rel=0.2)  # at 50 ms, a step of 1 ms on either side


def test_peers_own_code_reads_the_same_devices() -> None:
    python = os.environ.get("PEERS_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("set PEERS_PYTHON to an interpreter that has zeus and codecarbon")
    found = error_curves.peers("gpu-counter", python, 1)
    for place in PLACES:
        work = make_work(DEVICES["gpu-counter"], place, 0)
        assert found[place]["true"] == [pytest.approx(work.by_length(work.true_joules))]
        rule = work.by_length(error_curves.counter_rules(DEVICES["gpu-counter"], work, "edges"))
        assert found[place]["zeus"] == [pytest.approx(rule, abs=2e-3)]
        assert found[place]["codecarbon"] == [pytest.approx(rule, rel=1e-5)]  # it counts in kWh, rounded
