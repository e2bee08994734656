"""Models that were taught a user's own sounds: a small difference to a base model, which stays where it is.

The directory holds `config.yaml`, which names the base and its checksum, and `model.safetensors` with the differences
of vectors, pairs of small matrices whose products are those of matrices and kernels, and the names and conditions of
the new sounds. `training.objectives.own_sounds` writes it.
"""

from __future__ import annotations

import hashlib
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from separation.encoders.joint import TEMPLATES, JointEncoder
from separation.encoders.own_names import OwnNames
from separation.errors import ModelError
from separation.models.base import ConditionedModel
from separation.models.own_sounds import OwnSoundsNetwork
from separation.tensors import join_names, read_tensors, select

LEFT, RIGHT = ".left", ".right"  # the two factors of the difference of a matrix


def checksum(base: Path) -> str:
    """SHA-256 of the weights of a model directory."""
    return hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()


def check_base(directory: Path, base: Any, found: Path) -> None:
    """Raise ModelError unless the weights in `found` are those of the `base` that the config of a directory names."""
    if (here := checksum(found)) != base["sha256"]:
        raise ModelError(
            f"{directory} was trained on other weights of {base['model']} (SHA-256 {base['sha256'][:12]}, here "
            f"{here[:12]}), so it cannot be used with these; train it again."
        )


def apply_difference(directory: Path, model: ConditionedModel, encoder: Any) -> OwnSoundsNetwork:
    """Return the network of a model directory whose base is `model`; the encoder learns the names of the new sounds.

    Raises:
        ModelError: the difference is damaged, or does not fit the base.
    """
    if not isinstance(encoder, JointEncoder):
        raise ModelError(f"{directory}: its base has no joint encoder.")
    file = directory / "model.safetensors"
    tensors = {name: value.float() for name, value in read_tensors(file).items()}
    names, rivals, vectors = (tensors.get(f"encoder.own.{name}") for name in ("names", "rivals", "vectors"))
    forms = (len(TEMPLATES), encoder.sentence.embedding_dim)
    if (
        names is None or rivals is None or vectors is None or vectors.shape != (len(names), encoder.embedding_dim)
        or names.shape[1:] != forms or rivals.shape[1:] != forms or not len(names) or not len(rivals)
    ):  # fmt: skip
        raise ModelError(f"{file} has no conditions of sounds that fit its base.")
    encoder.own = OwnNames(names, rivals, vectors).eval().requires_grad_(False)
    adapted = deepcopy(model)
    state, strange = adapted.state_dict(), []
    for name, value in select(tensors, "model.").items():
        stem = name.removesuffix(LEFT).removesuffix(RIGHT)
        right = tensors.get(f"model.{stem}{RIGHT}")
        if name.endswith(RIGHT) and f"model.{stem}{LEFT}" in tensors:
            continue
        weight = state.get(stem)
        if name.endswith(LEFT):
            fits = right is not None and value.ndim == right.ndim == 2 and value.shape[1] == right.shape[0]
            value = (value @ right).flatten() if fits and right is not None else value[:0]
        if weight is None or value.numel() != weight.numel() or not torch.isfinite(value).all():
            strange.append(f"model.{name}")
        else:
            weight += value.view_as(weight)
    if strange:
        raise ModelError(f"{file} does not fit its base: {join_names(strange)}.")
    return OwnSoundsNetwork(model, adapted, encoder.own.unit_vectors())
