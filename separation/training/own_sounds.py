"""What teaching a model new sounds starts from, and the model directory that it writes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import yaml
from safetensors.torch import save_file
from torch import Tensor

from separation import pretrained
from separation.download import replace_when_complete
from separation.encoders.joint import TEMPLATES, JointEncoder
from separation.errors import ModelError
from separation.listing import ListingRule
from separation.models.band_unet import BandUNet
from separation.own_sounds import checksum

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
    card = {key: value for key, value in (config.get("card") or {}).items() if key in ("queries", "sample_rate")}
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
