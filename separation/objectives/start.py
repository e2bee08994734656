"""Where a training starts from when it does not start from nothing: a checkpoint, or a model directory."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from separation.export import tensors
from separation.hub import load_part


def start(model: nn.Module, encoder: nn.Module, source: Path) -> None:
    """Loads separator and encoder, strictly.

    Args:
        model: the separator; takes the averaged weights of a checkpoint.
        encoder: the query encoder.
        source: checkpoint of a training here, or a model directory (its `model.safetensors`).

    Raises:
        ModelError: a tensor is missing, left over or misshapen.
    """
    state = of_directory(source) if source.is_dir() else of_checkpoint(source)
    load_part(model, state, "model.", source)
    load_part(encoder, state, "encoder.", source)


def load_encoder(encoder: nn.Module, file: Path) -> None:
    """Loads an encoder that `separation.export encoder` wrote.

    Raises:
        ModelError: a tensor is missing, left over or misshapen.
    """
    from safetensors.torch import load_file

    load_part(encoder, load_file(file), "", file)


def of_directory(directory: Path) -> dict[str, Tensor]:
    """Tensors of a model directory, named `model.*` and `encoder.*`."""
    from safetensors.torch import load_file

    return load_file(directory / "model.safetensors")


def of_checkpoint(file: Path) -> dict[str, Tensor]:
    """Averaged separator and encoder of a Lightning checkpoint, named as in a model directory."""
    averaged = {f"model.{name}": value for name, value in tensors(file, "average.").items()}
    return averaged | {f"encoder.{name}": value for name, value in tensors(file, "encoder.", none=True).items()}
