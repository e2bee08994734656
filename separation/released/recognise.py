"""Which published system a checkpoint belongs to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from separation.errors import ModelError
from separation.released.systems import SIGNS, SYSTEMS, System, resunet_size
from separation.storage.tensors import StoredModel, Tensors, join_names

COMPUTED = re.compile(r"(?:base\.)?i?stft\.")  # frozen transforms, which are computed here
# Encoders, and parts that only training needs, which stand next to the network.
BESIDE = ("query_encoder.", "query_net.", "anchor_segment_detector.", "net_clap.model.")
# Tensors by whose names one sees that a file holds no separator.
OTHER_NETWORKS = {
    "text_branch.embeddings.word_embeddings.weight": "the text encoder CLAP",
    "conv_block6.conv2.weight": "the tagger PANNs Cnn14",
    "visual.conv1.weight": "the encoder CLIP",
    "encoder.seen": "a tagger",  # a training with the objective Tagging
}


def read_published_config(system: System, checkpoint: Path) -> dict[str, Any]:
    """Read the network's arguments from the configuration published beside a checkpoint, if it is there."""
    import yaml

    assert system.config is not None
    places = [checkpoint.with_name(system.config.filename), checkpoint.with_name(Path(system.config.url).name)]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        rate, model = content["data"]["sampling_rate"], content["model"]
        kind, condition = model["model_type"], model["condition_size"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        raise ModelError(f"{path} is not the configuration of {system.name}: it gives no rate and network.") from None
    if not isinstance(rate, int) or not 8000 <= rate <= 192000:
        raise ModelError(f"{path}: the sampling rate {rate!r} is not valid.")
    if (kind, condition) != (system.network.rpartition(".")[2], system.condition_dim):
        raise ModelError(f"{path} describes {kind} for {condition} numbers, which {system.name} is not.")
    return {"sample_rate": rate}


def recognise(state: Tensors, source: str | Path) -> StoredModel:
    """Find the published system that a checkpoint belongs to, from the names and shapes of its tensors.

    Frozen transforms are left out. Raises ModelError if another tensor belongs neither to network nor to encoder.
    """
    found = ((network, match) for network, sign in SIGNS.items() for name in state if (match := sign.match(name)))
    network, match = next(found, ("", None))
    if match is None:
        for ending, what in OTHER_NETWORKS.items():
            if any(name.endswith(ending) for name in state):
                raise ModelError(f"{source} holds {what}, not a separator.")
        if any(name.startswith("encoder.own.") for name in state):
            raise ModelError(f"{source} is of a training of own sounds that has not ended: go on with --ckpt_path.")
        raise ModelError(f"{source} is not a checkpoint of a known separator: its tensors are {join_names(state)}.")
    prefix = match[1]
    outside = tuple(prefix.removesuffix("ss_model.") + part for part in BESIDE)
    encoder = {name: value for name, value in state.items() if name.startswith(outside)}
    strange = [name for name in state if name not in encoder and not name.startswith(prefix)]
    if strange:
        raise ModelError(f"{source} holds tensors that do not belong to it: {join_names(strange)}.")
    bare = {name.removeprefix(prefix): value for name, value in state.items() if name not in encoder}
    tensors = {name: value for name, value in bare.items() if not COMPUTED.match(name)}
    matches = [(s, given) for s in SYSTEMS.values() if s.network == network and (given := s.match(tensors)) is not None]
    if not matches:
        dim, bins = resunet_size(tensors)
        raise ModelError(
            f"{source} is a ResUNet30 for conditions of {dim} numbers and {bins} frequency bins, "
            "which no published system has."
        )
    named = [match for match in matches if match[0].by_name and match[0].checkpoint_name == Path(source).name]
    system, arguments = (named or [match for match in matches if not match[0].by_name])[-1]
    if system.config is not None:
        arguments = arguments | read_published_config(system, Path(source))
    encoder |= {name: value for name, value in tensors.items() if name.startswith("label_net.")}
    queries = {"family": system.name, "embedding_dim": arguments.get("condition_dim", system.condition_dim)}
    description = {
        "model": {"class_path": network, "init_args": arguments},
        "encoder": {"class_path": "separation.released.encoder.ReleasedEncoder", "init_args": queries},
    }
    stored = {f"model.{name}": value for name, value in tensors.items()}
    stored |= {f"encoder.{name}": value for name, value in encoder.items()}
    return StoredModel(description, stored, system.name)
