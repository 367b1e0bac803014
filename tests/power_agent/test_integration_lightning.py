"""The Lightning callback in real trainings: the example, one that raises, and one whose callback makes mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from example_runs import EXAMPLES, measured, unmeasured

for package in ("sklearn", "torch", "lightning"):
    pytest.importorskip(package)

EXAMPLE = str(EXAMPLES / "lightning_callback.py")
# The example, and then what goes wrong, in one process: importing Lightning takes ten times what all this does.
SCRIPT = """
import runpy, sys, torch
example = runpy.run_path(sys.argv[1], run_name="__main__")
import LIGHTNING as lightning
from torch.utils.data import DataLoader, TensorDataset
from power_agent import phase
from power_agent.integrations.lightning import PhaseCallback

data = DataLoader(TensorDataset(torch.zeros(40, 64), torch.zeros(40, dtype=torch.long)), batch_size=16)

def fit(callback, fails_at=None):
    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, 10)
        def training_step(self, batch, index):
            if index == fails_at:
                raise KeyError("mine")
            return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)
    lightning.Trainer(
        max_epochs=1, callbacks=[callback], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Model(), data)

assert issubclass(PhaseCallback, lightning.Callback)
with phase("steps"):
    fit(PhaseCallback(steps=True, work=lambda batch: {"samples": len(batch[0]), "tokens": batch[0].numel()}))
with phase("raises"):
    try:
        fit(PhaseCallback(), fails_at=1)
    except KeyError as error:
        assert error.args == ("mine",)
    else:
        sys.exit("the workload's own exception is lost")
with phase("mistakes"):
    fit(PhaseCallback(work=lambda batch: batch.no_such_thing))
fit(PhaseCallback(), fails_at=0)
"""


def test_the_example_and_what_goes_wrong(tmp_path: Path) -> None:
    run = measured(tmp_path, "-c", SCRIPT.replace("LIGHTNING", "lightning.pytorch"), EXAMPLE)
    assert run.done.returncode == 1  # of the last training
    assert run.done.stderr.rstrip().endswith("KeyError: 'mine'")
    assert not any(phase["flags"] for phase in run.phases)

    example, steps, raises, mistakes, last = run.named("run")
    assert example["work_samples"] == 4500 and example["attributes"] == {}
    assert run.column("epoch", "index")[:3] == [0, 1, 2]
    assert run.column("epoch", "work_samples")[:3] == [1500] * 3
    assert run.column("eval", "work_samples") == [297] * 3
    assert run.column("sanity_check", "work_samples") == [128]  # two batches
    assert run.column("predict", "work_samples") == [297]
    assert run.parents("eval") == {"epoch"} and run.parents("epoch") == run.parents("sanity_check") == {"run"}
    assert run.parents("predict") == {None}
    assert run.metric("joules-to-train")["value"] > 0

    assert run.column("step", "index") == [0, 1, 2]
    assert run.column("step", "work_samples") == [16, 16, 8]
    assert (steps["work_samples"], steps["work_tokens"]) == (40, 40 * 64)

    for phase in (raises, last):
        assert phase["attributes"] == {"status": "aborted", "error": "KeyError"}
    (outer,) = run.named("raises")
    assert outer["begin_ns"] < raises["begin_ns"] < raises["end_ns"] < outer["end_ns"]
    assert raises["work_samples"] == 16

    assert mistakes["work_samples"] is None  # unknown, and no zero
    assert run.done.stderr.count("power-agent: ") == 1
    assert "AttributeError: 'list' object has no attribute 'no_such_thing'" in run.done.stderr


@pytest.mark.long
def test_the_example_runs_the_same_without_a_measurement(tmp_path: Path) -> None:
    alone, run = unmeasured(tmp_path, EXAMPLE), measured(tmp_path, EXAMPLE)
    assert alone.returncode == run.done.returncode == 0
    assert alone.stdout == run.done.stdout
    assert sorted(alone.stderr.splitlines()) == sorted(run.done.stderr.splitlines())


@pytest.mark.long
def test_the_older_package_is_served_too(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_lightning")
    script = SCRIPT.replace("LIGHTNING", "pytorch_lightning").replace("example = ", "# ")
    run = measured(tmp_path, "-c", script)
    assert run.done.stderr.rstrip().endswith("KeyError: 'mine'")
    assert run.column("run", "work_samples") == [40, 16, None, None]
    assert not any(phase["flags"] for phase in run.phases)
