"""The Hugging Face callback in real trainings: the example, several evaluations, and trainings that raise."""

from __future__ import annotations

from pathlib import Path

import pytest
from example_runs import EXAMPLES, measured, unmeasured

for package in ("sklearn", "torch", "transformers", "accelerate"):
    pytest.importorskip(package)

EXAMPLE = str(EXAMPLES / "huggingface_trainer.py")
# The example and the rest in one process: importing transformers takes ten times what all this does.
SCRIPT = """
import runpy, sys, torch
example = runpy.run_path(sys.argv[1], run_name="__main__")
from transformers import Trainer, TrainingArguments
from power_agent import phase
from power_agent.integrations.huggingface import PhaseCallback

class Model(torch.nn.Module):
    def __init__(self, fails_at=None):
        super().__init__()
        self.layer, self.calls, self.fails_at = torch.nn.Linear(2, 1), 0, fails_at
    def forward(self, x, labels=None):
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyError("mine")
        return {"loss": self.layer(x).square().mean(), "logits": self.layer(x)}

def data(count):
    return [{"x": torch.ones(2), "labels": torch.ones(1)} for _ in range(count)]

def train(callback, model, **arguments):
    Trainer(
        model=model, train_dataset=data(40), eval_dataset={"a": data(10), "b": data(20)}, callbacks=[callback],
        args=TrainingArguments(
            output_dir=".", num_train_epochs=1, per_device_train_batch_size=6, gradient_accumulation_steps=2,
            save_strategy="no", report_to="none", disable_tqdm=True, **arguments,
        ),
    ).train()

with phase("steps"):
    train(PhaseCallback(steps=True), Model(), eval_strategy="steps", eval_steps=2, eval_on_start=True, logging_steps=2)
with phase("raises"):
    callback = PhaseCallback(steps=True)
    try:
        train(callback, Model(fails_at=4))
    except KeyError as error:
        assert error.args == ("mine",)
    else:
        sys.exit("the workload's own exception is lost")
with phase("again"):
    train(callback, Model())
with phase("mistakes"):
    class Blind(PhaseCallback):
        def on_step_end(self, args, state, control, **kwargs):
            return super().on_step_end(None, state, control, **kwargs)
    train(Blind(), Model())
train(PhaseCallback(), Model(fails_at=4))
"""


def test_the_example_and_what_goes_wrong(tmp_path: Path) -> None:
    run = measured(tmp_path, "-c", SCRIPT, EXAMPLE)
    assert run.done.returncode == 1  # of the last training
    assert run.done.stderr.rstrip().endswith("KeyError: 'mine'")
    assert not any(phase["flags"] for phase in run.phases)

    example, steps, raises, again, mistakes, last = run.named("run")
    assert (example["work_samples"], example["work_tokens"]) == (400, 400 * 64)
    assert [phase["index"] for phase in run.named("epoch")[:2]] == [0, 1]
    assert run.column("epoch", "work_samples")[:2] == [200] * 2
    assert run.column("epoch", "work_tokens")[:2] == [200 * 64] * 2
    assert run.column("eval", "work_samples")[:2] == [50] * 2
    assert run.column("predict", "work_samples") == [50]
    assert run.parents("epoch") == {"run"} and run.parents("step") == {"epoch"} and run.parents("predict") == {None}
    assert run.metric("joules-to-train")["value"] > 0

    # 40 samples in batches of 6, two to a step: four steps, the last with what is left.
    assert (steps["work_samples"], steps["work_tokens"]) == (40, None)
    inner = [phase for phase in run.named("step") if phase["begin_ns"] < steps["end_ns"]]
    assert [(phase["index"], phase["work_samples"]) for phase in inner] == [(0, 12), (1, 12), (2, 12), (3, 4)]
    # Two data sets at the start, after the second step and after the fourth; the second follows at once on the first.
    evals = run.named("eval")[2:]
    assert [phase["work_samples"] for phase in evals] == [10, 20] * 3
    for first, second in zip(evals[::2], evals[1::2], strict=True):
        assert 0 <= second["begin_ns"] - first["end_ns"] < 1_000_000
    assert evals[0]["begin_ns"] >= steps["begin_ns"]
    assert evals[2]["begin_ns"] >= inner[1]["end_ns"]

    for phase in (raises, last):
        assert phase["attributes"]["status"] == "aborted"
    (outer,) = run.named("raises")
    assert outer["begin_ns"] < raises["begin_ns"] < raises["end_ns"] < outer["end_ns"]
    assert raises["work_samples"] == 12  # the step before the one that raised
    assert again["work_samples"] == 40

    assert mistakes["work_samples"] is None  # unknown, and no zero
    assert run.done.stderr.count("power-agent: ") == 1


@pytest.mark.long
def test_the_example_runs_the_same_without_a_measurement(tmp_path: Path) -> None:
    def said(stdout: str) -> list[list[str]]:
        """What does not depend on speed."""
        return [[part for part in line.split(", ") if "runtime" not in part and "second" not in part]
                for line in stdout.splitlines()]  # fmt: skip

    alone, run = unmeasured(tmp_path, EXAMPLE), measured(tmp_path, EXAMPLE)
    assert alone.returncode == run.done.returncode == 0
    assert said(alone.stdout) == said(run.done.stdout)
