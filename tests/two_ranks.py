"""What each of two gloo processes of a test does: contrastive losses of half a batch."""

import sys

import torch
import torch.distributed as dist
from ranks import leave, meet, trainer
from tiny import small_rate_model
from torch import nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from separation.data.mixing import Batch
from separation.encoders.joint import JointEncoder
from separation.encoders.table import RandomEncoder
from separation.training.objectives.bimodal import BiModal
from separation.training.objectives.contrastive import Contrastive

RATE, DIM = 8000, 16
PHRASES = ["dog", "rain", "dog", "bell", "rain", "wind", "horn", "dog"]


class JointLoss(nn.Module):
    """The joint space's training loss as a network's output, so that DDP can wrap it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        encoder = JointEncoder(sample_rate=RATE, embedding_dim=DIM, channels=(4, 4, 4, 4), hidden=16)
        self.objective = Contrastive(encoder, text_noise=0.0, mask=0.0).eval()  # no batch statistics, no chance
        self.objective.log = lambda *arguments, **options: None

    def forward(self, part):
        generator = torch.Generator().manual_seed(1)
        batch = Batch(
            sources=torch.randn(8, 1, RATE // 2, generator=generator)[part],
            labels=torch.tensor([0, 1, 2, 0, 1, 1, 3, 2])[part, None],
            sentences=normalize(torch.randn(8, 1, 384, generator=generator), dim=-1)[part],
            bank=normalize(torch.randn(4, 384, generator=generator), dim=-1),
            used=torch.ones(8, dtype=torch.long)[part],
        )
        return self.objective.training_step(batch, 0)


class PhraseLoss(nn.Module):
    """CNT of sounds that a linear layer makes."""

    def __init__(self, faithful):
        super().__init__()
        torch.manual_seed(0)
        self.objective = BiModal(small_rate_model(), RandomEncoder(DIM), scale=5.0, faithful=faithful).requires_grad_(
            False
        )
        self.layer = nn.Linear(DIM, DIM)

    def forward(self, part):
        sounds = torch.randn(8, DIM, generator=torch.Generator().manual_seed(3))[part]
        return self.objective.matched(normalize(self.layer(sounds), dim=-1), PHRASES[part])


def networks():
    return {"joint": JointLoss(), "cnt": PhraseLoss(False), "cnt, faithful": PhraseLoss(True)}


def loss_and_gradients(network, part):
    """Loss and gradients of a part of the batch."""
    loss = network(part)
    loss.backward()
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    return loss.detach(), {name: p.grad for name, p in inner.named_parameters() if p.grad is not None}


def work(folder):
    """Leaves the mean loss of both processes and DDP's gradients in `folder`."""
    rank, world = meet()
    found = {}
    for name, network in networks().items():
        network.objective.trainer = trainer(rank, world)
        wrapped = DistributedDataParallel(network, find_unused_parameters=True)
        loss, gradients = loss_and_gradients(wrapped, slice(4 * rank, 4 * rank + 4))
        dist.all_reduce(loss)
        found[name] = (loss / world, gradients)
    if rank == 0:
        torch.save(found, f"{folder}/found.pt")
    leave()


if __name__ == "__main__":
    work(sys.argv[1])
