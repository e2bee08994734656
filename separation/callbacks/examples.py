"""A few fixed validation mixtures in TensorBoard, to hear and to see as the training goes on."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from separation.data.fixed_mixtures import Rendered
from separation.objectives.base import Objective
from separation.plot import Spectrogram, draw


class Examples(Callback):
    """Separates the first validation mixtures at each validation and logs their sound and a picture.

    Mixture and target are logged once, estimate and picture each time. Without a TensorBoard logger nothing is done.

    Args:
        count: how many mixtures.
    """

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.shown: set[str] = set()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if batch_idx >= self.count or trainer.sanity_checking or not trainer.is_global_zero or not boards:
            return
        if isinstance(pl_module, Objective) and isinstance(batch, Rendered):
            self.show(boards[0].experiment, pl_module, batch, trainer.global_step)

    def show(self, board: Any, module: Objective, rendered: Rendered, step: int) -> None:
        """Logs one mixture."""
        name, rate = f"{rendered.row['id']} {rendered.row['query']}", rendered.sample_rate
        mixture, target = torch.from_numpy(rendered.mixture)[None], torch.from_numpy(rendered.target)[None]
        estimate = module.separator()(mixture, rendered.row["query"], rate).target
        if name not in self.shown:
            board.add_audio(f"{name}/mixture", mixture, step, rate)
            board.add_audio(f"{name}/target", target, step, rate)
            self.shown.add(name)
        board.add_audio(f"{name}/estimate", estimate, step, rate)
        waves = {"mixture": mixture, "target": target, "estimate": estimate}
        board.add_image(f"{name}/spectrograms", picture(waves, name, rate), step, dataformats="HWC")


def picture(waves: dict[str, Tensor], title: str, sample_rate: int) -> np.ndarray:
    """Spectrograms of waves (channels, time) one under the other: (height, width, 3), 0 to 1."""
    from matplotlib.image import imread

    levels = {}
    for name, wave in waves.items():
        spectrogram = Spectrogram(sample_rate, wave.shape[-1])
        spectrogram.push(wave)
        levels[name] = spectrogram.decibels()
    file = io.BytesIO()
    draw(file, levels, title, wave.shape[-1] / sample_rate, spectrogram.edges)
    file.seek(0)
    return np.asarray(imread(file, format="png"))[..., :3]
