"""MLPerf's LoadGen from Python: the measured test becomes the phase `run`, with its queries and samples.

power-director run -- python examples/loadgen_python.py
"""

import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import mlperf_loadgen as loadgen
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from power_agent.integrations.loadgen import MarkedTest

digits = load_digits()
images = digits.data / 16
model = LogisticRegression(max_iter=200).fit(images, digits.target)


def issue(samples: Sequence[Any]) -> None:
    """Answer a query. A server for many queries at once would do this in another thread."""
    labels = model.predict(images[[sample.index for sample in samples]]).astype(np.int64)
    address, size = labels.ctypes.data, labels.itemsize
    answers = [loadgen.QuerySampleResponse(s.id, address + i * size, size) for i, s in enumerate(samples)]
    loadgen.QuerySamplesComplete(answers)


def nothing(*_: object) -> None:
    """The samples are in memory already, and there is no queue to flush."""


settings = loadgen.TestSettings()
settings.scenario = (
    loadgen.TestScenario.SingleStream if len(sys.argv) < 2 else getattr(loadgen.TestScenario, sys.argv[1])
)
settings.mode = loadgen.TestMode.PerformanceOnly
settings.min_duration_ms = 1000  # a submission with power needs 60 s at least
settings.min_query_count = 64
settings.offline_expected_qps = 20_000
settings.server_target_qps = 200

marked = MarkedTest(settings)
sut = loadgen.ConstructSUT(marked.issue(issue), nothing)
library = loadgen.ConstructQSL(len(images), len(images), marked.load(nothing), marked.unload(nothing))
with tempfile.TemporaryDirectory() as folder:
    logs = loadgen.LogSettings()
    logs.log_output.outdir = folder if len(sys.argv) < 3 else sys.argv[2]
    logs.enable_trace = False
    loadgen.StartTestWithLogSettings(sut, library, settings, logs)
loadgen.DestroyQSL(library)
loadgen.DestroySUT(sut)
print("done")
