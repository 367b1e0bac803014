"""Serve the digits model under MLPerf's own LoadGen, which sends the queries and judges the result.

`python -m power_agent.demos.infer_digits --scenario Offline`; docs/demos.md says what its figures mean.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from power_agent import phase
from power_agent.demos import MAX_EPOCHS, TARGET_ACCURACY, DemoError, positive_int, require

if TYPE_CHECKING:
    from torch import Tensor, nn

SCENARIOS = ("Offline", "Server", "SingleStream", "MultiStream")
_DESCRIPTION = "Read handwritten digits for MLPerf's LoadGen; its logs land in the output directory."
_OFFLINE_BATCH_SAMPLES = 64
_MULTI_STREAM_SAMPLES = 8  # per query, MLPerf's figure
_SERVER_LATENCY_S = 0.1
_SERVER_LOAD = 0.25  # share of the measured peak rate that queries come at by default: no queue builds up
# LoadGen's early stopping needs this many queries to vouch for a 90th (SingleStream) or 99th percentile latency.
_LEAST_QUERIES = {"Offline": 1, "Server": 662, "SingleStream": 64, "MultiStream": 662}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done and valid, 1 LoadGen calls the result invalid, 2 the run could not be made."""
    options = _parser().parse_args(arguments)
    try:
        require("torch", "sklearn", "mlperf_loadgen")
        if options.target_qps is not None and options.scenario not in ("Offline", "Server"):
            raise DemoError(f"--target-qps means nothing in {options.scenario}; leave it out")
        options.output.mkdir(parents=True, exist_ok=True)
        if not os.access(options.output, os.W_OK):
            raise DemoError(f"cannot write into {options.output}; choose another --output")
        return _serve(options)
    except (DemoError, OSError) as error:
        print(f"infer_digits: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m power_agent.demos.infer_digits", description=_DESCRIPTION)
    parser.add_argument("--scenario", choices=SCENARIOS, default="Offline", help="(default: %(default)s)")
    parser.add_argument("--accuracy", action="store_true", help="check every answer instead of measuring speed")
    parser.add_argument("--model", type=Path, metavar="FILE", help="from train_digits --save (default: train one once)")
    parser.add_argument(
        "--duration-s", type=positive_number, default=10.0, help="at least this long (default: %(default)g)"
    )
    parser.add_argument(
        "--target-qps",
        type=positive_number,
        help="Server: queries a second; Offline: samples a second to plan for (default: from a quick measurement)",
    )
    parser.add_argument("--threads", type=positive_int, default=1, help="CPU threads (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, default=Path("digits-loadgen"), metavar="DIR", help="for logs (default: %(default)s)"
    )
    return parser


def positive_number(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return number


class DigitsServer:
    """The system under test: a thread answers LoadGen's queries one after another with what the model reads."""

    def __init__(self, loadgen: Any, model: nn.Module, images: Tensor) -> None:
        self._loadgen = loadgen
        self._model = model
        self._images = images
        self._queries: SimpleQueue[list[Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._answer_queries, name="digits-server", daemon=True)
        self._thread.start()

    def issue(self, samples: list[Any]) -> None:
        """LoadGen's call for each query. It returns at once, so that the next query can come on time."""
        self._queries.put(samples)

    def close(self) -> None:
        self._queries.put(None)
        self._thread.join()

    def read(self, indices: list[int]) -> Tensor:
        """What the model takes these images for: one label each, on the CPU."""
        import torch

        from power_agent.demos.digits_model import enlarge

        with torch.inference_mode():
            return self._model(enlarge(self._images[indices])).argmax(dim=1).cpu()  # type: ignore[no-any-return]

    def _answer_queries(self) -> None:
        try:
            while (samples := self._queries.get()) is not None:
                for first in range(0, len(samples), _OFFLINE_BATCH_SAMPLES):
                    self._answer(samples[first : first + _OFFLINE_BATCH_SAMPLES])
        except BaseException:
            traceback.print_exc()
            os._exit(1)  # LoadGen would wait for the missing answers for ever

    def _answer(self, samples: list[Any]) -> None:
        labels = self.read([sample.index for sample in samples])
        size = labels.element_size()
        # LoadGen copies the bytes before this call returns, so `labels` lives long enough.
        self._loadgen.QuerySamplesComplete(
            [
                self._loadgen.QuerySampleResponse(sample.id, labels.data_ptr() + position * size, size)
                for position, sample in enumerate(samples)
            ]
        )


def _serve(options: argparse.Namespace) -> int:
    import mlperf_loadgen as loadgen

    from power_agent.demos import digits_model

    device = digits_model.prepare_torch(options.threads)
    digits = digits_model.read_digits(device)
    model = _cached_model(options.threads) if options.model is None else digits_model.load_model(options.model)
    server = DigitsServer(loadgen, model.to(device).eval(), digits.test_images)
    settings = _test_settings(loadgen, options, server)

    output = loadgen.LogOutputSettings()
    output.outdir = str(options.output)
    logs = loadgen.LogSettings()
    logs.log_output = output
    logs.enable_trace = False

    samples = len(digits.test_labels)
    sut = loadgen.ConstructSUT(server.issue, _nothing)
    library = loadgen.ConstructQSL(samples, samples, _nothing, _nothing)  # all samples stay in memory
    try:
        loadgen.StartTestWithLogSettings(sut, library, settings, logs)
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(sut)
        server.close()

    if options.accuracy:
        accuracy = _logged_accuracy(options.output / "mlperf_log_accuracy.json", digits.test_labels.tolist())
        print(f"infer_digits: {options.scenario}: accuracy {accuracy:.4f} over {samples} samples")
        return 0
    summary = (options.output / "mlperf_log_summary.txt").read_text(encoding="utf-8")
    valid = "Result is : VALID" in summary
    print(summary)
    print(f"infer_digits: {options.scenario}: result {'VALID' if valid else 'INVALID'}; logs in {options.output}")
    return 0 if valid else 1


def _nothing(*_: object) -> None:
    """For calls of LoadGen that ask nothing of a model in memory: load, unload, flush."""


def _cached_model(threads: int) -> nn.Module:
    """The model that was trained when this was first called on this machine."""
    from power_agent.demos import digits_model

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ml-power-agent" / "digits.npz"
    if cache.exists():
        return digits_model.load_model(cache)
    print(f"infer_digits: training the model, once; it is kept in {cache}", file=sys.stderr)
    device = digits_model.prepare_torch(threads)
    digits = digits_model.read_digits(device)
    trainer = digits_model.Trainer(0, device)
    with phase("train"):
        for _ in range(MAX_EPOCHS):
            trainer.train_epoch(digits)
            if trainer.accuracy(digits) >= TARGET_ACCURACY:
                break
    cache.parent.mkdir(parents=True, exist_ok=True)
    digits_model.save_model(trainer.model, cache)
    return trainer.model


def _test_settings(loadgen: Any, options: argparse.Namespace, server: DigitsServer) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, options.scenario)
    settings.mode = loadgen.TestMode.AccuracyOnly if options.accuracy else loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = math.ceil(options.duration_s * 1000)
    settings.min_query_count = _LEAST_QUERIES[options.scenario]

    # LoadGen makes its queries up beforehand, as many as the expected speed asks for. If the model turns out to be
    # faster they run out before the time is over and the result is invalid; so expect the best seen, or better.
    if options.scenario == "Offline":
        batch = _OFFLINE_BATCH_SAMPLES
        settings.offline_expected_qps = options.target_qps or batch / _best_time_s(server, batch)
    elif options.scenario == "Server":
        settings.server_target_latency_ns = int(_SERVER_LATENCY_S * 1e9)
        settings.server_target_qps = options.target_qps or _SERVER_LOAD / _best_time_s(server, 1)
    elif options.scenario == "SingleStream":
        settings.single_stream_expected_latency_ns = int(_best_time_s(server, 1) / 2 * 1e9)
    else:
        settings.multi_stream_samples_per_query = _MULTI_STREAM_SAMPLES
        settings.multi_stream_expected_latency_ns = int(_best_time_s(server, _MULTI_STREAM_SAMPLES) / 2 * 1e9)
    return settings


def _best_time_s(server: DigitsServer, samples: int) -> float:
    """The shortest of some tries to answer a batch of this many samples; warms the model up as well."""
    indices = list(range(samples))
    best_s = math.inf
    with phase("warm_up"):
        for _ in range(50):
            began_s = time.perf_counter()
            server.read(indices)
            best_s = min(best_s, time.perf_counter() - began_s)
    return best_s


def _logged_accuracy(log: Path, labels: list[int]) -> float:
    """The share of right answers in LoadGen's accuracy log, whose `data` are our labels: little-endian int64 in hex."""
    answers = json.loads(log.read_text(encoding="utf-8"))
    right = [answer for answer in answers if _label(answer["data"]) == labels[answer["qsl_idx"]]]
    return len(right) / len(answers)


def _label(data: str) -> int:
    return int.from_bytes(bytes.fromhex(data), "little")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python would not see Ctrl-C before LoadGen has finished
    sys.exit(main())
