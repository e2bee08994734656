"""Checkpoints in the run's folder: `last.ckpt` to go on from, `best.ckpt` to use."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class InRunFolder(ModelCheckpoint):
    """Saves into `trainer.default_root_dir` where no other folder is given."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = self.dirpath or trainer.default_root_dir
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What was best so far, where the run goes on in its folder; in another it begins anew."""
        if state_dict.get("dirpath") == self.dirpath:
            super().load_state_dict(state_dict)


class Last(InRunFolder):
    """`last.ckpt`, every so many steps and at the end of each epoch, with validation or without.

    Args:
        every_n_train_steps: a killed run loses no more than these.
        dirpath: folder; the run's by default.
    """

    def __init__(self, every_n_train_steps: int = 200, dirpath: str | None = None) -> None:
        super().__init__(dirpath=dirpath, save_last=True, save_top_k=0, every_n_train_steps=every_n_train_steps)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


class Best(InRunFolder):
    """`best.ckpt`, whenever a validation has given the highest value so far; without validations nothing.

    Args:
        monitor: what is compared.
        dirpath: folder; the run's by default.
    """

    def __init__(self, monitor: str = "val/sdri", dirpath: str | None = None) -> None:
        kept: dict[str, Any] = {"filename": "best", "mode": "max", "save_on_train_epoch_end": False}
        super().__init__(dirpath=dirpath, monitor=monitor, **kept)
