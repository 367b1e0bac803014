"""The data and the network of both demos: a small convolutional net that reads scikit-learn's handwritten digits.

The 1797 digits come with scikit-learn. 1437 are for training, 360 for testing; which ones is the same for every seed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from power_agent import phase
from power_agent.demos import DemoError

BATCH_SAMPLES = 64
LEARNING_RATE = 0.01
MOMENTUM = 0.9

_TEST_SAMPLES = 360
_PIXELS = 16  # a side of what the net sees; the digits are 8 × 8
_CHANNELS = 16


@dataclass(frozen=True)
class Digits:
    """Images as 1 × 8 × 8 floats in 0 … 1 with their labels, on one device."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def read_digits(device: torch.device) -> Digits:
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1).to(device)
    labels = torch.tensor(digits.target, dtype=torch.int64).to(device)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=_TEST_SAMPLES, stratify=digits.target, random_state=0
    )
    return Digits(images[train], labels[train], images[test], labels[test])


def prepare_torch(threads: int) -> torch.device:
    """Set what makes a run repeatable by its seed, and choose the device: CUDA where there is one."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def new_model() -> nn.Sequential:
    """The net for images of 1 × 16 × 16; its first weights come from torch's global generator."""
    quarter = _PIXELS // 4
    return nn.Sequential(
        nn.Conv2d(1, _CHANNELS, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(_CHANNELS, 2 * _CHANNELS, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * _CHANNELS * quarter * quarter, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def enlarge(images: Tensor) -> Tensor:
    """8 × 8 images as the 16 × 16 that the net takes."""
    return _warp(images, torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1))


def _distort(images: Tensor) -> Tensor:
    """Enlarge, each image turned, scaled and shifted at random: by up to 20°, 20 % and 1.4 of 8 pixels."""
    device = images.device
    angle, scale, right, down = torch.rand(4, len(images), device=device) * 2 - 1
    angle, scale, right, down = 0.35 * angle, 1 + 0.2 * scale, 0.35 * right, 0.35 * down
    cos, sin = scale * angle.cos(), scale * angle.sin()
    return _warp(images, torch.stack([cos, -sin, right, sin, cos, down], dim=1).view(-1, 2, 3))


def _warp(images: Tensor, affine: Tensor) -> Tensor:
    grid = nn.functional.affine_grid(affine, [len(images), 1, _PIXELS, _PIXELS], align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


class Trainer:
    """Trains a new model, epoch by epoch, and marks what it does as phases `augment` and `optimize`."""

    def __init__(self, seed: int, device: torch.device) -> None:
        torch.manual_seed(seed)
        self.model = new_model().to(device)
        self._optimizer = torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)

    def train_epoch(self, digits: Digits) -> None:
        samples = len(digits.train_labels)
        with phase("augment", samples=samples, sync="cuda"):
            images = _distort(digits.train_images)
        with phase("optimize", samples=samples, sync="cuda"):
            for batch in torch.split(torch.randperm(samples, device=images.device), BATCH_SAMPLES):
                self._optimizer.zero_grad()
                loss = nn.functional.cross_entropy(self.model(images[batch]), digits.train_labels[batch])
                loss.backward()  # type: ignore[no-untyped-call, unused-ignore]  # unused where torch is not installed
                self._optimizer.step()

    def accuracy(self, digits: Digits) -> float:
        """The share of the test digits that the model reads right."""
        with torch.no_grad():
            guesses = self.model(enlarge(digits.test_images)).argmax(dim=1)
        return int((guesses == digits.test_labels).sum()) / len(guesses)


def save_model(model: nn.Module, path: Path) -> None:
    """Write the weights as a NumPy archive, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **{name: weights.cpu().numpy() for name, weights in model.state_dict().items()})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_model(path: Path) -> nn.Sequential:
    """Read what `save_model` wrote.

    Raises:
        OSError: the file cannot be read.
        DemoError: it is not such a file.
    """
    model = new_model()
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as weights:
                model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
        except Exception as error:  # NumPy and zipfile do not say all that they raise on a damaged file
            raise DemoError(
                f"{path} is not a model of this demo; write one with: "
                f"python -m power_agent.demos.train_digits --save {path}"
            ) from error
    return model
