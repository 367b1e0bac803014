"""Distributed training: every rank marks what it does itself, and one session holds them all.

power-director run -- torchrun --nproc-per-node 2 examples/torchrun_ddp.py
"""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from power_agent import phase

EPOCHS = 3


def main() -> None:
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    sampler: DistributedSampler = DistributedSampler(TensorDataset(images, labels), drop_last=True)
    batches = DataLoader(TensorDataset(images, labels), batch_size=64, sampler=sampler)
    device = torch.device("cuda", dist.get_node_local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10)).to(device))
    optimizer = torch.optim.Adam(model.parameters())

    with phase("run", sync="cuda") as run:
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            # Its own samples: those of all ranks are added up. Time and energy that ranks share count once.
            with phase("epoch", index=epoch, samples=len(sampler), sync="cuda"):
                for some_images, some_labels in batches:
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(model(some_images.to(device)), some_labels.to(device))
                    loss.backward()
                    optimizer.step()
            run.add(samples=len(sampler))
    print(f"rank {dist.get_rank()}: loss {loss.item():.3f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
