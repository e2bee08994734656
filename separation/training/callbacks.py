"""Lightning callbacks: checkpoints in the run folder, speed and memory, examples in TensorBoard."""

from __future__ import annotations

import io
import os
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from separation.data.fixed_mixtures import Rendered
from separation.plot import Spectrogram, draw
from separation.training.objectives.base import Objective


def continues_in(folder: Path | str, checkpoint: Path | str | None) -> bool:
    """Whether a run that is resumed from `checkpoint` continues in `folder`: links and relative paths are resolved."""
    if not checkpoint:
        return False
    parents = os.path.dirname(os.path.abspath(checkpoint)), os.path.dirname(os.path.realpath(checkpoint))
    return os.path.realpath(folder) in map(os.path.realpath, parents)


def move_earlier_checkpoints(folder: Path, resumed_from: str | None) -> Path | None:
    """Move the checkpoints of an earlier run, and the model that it wrote, into `earlier_1`, `earlier_2` and so on.

    Returns that folder, or None if there are none or the new run is resumed from one of them.
    """
    names = ("last*.ckpt", "best*.ckpt", "config.yaml", "*.safetensors")
    found = [file for name in names for file in sorted(folder.glob(name)) if file.is_file()]
    if not found or continues_in(folder, resumed_from):
        return None
    number = next(n for n in range(1, 10**6) if not (folder / f"earlier_{n}").exists())
    earlier = folder / f"earlier_{number}"
    earlier.mkdir()
    for file in found:
        file.rename(earlier / file.name)
    return earlier


class RunFolderCheckpoint(ModelCheckpoint):
    """Saves one file under a fixed name, in `trainer.default_root_dir` if no other folder is given."""

    same_run = False

    def __init__(self, dirpath: str | None = None, **options: Any) -> None:
        super().__init__(dirpath=dirpath, enable_version_counter=False, **options)

    def resolve_folder(self, trainer: Trainer) -> None:
        folder = str(self.dirpath or trainer.default_root_dir)
        self.dirpath = folder if "://" in folder else os.path.realpath(folder)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.resolve_folder(trainer)
        super().setup(trainer, pl_module, stage)

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        """For `--ckpt_path last`, which Lightning looks for before `setup`."""
        self.resolve_folder(trainer)
        return super()._find_last_checkpoints(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        folders = (trainer.default_root_dir, str(self.dirpath))
        self.same_run = any(continues_in(folder, trainer.ckpt_path) for folder in folders)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best checkpoint so far if the run continues in its folder and the file is there.

        The folder may have been moved or be given by another path; what counts is where the resumed checkpoint lies.
        """
        folder = str(self.dirpath)
        best = os.path.join(folder, os.path.basename(state_dict["best_model_path"]))
        if not self.same_run or not os.path.isfile(best):
            return
        scores = dict.fromkeys([best], state_dict["best_model_score"])
        moved = {"dirpath": folder, "best_model_path": best, "kth_best_model_path": best, "best_k_models": scores}
        super().load_state_dict(state_dict | moved | {"last_model_path": ""})


class Last(RunFolderCheckpoint):
    """`last.ckpt`, after every so many steps and at the end of each epoch, with or without validation."""

    def __init__(self, every_n_train_steps: int = 200, dirpath: str | None = None) -> None:
        super().__init__(dirpath, save_last=True, save_top_k=0, every_n_train_steps=every_n_train_steps)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


class Best(RunFolderCheckpoint):
    """`best.ckpt`, after each validation with the highest value of `monitor` so far; nothing without validation."""

    def __init__(self, monitor: str = "val/sdri", dirpath: str | None = None) -> None:
        super().__init__(dirpath, monitor=monitor, filename="best", mode="max", save_on_train_epoch_end=False)


class Speed(Callback):
    """Logs throughput and memory with every step, as means over the last `window` steps.

    - `speed/clips_per_second`: of all devices together;
    - `speed/waiting`: share of the time spent waiting for the next batch, near zero if loading keeps up;
    - `speed/memory_gb`: peak memory of the device, or of the process on a CPU.
    """

    def __init__(self, window: int = 20) -> None:
        self.steps: deque[tuple[float, float]] = deque(maxlen=window)  # seconds of waiting, seconds in all
        self.ended = self.started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = time.perf_counter()  # the time between two epochs does not count

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
        pl_module.log("speed/memory_gb", peak_memory(pl_module.device) / 1e9)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.ended = time.perf_counter()


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes, of a CUDA device, or of the process for other devices."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Examples(Callback):
    """Logs sound and spectrograms of the first `count` validation mixtures to TensorBoard, at each validation.

    Mixture and target are logged once. Without a TensorBoard logger nothing is done.
    """

    def __init__(self, count: int = 3) -> None:
        self.count = count
        self.logged: set[str] = set()

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
        if not isinstance(pl_module, Objective) or not isinstance(batch, Rendered):
            return
        board, step = boards[0].experiment, trainer.global_step
        name, rate = f"{batch.row['id']} {batch.row['query']}", batch.sample_rate
        mixture, target = torch.from_numpy(batch.mixture)[None], torch.from_numpy(batch.target)[None]
        estimate = pl_module.separator()(mixture, batch.row["query"], rate).target
        if name not in self.logged:
            board.add_audio(f"{name}/mixture", mixture, step, rate)
            board.add_audio(f"{name}/target", target, step, rate)
            self.logged.add(name)
        board.add_audio(f"{name}/estimate", estimate, step, rate)
        waves = {"mixture": mixture, "target": target, "estimate": estimate}
        board.add_image(f"{name}/spectrograms", spectrogram_image(waves, name, rate), step, dataformats="HWC")


def spectrogram_image(waves: dict[str, Tensor], title: str, sample_rate: int) -> np.ndarray:
    """Spectrograms of waveforms (channels, time), one below the other: (height, width, 3), 0 to 1."""
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
