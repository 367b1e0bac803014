"""A plain PyTorch loop: three lines with `phase` are all that it takes.

power-director run -- python examples/pytorch_loop.py
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

from power_agent import phase

EPOCHS = 3
TRAIN_SAMPLES = 1500

torch.manual_seed(0)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
digits = load_digits()
images = torch.tensor(digits.data / 16, dtype=torch.float32, device=device)
labels = torch.tensor(digits.target, device=device)
model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)).to(device)
optimizer = torch.optim.Adam(model.parameters())

# A GPU works behind the loop's back. sync="cuda" waits for it, so that each phase holds its own work.
with phase("run", sync="cuda") as run:  # joules-to-train is the energy of the phase that is called run
    for epoch in range(EPOCHS):
        with phase("epoch", index=epoch, samples=TRAIN_SAMPLES, sync="cuda"):
            for batch in torch.randperm(TRAIN_SAMPLES, device=device).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
        run.add(samples=TRAIN_SAMPLES)
        with phase("eval", index=epoch, samples=len(images) - TRAIN_SAMPLES, sync="cuda"), torch.no_grad():
            right = model(images[TRAIN_SAMPLES:]).argmax(dim=1) == labels[TRAIN_SAMPLES:]
            accuracy = right.float().mean().item()
        print(f"epoch {epoch}: accuracy {accuracy:.3f}")
