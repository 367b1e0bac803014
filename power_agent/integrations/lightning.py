"""Lightning: a callback that marks what the Trainer does.

    Trainer(callbacks=[PhaseCallback()])

Works with the packages lightning and pytorch_lightning, whichever of them the training has imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from power_agent.integrations.open_phases import OpenPhases, Sync, Work, harmless

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _callback_class() -> Any:
    for package in sorted(_PACKAGES, key=lambda package: package not in sys.modules):
        try:
            return import_module(package).Callback
        except ModuleNotFoundError:
            pass
    raise ModuleNotFoundError("power_agent.integrations.lightning needs Lightning: pip install lightning")


def batch_work(batch: Any) -> Work | None:
    """The samples of a batch: the first dimension of its tensors. None: it has none, or they do not agree."""
    sizes: set[int] = set()
    _collect_first_dimensions(batch, sizes)
    return {"samples": sizes.pop()} if len(sizes) == 1 else None


def _collect_first_dimensions(batch: Any, sizes: set[int]) -> None:
    shape = getattr(batch, "shape", None)
    if shape is not None:
        if len(shape) > 0:
            sizes.add(int(shape[0]))
    elif isinstance(batch, (list, tuple, Mapping)):
        for part in batch.values() if isinstance(batch, Mapping) else batch:
            _collect_first_dimensions(part, sizes)
            if len(sizes) > 1:
                return


class PhaseCallback(_callback_class()):  # type: ignore[misc]
    """Marks `fit` as `run`, and in it each `epoch`, `eval` and `sanity_check`; also `eval`, `test` and `predict` alone.

    Args:
        steps: mark each training batch as `step`, too.
        sync: "cuda" waits for the GPU at each edge of a phase.
        work: the counts of a batch, such as {"samples": 32, "tokens": 4096}. None: its samples by `batch_work`.
    """

    def __init__(
        self, *, steps: bool = False, sync: Sync = None, work: Callable[[Any], Work | None] | None = None
    ) -> None:
        super().__init__()
        self._phases = OpenPhases(sync)
        self._steps = steps
        self._work_of = batch_work if work is None else work
        self._batches = 0

    def _begin(self, trainer: Any, name: str, index: int | None = None) -> None:
        self._phases.rank = trainer.global_rank if trainer.world_size > 1 else None
        self._phases.begin(name, index)

    @harmless
    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._batches = 0
        self._begin(trainer, "run")

    @harmless
    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self._phases.end("run")

    @harmless
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin(trainer, "epoch", trainer.current_epoch)

    @harmless
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._phases.end("epoch")

    @harmless
    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self._steps:
            self._begin(trainer, "step", self._batches)
        self._batches += 1

    @harmless
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._count(batch, "run", "epoch", "step")
        if self._steps:
            self._phases.end("step")

    @harmless
    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin(trainer, "sanity_check" if trainer.sanity_checking else "eval")

    @harmless
    def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *which: int) -> None:
        self._count(batch, "sanity_check", "eval")

    @harmless
    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._phases.end("sanity_check" if trainer.sanity_checking else "eval")

    @harmless
    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin(trainer, "test")

    @harmless
    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *which: int) -> None:
        self._count(batch, "test")

    @harmless
    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._phases.end("test")

    @harmless
    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin(trainer, "predict")

    @harmless
    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *which: int) -> None:
        self._count(batch, "predict")

    @harmless
    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:
        self._phases.end("predict")

    @harmless
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._phases.abort(type(exception).__name__)

    @harmless
    def _count(self, batch: Any, *names: str) -> None:
        """Add a batch to those of these phases that are open."""
        work: Work = {}
        try:
            work = {unit: float(amount) for unit, amount in (self._work_of(batch) or {}).items()}
        finally:
            self._phases.count(work, *names)
