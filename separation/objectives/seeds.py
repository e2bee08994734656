"""Randomness within a training step as a function of the step."""

from __future__ import annotations

import os

import lightning
import torch


def seed_step(module: lightning.LightningModule) -> None:
    """Seeds PyTorch's generator with (seed, batch, rank): a resumed run draws what an uninterrupted one would have.

    Batches are counted over all epochs, and each on its own where several make a step.
    """
    seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))  # where Lightning's seed_everything keeps it
    batch = module.trainer.fit_loop.total_batch_idx
    torch.manual_seed((seed * 1_000_003 + batch) * 4099 + module.global_rank)
