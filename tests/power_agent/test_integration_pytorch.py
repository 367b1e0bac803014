"""A plain PyTorch loop, alone and under torchrun, as its user runs it.

Importing torch and its optimizers takes each process ten seconds of CPU time, so these are long.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from example_runs import EXAMPLES, measured, unmeasured

pytest.importorskip("sklearn")
pytest.importorskip("torch")

pytestmark = pytest.mark.long


def test_a_loop_gives_its_phases_and_runs_the_same_without_a_measurement(tmp_path: Path) -> None:
    example = str(EXAMPLES / "pytorch_loop.py")
    run = measured(tmp_path, example)
    assert run.done.returncode == 0, run.done.stderr
    assert run.column("run", "work_samples") == [4500]
    assert run.column("epoch", "index") == [0, 1, 2]
    assert run.column("epoch", "work_samples") == [1500] * 3
    assert run.column("eval", "work_samples") == [297] * 3
    assert run.parents("epoch") == run.parents("eval") == {"run"}
    assert not any(phase["flags"] for phase in run.phases)
    assert run.metric("joules-to-train")["value"] > 0

    alone = unmeasured(tmp_path, example)
    assert (alone.returncode, alone.stdout) == (0, run.done.stdout)
    assert run.done.stderr == alone.stderr == ""


def test_every_rank_of_torchrun_marks_and_energy_counts_once(tmp_path: Path) -> None:
    example = str(EXAMPLES / "torchrun_ddp.py")
    run = measured(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", example)
    assert run.done.returncode == 0, run.done.stderr
    assert sorted(run.column("run", "rank")) == [0, 1]
    assert len(set(run.column("epoch", "lane"))) == 2
    for rank in (0, 1):
        assert [phase["index"] for phase in run.named("epoch") if phase["rank"] == rank] == [0, 1, 2]
    assert run.column("epoch", "work_samples") == [1797 // 2] * 6
    assert not any(phase["flags"] for phase in run.phases)

    groups = {group["name"]: group for group in run.summary["phases"]}
    both = [(phase["begin_ns"], phase["end_ns"]) for phase in run.named("run")]
    last_end, first_begin = max(end for _, end in both), min(begin for begin, _ in both)
    assert max(begin for begin, _ in both) < min(end for _, end in both)  # ranks work at the same time
    assert groups["run"]["duration_s"] == pytest.approx((last_end - first_begin) / 1e9)
    assert groups["run"]["total"]["joules"] < groups["command"]["total"]["joules"]
    assert groups["epoch"]["lane_count"] == 3
    assert groups["epoch"]["work"] == {"samples": 6 * 898}
    assert run.metric("energy per epoch")["value"] == pytest.approx(groups["epoch"]["total"]["joules"] / 3)
