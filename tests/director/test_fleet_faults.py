"""Faults of every part of a served fleet: what was acknowledged is kept, nothing comes twice, and the job ends as ever.

See faulty_fleet; loss, repetition and reordering of messages are in test_fleet_store.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("zmq", reason="needs pyzmq: pip install 'ml-power-agent[fleet]'")

from faulty_fleet import Lasting, run_faults
from nvml_stub import compiler

QUICK = Lasting(stopped=0.5, cut=0.5, full=1.0)


def check(folder: Path, seed: int, lasting: Lasting, kinds: tuple[str, ...], each: int) -> None:
    counts = run_faults(folder / "fleet", seed, lasting, kinds, each)
    assert sum(counts.faults.values()) >= len(kinds) and counts.recorded > 0
    assert (counts.acknowledged_lost, counts.duplicates, counts.wrong_exits) == (0, 0, 0)
    assert counts.most_lost_s <= 1.0


def test_killed_parts_lose_no_acknowledged_reading(tmp_path: Path) -> None:
    check(tmp_path, 1, QUICK, ("agent and sampler killed", "director killed", "agent killed"), 3)


def test_a_network_that_is_cut_and_deleted_files_lose_no_acknowledged_reading(tmp_path: Path) -> None:
    check(tmp_path, 2, QUICK, ("connections reset", "network cut", "agent and sampler killed, files deleted"), 3)


@pytest.mark.skipif(os.getuid() != 0, reason="root alone can mount the small disks that are filled here")
def test_full_disks_lose_nothing(tmp_path: Path) -> None:
    check(tmp_path, 3, QUICK, ("agent's disk full", "director's disk full"), 2)


@pytest.mark.skipif(compiler() is None, reason="no C compiler for the library that sets the wall clock: install gcc")
def test_wall_clocks_that_are_set_move_nothing_and_are_told(tmp_path: Path) -> None:
    check(tmp_path, 4, QUICK, ("agent's clock set", "director's clock set"), 2)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 115))
def test_every_fault_one_after_the_other(tmp_path: Path, seed: int) -> None:
    check(tmp_path, seed, Lasting(), (), 2)


@pytest.mark.long
def test_faults_that_last_long(tmp_path: Path) -> None:
    check(tmp_path, 115, Lasting(stopped=30.0, cut=60.0, full=10.0), (), 2)
