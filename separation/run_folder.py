"""What a training leaves behind, as a model: its run folder, or one of the checkpoints in it.

A checkpoint is read as plain data (`weights_only=True`). It holds what describes its separator; that of an older
training is looked up in the config.yaml that Lightning wrote into the log folder.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.description import ModelError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "separation"  # the checkpoint's entry with the description
AVERAGED, TRAINED, ENCODER = "average.", "model.", "encoder."
LOGS = ("", "version_*/", "*/version_*/")  # where log folders lie, seen from the run's folder


@dataclass(frozen=True)
class Trained:
    """Class paths and arguments of a training's separator and encoder, and their tensors (`model.*`, `encoder.*`)."""

    description: dict[str, dict[str, Any]]
    tensors: dict[str, Tensor]


def checkpoint_in(folder: Path) -> Path | None:
    """A run folder's best checkpoint, else its last, else its newest; none where there is none. Says which."""
    found = [f for log in LOGS for inside in ("", "checkpoints/") for f in folder.glob(f"{log}{inside}*.ckpt")]
    files = sorted(found, key=lambda file: file.stat().st_mtime)
    for start in ("best", "last", ""):
        if chosen := [file for file in files if file.name.startswith(start)]:
            print(f"{folder} is the folder of a training: {chosen[-1].relative_to(folder)} is used.", file=sys.stderr)
            return chosen[-1]
    return None


def read_checkpoint(file: Path) -> Trained | None:
    """The averaged separator of a training's checkpoint; None where the file is something else.

    Raises:
        ModelError: nothing tells how the separator was built.
    """
    import torch

    try:
        stored = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        state = stored["state_dict"]
        names = {name.split(".")[0] + "." for name in state}
    except Exception:  # of another kind, or damaged: the reader of released checkpoints has the words for it
        return None
    if not {AVERAGED, TRAINED} <= names:  # an encoder may have no tensors of its own
        return None
    description = stored.get(CONFIG) or described_beside(file)
    tensors = {"model." + k.removeprefix(AVERAGED): v for k, v in state.items() if k.startswith(AVERAGED)}
    return Trained(description, tensors | {k: v for k, v in state.items() if k.startswith(ENCODER)})


def described_beside(file: Path) -> dict[str, dict[str, Any]]:
    """The description in the newest config.yaml of the checkpoint's run.

    Raises:
        ModelError: there is none that names a separator and an encoder.
    """
    import yaml

    folders = [file.parent, file.parent.parent] if file.parent.name == "checkpoints" else [file.parent]
    found = {config for folder in folders for log in LOGS for config in folder.glob(f"{log}config.yaml")}
    for config in sorted(found, key=lambda config: config.stat().st_mtime, reverse=True):
        description = parts(yaml.safe_load(config.read_text(encoding="utf-8")))
        if description is not None:
            return description
    raise ModelError(f"{file} is a training's checkpoint, but no config.yaml in its folder or its log describes it.")


def parts(config: Any) -> dict[str, dict[str, Any]] | None:
    """Class path and arguments of an objective's separator and encoder, as a model directory's config has them.

    None where Lightning's config does not describe them.
    """
    try:
        arguments = config["model"]["init_args"]
        return {name: part(arguments[name]) for name in ("model", "encoder")}
    except (TypeError, KeyError, AttributeError):
        return None


def part(described: Any) -> dict[str, Any]:
    """Class path and arguments, and nothing else."""
    return {"class_path": described["class_path"], "init_args": dict(described.get("init_args") or {})}
