"""A small training that marks its phases; every rank works on its own data, as in data-parallel training."""

import os

import numpy as np

from power_agent import phase

rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
rng = np.random.default_rng(rank)
images = rng.normal(size=(20_000, 256))
labels = images @ np.ones(256) > 0

with phase("run"):
    weights = np.zeros(256)
    for epoch in range(3):
        with phase("epoch", index=epoch, samples=20 * len(images)):
            for step in range(4_000):
                some = slice(step % 200 * 100, step % 200 * 100 + 100)
                wrong = labels[some] - 1 / (1 + np.exp(-images[some] @ weights))
                weights += 0.01 * images[some].T @ wrong
accuracy = ((images @ weights > 0) == labels).mean()
print(f"rank {rank}: accuracy {accuracy:.3f}")
