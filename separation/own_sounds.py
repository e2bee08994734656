"""Models that were taught a user's own sounds: a small difference to a base model, which stays where it is.

The directory holds `config.yaml`, which names the base and its checksum, and `model.safetensors` with the differences
of vectors, pairs of small matrices whose products are those of matrices and kernels, and the names and conditions of
the new sounds.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from separation import pretrained
from separation.download import replace_when_complete
from separation.encoders.joint import TEMPLATES, JointEncoder
from separation.encoders.own_names import OwnNames
from separation.errors import ModelError
from separation.listing import ListingRule
from separation.models.band_unet import BandUNet
from separation.models.own_sounds import OwnSoundsNetwork
from separation.tensors import join_names, read_tensors, select

LEFT, RIGHT = ".left", ".right"  # the two factors of the difference of a matrix
SOUNDS = "sounds.safetensors"  # conditions of the known sounds, which stay those of the base
RIVALS = 5  # known sounds with similar names, for each new sound


def load_base(name: str) -> tuple[BandUNet, JointEncoder, Path]:
    """Load the model to teach, from `list_models` or a directory; raise ModelError if it is not one of this kind."""
    path = pretrained.find_model(name)
    if path.is_dir() and pretrained.read_config(path).get("base"):
        raise ModelError(f"{path} was itself taught sounds; start from its base, and give the clips of all sounds.")
    model, encoder = pretrained.load_model(path)
    if not path.is_dir() or not isinstance(model, BandUNet) or not isinstance(encoder, JointEncoder):
        raise ModelError(f"{name} cannot be taught sounds: use default, small, or a model directory of their kind.")
    return model, encoder, path


def checksum(base: Path) -> str:
    """SHA-256 of the weights of a model directory."""
    return hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()


def name_vectors(encoder: JointEncoder, names: Sequence[str], known: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Sentence vectors (n, forms, dim) of names, and of the known sounds with the most similar other names."""

    def encode(texts: Sequence[str]) -> Tensor:
        forms = encoder.sentence.encode_text([form.format(text) for text in texts for form in TEMPLATES])
        return forms.unflatten(0, (-1, len(TEMPLATES))).half().float()  # as stored

    own, others = encode(names), [name for name in known if name not in names]
    cosines = encoder.sentence.encode_text(others) @ own[:, 0].T  # (others, names)
    nearest = cosines.topk(min(RIVALS, len(others)), 0).indices.flatten().unique()
    return own, encode([others[number] for number in nearest.tolist()])


def save_difference(directory: Path, base: str, tensors: dict[str, Tensor], sounds: Sequence[str]) -> None:
    """Write a directory of this kind.

    Args:
        directory: of the new model.
        base: name or directory of the base.
        tensors: of the difference, named as in the file.
        sounds: names of the new sounds.
    """
    source = pretrained.find_model(base)
    config = pretrained.read_config(source)
    listing = asdict(pretrained.load_settings(source, "listing", ListingRule))
    listing["sounds"] = list(dict.fromkeys([*listing["sounds"], *sounds]))
    card: dict[str, Any] = config.get("card") or {}
    about = {"description": f"{base} with own sounds: {', '.join(sounds)}", "scores": "not measured"}
    name = base if source.parent == pretrained.WEIGHTS else str(source.resolve())
    config |= {
        "card": card | about,
        "base": {"model": name, "sha256": checksum(source), "sounds": [*sounds]},
        "listing": listing,
    }
    directory.mkdir(parents=True, exist_ok=True)
    with replace_when_complete(directory / "model.safetensors") as part:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, part)
        part.chmod(0o644)
    if (source / SOUNDS).is_file():
        shutil.copyfile(source / SOUNDS, directory / SOUNDS)
    with replace_when_complete(directory / "config.yaml") as part:
        part.write_text(yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=120), encoding="utf-8")


def load_difference(directory: Path, base: Any) -> tuple[OwnSoundsNetwork, JointEncoder]:
    """Load a model directory whose config names a `base`.

    Raises:
        ModelError: the base is missing or has other weights, or the difference does not fit it.
    """
    if not isinstance(base, dict) or not all(isinstance(base.get(key), str) for key in ("model", "sha256")):
        raise ModelError(f"{directory / 'config.yaml'}: base must give model and sha256.")
    try:
        model, encoder, path = load_base(base["model"])
    except ModelError as error:
        raise ModelError(f"{directory}: its base cannot be loaded: {error}") from None
    if (found := checksum(path)) != base["sha256"]:
        raise ModelError(
            f"{directory} was trained on other weights of {base['model']} (SHA-256 {base['sha256'][:12]}, here "
            f"{found[:12]}), so it cannot be used with them; train it again."
        )
    file = directory / "model.safetensors"
    tensors = {name: value.float() for name, value in read_tensors(file).items()}
    names, rivals, vectors = (tensors.get(f"encoder.own.{name}") for name in ("names", "rivals", "vectors"))
    forms = (len(TEMPLATES), encoder.sentence.embedding_dim)
    if (
        names is None or rivals is None or vectors is None or vectors.shape != (len(names), encoder.embedding_dim)
        or names.shape[1:] != forms or rivals.shape[1:] != forms or not len(names) or not len(rivals)
    ):  # fmt: skip
        raise ModelError(f"{file} has no conditions of sounds that fit {base['model']}.")
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
            strange.append(name)
        else:
            weight += value.view_as(weight)
    if strange:
        raise ModelError(f"{file} does not fit {base['model']}: {join_names(strange)}.")
    return OwnSoundsNetwork(model, adapted, encoder.own.unit_vectors()), encoder
