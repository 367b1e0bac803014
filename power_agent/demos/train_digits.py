"""Train a small net to a target accuracy and say so in MLPerf's training log format (MLLOG).

`python -m power_agent.demos.train_digits`; docs/demos.md says what its figures mean.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from power_agent.demos import MAX_EPOCHS, TARGET_ACCURACY, DemoError, positive_int, require

REPEAT_VARIABLE = "POWER_AGENT_REPEAT"
_DESCRIPTION = "Train a small net on handwritten digits to a target accuracy, with MLPerf training log lines."


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 target reached, 1 not reached, 2 the run could not be made."""
    options = _parser().parse_args(arguments)
    try:
        require("torch", "sklearn", "mlperf_logging")
        seed = _repeat() if options.seed is None else options.seed
        if options.save is not None and not options.save.parent.is_dir():
            raise DemoError(f"--save: there is no directory {options.save.parent}; create it first")
        with closing(_log_handler(options.mllog)) as handler:
            return _train(options, seed, handler)
    except (DemoError, OSError) as error:
        print(f"train_digits: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m power_agent.demos.train_digits", description=_DESCRIPTION)
    parser.add_argument(
        "--seed", type=_seed, help=f"of weights, order and distortions (default: ${REPEAT_VARIABLE}, or 0)"
    )
    parser.add_argument(
        "--target", type=share, default=TARGET_ACCURACY, help="test accuracy to reach (default: %(default)s)"
    )
    parser.add_argument(
        "--max-epochs", type=positive_int, default=MAX_EPOCHS, help="give up after these (default: %(default)s)"
    )
    parser.add_argument("--threads", type=positive_int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the trained weights here")
    parser.add_argument("--mllog", default="-", metavar="FILE", help="where MLLOG lines go (default: -, stdout)")
    return parser


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise argparse.ArgumentTypeError(f"must be a whole number of at most 18 digits, not {text[:40]!r}")
    return int(text)


def share(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, not {text}")
    return number


def _repeat() -> int:
    """Which run of a series this is, so that each has a seed of its own; 0 outside a series."""
    text = os.environ.get(REPEAT_VARIABLE, "0")
    try:
        return _seed(text)
    except argparse.ArgumentTypeError as error:
        raise DemoError(f"{REPEAT_VARIABLE} {error}; unset it or give --seed") from None


def _log_handler(destination: str) -> logging.Handler:
    if destination == "-":
        return logging.StreamHandler(sys.stdout)
    return logging.FileHandler(destination, mode="w", encoding="utf-8")


def _train(options: argparse.Namespace, seed: int, handler: logging.Handler) -> int:
    from mlperf_logging.mllog import constants as key
    from mlperf_logging.mllog.mllog import MLLogger

    logger = logging.Logger("train_digits")
    logger.addHandler(handler)
    log = MLLogger(logger=logger)
    log.event(key.CACHE_CLEAR, False)  # nothing here is read from a disk while it is timed
    log.start(key.INIT_START)

    from power_agent.demos import digits_model  # torch; that it takes seconds to import belongs to init

    device = digits_model.prepare_torch(options.threads)
    trainer = digits_model.Trainer(seed, device)
    for name, value in (
        (key.SUBMISSION_BENCHMARK, "digits"),
        (key.SUBMISSION_DIVISION, key.OPEN),
        (key.SUBMISSION_ORG, "ml-power-agent demo"),
        (key.SUBMISSION_PLATFORM, f"{platform.node()} {device.type}"),
        (key.SUBMISSION_STATUS, key.RESEARCH),
        (key.SEED, seed),
        (key.GLOBAL_BATCH_SIZE, digits_model.BATCH_SAMPLES),
        (key.GRADIENT_ACCUMULATION_STEPS, 1),
        (key.OPT_NAME, key.SGD),
        (key.OPT_BASE_LR, digits_model.LEARNING_RATE),
    ):
        log.event(name, value)
    log.end(key.INIT_STOP)

    log.start(key.RUN_START)  # MLPerf's clock runs from the first touch of the data
    began_s = time.monotonic()
    digits = digits_model.read_digits(device)
    log.event(key.TRAIN_SAMPLES, len(digits.train_labels))
    log.event(key.EVAL_SAMPLES, len(digits.test_labels))
    accuracy = 0.0
    epoch = 0
    where: dict[str, int] = {}
    while accuracy < options.target and epoch < options.max_epochs:
        epoch += 1
        # As in MLPerf, samples_count is the number of training samples seen since the run began.
        where = {"epoch_num": epoch, "samples_count": epoch * len(digits.train_labels)}
        log.start(
            key.EPOCH_START, metadata={**where, "samples_count": where["samples_count"] - len(digits.train_labels)}
        )
        trainer.train_epoch(digits)
        log.end(key.EPOCH_STOP, metadata=where)
        log.start(key.EVAL_START, metadata=where)
        accuracy = trainer.accuracy(digits)
        log.event(key.EVAL_ACCURACY, accuracy, metadata=where)
        log.end(key.EVAL_STOP, metadata=where)
        if options.mllog != "-":  # there its lines tell
            print(f"train_digits: epoch {epoch}: accuracy {accuracy:.4f}", file=sys.stderr)
    reached = accuracy >= options.target
    log.end(key.RUN_STOP, metadata={"status": key.SUCCESS if reached else key.ABORTED, **where})
    took_s = time.monotonic() - began_s

    print(
        f"train_digits: seed {seed}: accuracy {accuracy:.4f} after {epoch} epochs and {took_s:.1f} s; "
        f"target {options.target:g} {'reached' if reached else 'not reached'}",
        file=sys.stderr,
    )
    if options.save is not None:
        digits_model.save_model(trainer.model, options.save)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
