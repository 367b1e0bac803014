"""MLPerf Training's log lines: the director reads them from standard output, and the code needs nothing of ours.

power-director run --mllog - -- python examples/mllog_lines.py
"""

import sys
from logging import Logger, StreamHandler

from mlperf_logging.mllog import constants as key
from mlperf_logging.mllog.mllog import MLLogger
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

EPOCHS = 3

lines = Logger("mllog")
lines.addHandler(StreamHandler(sys.stdout))
log = MLLogger(lines)

log.start(key.INIT_START)
model = SGDClassifier(random_state=0)
log.event(key.SEED, 0)
log.end(key.INIT_STOP)

log.start(key.RUN_START)  # joules-to-train is the energy from here to run_stop
digits = load_digits()
images, labels = digits.data[:1500], digits.target[:1500]
log.event(key.TRAIN_SAMPLES, len(images))
for epoch in range(1, EPOCHS + 1):
    # samples_count is the number of samples seen since the run began.
    log.start(key.EPOCH_START, metadata={"epoch_num": epoch, "samples_count": (epoch - 1) * len(images)})
    model.partial_fit(images, labels, classes=range(10))
    log.end(key.EPOCH_STOP, metadata={"epoch_num": epoch, "samples_count": epoch * len(images)})
    log.start(key.EVAL_START, metadata={"epoch_num": epoch})
    accuracy = model.score(digits.data[1500:], digits.target[1500:])
    log.event(key.EVAL_ACCURACY, accuracy, metadata={"epoch_num": epoch})
    log.end(key.EVAL_STOP, metadata={"epoch_num": epoch})
log.end(key.RUN_STOP, metadata={"status": key.SUCCESS if accuracy > 0.8 else key.ABORTED})
