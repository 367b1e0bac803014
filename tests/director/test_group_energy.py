"""Energies of many phases together, under clocks that are wrong for all of them alike."""

from __future__ import annotations

import numpy as np
import pytest

from director.energy.align import Piece
from director.energy.component_energy import ComponentEnergy, Intervals, Source, component_energy
from director.energy.components import build_tree
from director.energy.group_energy import component_figure
from drivers.contract import Channel, Status

S = 1_000_000_000
PHASES = 200
LOW_WATTS, HIGH_WATTS = 100.0, 300.0
CYCLE_S, LOW_S, RATE_HZ = 4.0, 2.0, 100
LATE_S = 0.02

CHANNEL = Channel(
    name="d/gpu0/power", device="gpu0", quantity="power", unit="W", kind="gauge", scope="gpu", window_s=0.0
)


def energies(first_s: float, last_s: float, bound_s: float) -> ComponentEnergy:
    """Of a phase in each cycle, which begins so long after low power does and ends so long after."""
    t_s = np.arange(0, (PHASES + 1) * CYCLE_S, 1 / RATE_HZ)
    watts = np.where(t_s % CYCLE_S < LOW_S, LOW_WATTS, HIGH_WATTS)
    piece = Piece(
        np.round(t_s * S).astype(np.int64),
        np.zeros(len(t_s), np.int64),
        [watts],
        [np.full(len(t_s), Status.NEW, np.uint8)],
    )
    starts_s = np.arange(PHASES) * CYCLE_S
    intervals = Intervals(
        np.round((starts_s + first_s) * S).astype(np.int64),
        np.round((starts_s + last_s) * S).astype(np.int64),
        np.full(PHASES, bound_s * S),
        [],
    )
    (component,) = build_tree([("node0", CHANNEL)])
    return component_energy(component, [Source(CHANNEL, RATE_HZ, lambda: [piece])], intervals, 0)


@pytest.mark.parametrize(("first_s", "last_s"), [(1.0, 3.0), (3.0, 5.0)])
def test_a_clock_that_is_late_moves_all_phases_alike(first_s: float, last_s: float) -> None:
    """Each phase begins at one power and ends at the other: what a late clock moves adds up."""
    rows = np.arange(PHASES)
    right = component_figure(energies(first_s, last_s, LATE_S), rows)
    late = component_figure(energies(first_s + LATE_S, last_s + LATE_S, LATE_S), rows)
    assert right.joules is not None and late.joules is not None and right.expanded_joules is not None
    moved = PHASES * (HIGH_WATTS - LOW_WATTS) * LATE_S
    assert abs(late.joules - right.joules) == pytest.approx(moved, rel=0.01)
    assert right.terms["sync"] == pytest.approx(moved / np.sqrt(3), rel=0.01)
    assert right.expanded_joules > moved


def test_where_phases_begin_and_end_at_one_power_a_late_clock_costs_nothing_in_sum() -> None:
    found = energies(0.5, 1.5, LATE_S)
    figure = component_figure(found, np.arange(PHASES))
    one = float(found.energies.terms["sync"][0])
    assert one == pytest.approx(LATE_S / np.sqrt(3) * np.hypot(LOW_WATTS, LOW_WATTS), rel=0.01)
    assert figure.terms["sync"] == pytest.approx(one * np.sqrt(PHASES), rel=0.01)
