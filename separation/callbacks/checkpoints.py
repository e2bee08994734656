"""Checkpoints in the run's folder: `last.ckpt` to go on from, `best.ckpt` to use."""

from __future__ import annotations

import os
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from separation.earlier_runs import goes_on


class InRunFolder(ModelCheckpoint):
    """Saves into `trainer.default_root_dir` where no other folder is given, one file under its one name."""

    same_run = False

    def __init__(self, dirpath: str | None = None, **kept: Any) -> None:
        super().__init__(dirpath=dirpath, enable_version_counter=False, **kept)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.dirpath = real(str(self.dirpath or trainer.default_root_dir))
        super().setup(trainer, pl_module, stage)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        folders = (trainer.default_root_dir, str(self.dirpath))
        self.same_run = any(goes_on(folder, trainer.ckpt_path) for folder in folders)

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """For `--ckpt_path last`, which is looked for before `setup`."""
        self.dirpath = real(str(self.dirpath or trainer.default_root_dir))
        return super()._find_last_checkpoints(trainer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What was best so far, where the run goes on in its folder and the file is still there; else it begins anew.

        The folder may have been moved or be spelt otherwise: what counts is where the checkpoint lies that the run goes
        on from.
        """
        here = str(self.dirpath)
        best = os.path.join(here, os.path.basename(state_dict["best_model_path"]))
        if not self.same_run or not os.path.isfile(best):
            return
        scores = dict.fromkeys([best], state_dict["best_model_score"])
        moved = {"dirpath": here, "best_model_path": best, "kth_best_model_path": best, "best_k_models": scores}
        super().load_state_dict(state_dict | moved | {"last_model_path": ""})


def real(folder: str) -> str:
    """A folder's one spelling; web addresses as they are."""
    return folder if "://" in folder else os.path.realpath(folder)


class Last(InRunFolder):
    """`last.ckpt`, every so many steps and at the end of each epoch, with validation or without.

    Args:
        every_n_train_steps: a killed run loses no more than these.
        dirpath: folder; the run's by default.
    """

    def __init__(self, every_n_train_steps: int = 200, dirpath: str | None = None) -> None:
        super().__init__(dirpath, save_last=True, save_top_k=0, every_n_train_steps=every_n_train_steps)

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
        super().__init__(dirpath, monitor=monitor, **kept)
