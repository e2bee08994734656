"""What a training leaves: its run folder, and the model in a checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.errors import ModelError
from separation.storage.configs import read_yaml

if TYPE_CHECKING:
    from torch import Tensor

DESCRIPTION = "separation"  # entry of a checkpoint with the description of its separator and encoder
LOGS = ("", "version_*/", "*/version_*/")  # log folders inside a run folder


def find_checkpoint(folder: Path) -> Path | None:
    """Return the best checkpoint of a run folder, else the last, else the newest; None if it holds none."""
    found = [f for log in LOGS for inside in ("", "checkpoints/") for f in folder.glob(f"{log}{inside}*.ckpt")]
    if not found:
        return None
    best = max(found, key=lambda f: (f.name.startswith("best"), f.name.startswith("last"), f.stat().st_mtime))
    print(f"{folder} is a run folder: {best.relative_to(folder)} is used.", file=sys.stderr)
    return best


def average_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the averaged separator and the encoder of a training, named as in a model directory."""
    from separation.storage.tensors import select

    encoder = {name: value for name, value in state.items() if name.startswith("encoder.")}
    return {f"model.{name}": value for name, value in select(state, "average.").items()} | encoder


def find_description(checkpoint: Path) -> dict[str, Any]:
    """Return the description of an older checkpoint's model from the newest `config.yaml` of its run."""
    folder = checkpoint.parent
    folders = [folder, folder.parent] if folder.name == "checkpoints" else [folder]
    found = {config for folder in folders for log in LOGS for config in folder.glob(f"{log}config.yaml")}
    for config in sorted(found, key=lambda config: config.stat().st_mtime, reverse=True):
        description = describe_objective(read_yaml(config))
        if description is not None:
            return description
    raise ModelError(f"{checkpoint} is a training checkpoint, but no config.yaml in its folder or log describes it.")


def describe_objective(config: Any) -> dict[str, Any] | None:
    """Return class paths and arguments of the separator and encoder in Lightning's config; None without them."""
    try:
        parts = {name: config["model"]["init_args"][name] for name in ("model", "encoder")}
        return {
            name: {"class_path": part["class_path"], "init_args": dict(part.get("init_args") or {})}
            for name, part in parts.items()
        }
    except (TypeError, KeyError, AttributeError):
        return None
