"""Hugging Face transformers: the callback marks the training, its epochs and evaluations.

power-director run -- python examples/huggingface_trainer.py

A tiny BERT reads each digit as a sentence of 64 words, one a pixel. Nothing is downloaded.
"""

import tempfile

import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

from power_agent import phase
from power_agent.integrations.huggingface import PhaseCallback

TRAIN_SAMPLES, ALL_SAMPLES = 200, 250


class Sentences(Dataset):
    def __init__(self, first: int, last: int) -> None:
        digits = load_digits()
        self.words = torch.tensor(digits.data[first:last], dtype=torch.long)
        self.labels = torch.tensor(digits.target[first:last])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.words[index], "labels": self.labels[index]}


def main() -> None:
    set_seed(0)
    config = BertConfig(
        vocab_size=17,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=10,
    )
    test = Sentences(TRAIN_SAMPLES, ALL_SAMPLES)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=BertForSequenceClassification(config),
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=2,
                per_device_train_batch_size=32,
                per_device_eval_batch_size=32,
                eval_strategy="epoch",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                include_num_input_tokens_seen=True,  # without it, tokens are unknown and samples only are marked
            ),
            train_dataset=Sentences(0, TRAIN_SAMPLES),
            eval_dataset=test,
            callbacks=[PhaseCallback()],
        )
        trainer.train()
        with phase("predict", samples=len(test), sync="cuda"):
            trainer.predict(test)


if __name__ == "__main__":
    main()
