"""Lightning: the callback marks the training, its epochs and evaluations, and the predictions after it.

power-director run -- python examples/lightning_callback.py
"""

import lightning.pytorch as lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from power_agent.integrations.lightning import PhaseCallback

TRAIN_SAMPLES = 1500


class Digits(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.model(images), labels)

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        images, labels = batch
        self.log("accuracy", (self.model(images).argmax(dim=1) == labels).float().mean())

    def predict_step(self, batch: list[Tensor], index: int) -> Tensor:
        return self.model(batch[0]).argmax(dim=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


def main() -> None:
    lightning.seed_everything(0)
    digits = load_digits()
    images = torch.tensor(digits.data / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    training = DataLoader(TensorDataset(images[:TRAIN_SAMPLES], labels[:TRAIN_SAMPLES]), batch_size=64, shuffle=True)
    test = DataLoader(TensorDataset(images[TRAIN_SAMPLES:], labels[TRAIN_SAMPLES:]), batch_size=64)
    trainer = lightning.Trainer(
        max_epochs=3,
        callbacks=[PhaseCallback()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model = Digits()
    trainer.fit(model, training, test)
    print(f"accuracy {trainer.callback_metrics['accuracy']:.3f}")
    trainer.predict(model, test)


if __name__ == "__main__":
    main()
