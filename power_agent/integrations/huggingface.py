"""Hugging Face transformers: a callback that marks what the Trainer does.

    Trainer(..., callbacks=[PhaseCallback()])

The Trainer tells its callbacks when an evaluation or a training has ended, but not when an evaluation begins, nor that
an exception ended the training. An evaluation follows at once on the event before its first batch, and begins there.
What an exception leaves open ends at the last event before it, written by the next training or the end of the process.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

from transformers import TrainerCallback

from power_agent.integrations.open_phases import OpenPhases, Sync, Work, harmless

_SHORT_OF_WHOLE = 1e-6  # what `state.epoch` may lack of a whole number
_FROM = "steps × batch size"


class PhaseCallback(TrainerCallback):  # type: ignore[misc]
    """Marks `train` as `run`, and in it each `epoch` and `eval`.

    `evaluate` and `predict` outside of `train` are yours to mark: `with phase("predict"): trainer.predict(data)`.

    Args:
        steps: mark each step of the optimizer as `step`, too.
        sync: "cuda" waits for the GPU at each edge of a phase.
    """

    def __init__(self, *, steps: bool = False, sync: Sync = None) -> None:
        self._phases = OpenPhases(sync)
        self._steps = steps
        self._whole_samples = True  # each rank trains on samples of its own
        self._samples_of_epoch = 0.0  # this rank's, so far
        self._tokens = 0  # all ranks', so far

    @harmless
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._phases.abort()
        self._phases.rank = args.process_index if args.world_size > 1 else None
        self._whole_samples = not _ranks_share_samples(args, kwargs.get("model"))
        self._tokens = _tokens_seen(state)
        self._phases.begin("run")
        self._seen()

    @harmless
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._phases.end("run", samples_from=_FROM)

    @harmless
    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._samples_of_epoch = 0.0
        self._phases.begin("epoch", int((state.epoch or 0) + _SHORT_OF_WHOLE))
        self._seen()

    @harmless
    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._phases.end("epoch", samples_from=_FROM)
        self._seen()

    @harmless
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._steps:
            self._phases.begin("step", state.global_step)
        self._seen()

    @harmless
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        work: Work = {}
        try:
            work = self._work_of_step(args, state, kwargs)
        finally:
            self._phases.count(work, "run", "epoch", "step")
            self._phases.end("step", samples_from=_FROM)
            self._seen()

    @harmless
    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "run" in self._phases and "eval" not in self._phases:
            self._phases.begin("eval", t_ns=self._phases.last_event_ns)
        self._seen()

    @harmless
    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        samples = _length_of_data(kwargs.get("eval_dataloader"))
        if samples is not None and self._whole_samples:
            self._phases.count({"samples": samples / args.world_size}, "eval")
        self._phases.end("eval")
        self._seen()

    @harmless
    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seen()

    @harmless
    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seen()

    @harmless
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._seen()

    def _seen(self) -> None:
        self._phases.last_event_ns = monotonic_ns()

    def _work_of_step(self, args: Any, state: Any, given: dict[str, Any]) -> Work:
        """What one step did on this rank. The last step of an epoch has fewer samples where the data run out."""
        tokens = _tokens_seen(state) - self._tokens
        self._tokens += tokens
        if not self._whole_samples:
            return {}
        samples = float((state.train_batch_size or args.train_batch_size) * args.gradient_accumulation_steps)
        length = _length_of_data(given.get("train_dataloader"))
        if length is not None:
            samples = max(0.0, min(samples, length / args.world_size - self._samples_of_epoch))
        self._samples_of_epoch += samples
        return {"samples": samples, "tokens": tokens / args.world_size} if tokens else {"samples": samples}


def _tokens_seen(state: Any) -> int:
    """Of all ranks; 0 unless TrainingArguments ask for include_num_input_tokens_seen."""
    return int(getattr(state, "num_input_tokens_seen", 0) or 0)


def _length_of_data(loader: Any) -> int | None:
    """Samples in a data set; None: a stream does not know."""
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError, NotImplementedError):
        return None


def _ranks_share_samples(args: Any, model: Any) -> bool:
    """Whether one sample takes several ranks (tensor, context or sequence parallelism), so that each did a part."""
    if getattr(args, "parallelism_config", None) is not None or (getattr(model, "_tp_size", None) or 1) > 1:
        return True
    deepspeed = getattr(getattr(args, "hf_deepspeed_config", None), "config", None) or {}
    return "tensor_parallel" in deepspeed or "sequence_parallel_size" in deepspeed
