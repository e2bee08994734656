"""How fast a training runs, what it waits for, and how much memory it takes."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class Speed(Callback):
    """Logs throughput and memory with every step, as means over the last steps.

    `speed/clips_per_second`: of all devices together. `speed/waiting`: share of the time that passes before the next
    batch is there; near zero, loading keeps up. `speed/memory_gb`: the most that was taken so far, of the device's
    memory, or of the process's on a CPU.

    Args:
        window: steps that the means go over.
    """

    def __init__(self, window: int = 20) -> None:
        self.steps: deque[tuple[float, float]] = deque(maxlen=window)  # seconds waited, seconds altogether
        self.ended = self.started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = time.perf_counter()  # what lies between two epochs is no step's

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self.steps.append((self.started - self.ended, now - self.ended))
        self.ended = now
        waited, seconds = (sum(column) for column in zip(*self.steps, strict=True))
        clips = len(self.steps) * trainer.world_size * trainer.datamodule.batch_size  # type: ignore[attr-defined]
        pl_module.log("speed/clips_per_second", clips / seconds, prog_bar=True)
        pl_module.log("speed/waiting", waited / seconds)
        pl_module.log("speed/memory_gb", memory(pl_module.device) / 1e9)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = time.perf_counter()


def memory(device: torch.device) -> int:
    """The most memory taken so far, bytes: of a CUDA device its own, otherwise the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
