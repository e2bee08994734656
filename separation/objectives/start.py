"""Where a training starts from when it does not start from nothing: a checkpoint, or a model directory."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from separation import pretrained
from separation.tensors import read_tensors


def start(model: nn.Module, encoder: nn.Module, source: Path) -> None:
    """Loads separator and encoder, strictly.

    Args:
        model: the separator; takes the averaged weights of a checkpoint.
        encoder: the query encoder.
        source: checkpoint of a training here, or a model directory (its `model.safetensors`).

    Raises:
        ModelError: a tensor is missing, left over or misshapen.
    """
    state = read_tensors(source / "model.safetensors") if source.is_dir() else pretrained.averaged(read_tensors(source))
    pretrained.load_parts(model, encoder, state, source)


def load_encoder(encoder: nn.Module, file: Path) -> None:
    """Loads an encoder that `separation.export encoder` wrote.

    Raises:
        ModelError: a tensor is missing, left over or misshapen.
    """
    pretrained.load_encoder(encoder, read_tensors(file), file)
