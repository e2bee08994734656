"""Which released system a checkpoint belongs to, from the names and shapes of its tensors.

Wrappers put prefixes before the names (`ss_model.`, `module.`); they are found, not listed. Only frozen transforms are
left out, which are computed here: every other tensor has to be there, once, in its shape.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from separation.description import ModelError
from separation.tensors import SHOWN, Tensors, listed

SIGNS = {
    "resunet": re.compile(
        r"^(.*?)(?:base\.(?:bn0|pre_conv|after_conv|conv_block7a|(?:en|de)coder_block\d)\.|film\.\w+->)"
    ),
    "bimodal": re.compile(r"^(.*?)(?:net_sound|net_synthesizer)\."),
    "clipsep": re.compile(r"^(.*?)(?:sound_net|synth_net|frame_net)\."),
}
COMPUTED = {
    "resunet": re.compile(r"base\.i?stft\."),
    "bimodal": re.compile(r"i?stft\."),
    "clipsep": re.compile(r"(?!)"),
}
# What else may lie in a file: encoders, used as query encoders, and parts that only training needs.
BESIDE = {
    "resunet": ("query_encoder.", "query_net.", "anchor_segment_detector."),
    "bimodal": ("net_clap.model.",),
    "clipsep": (),
}
ENCODERS = {
    "text_branch.embeddings.word_embeddings.weight": "the text encoder CLAP",
    "conv_block6.conv2.weight": "the tagger PANNs Cnn14",
    "visual.conv1.weight": "the encoder CLIP",
    "encoder.seen": "a tagger",  # a run of `Tagging`
}
RATES = {1025: (32000, 2048, 320), 513: (16000, 1024, 160)}  # by the number of bins: sample rate, n_fft, hop
RESUNETS = {(512, 1025): "audiosep", (527, 1025): "uss", (2048, 1025): "uss-embedding", (512, 513): "dcase2024"}


@dataclass(frozen=True)
class Recognised:
    """What a file turned out to be.

    Attributes:
        name: of the family, as in `separate --list-models`.
        model: class path and arguments of the network.
        tensors: the network's, by their bare names.
        beside: what else lies in the file, by full names: encoders.
        computed: number of tensors left out because they are computed.
    """

    name: str
    model: dict[str, Any]
    tensors: dict[str, Tensor] = field(repr=False)
    beside: dict[str, Tensor] = field(repr=False)
    computed: int = 0


def recognise(state: Tensors, source: str | Path) -> Recognised:
    """The released system that a state dict belongs to.

    Raises:
        ModelError: none, or it holds tensors that belong to no part of it.
    """
    for kind, sign in SIGNS.items():
        match = next((found for name in state if (found := sign.match(name))), None)
        if match:
            return _split(kind, match[1], state, source)
    for name, what in ENCODERS.items():
        if any(key.endswith(name) for key in state):
            raise ModelError(f"{source} holds {what}, not a separator.")
    first = ", ".join(sorted(state)[:SHOWN])
    raise ModelError(f"{source} is no checkpoint of a known separator: its tensors are called {first}, ...")


def _split(kind: str, prefix: str, state: Tensors, source: str | Path) -> Recognised:
    outer = prefix.removesuffix("ss_model.")  # encoders lie beside the separator, not under it
    beside = {k: v for k, v in state.items() if k.startswith(tuple(outer + part for part in BESIDE[kind]))}
    inside = {k: v for k, v in state.items() if k not in beside}
    strange = [k for k in inside if not k.startswith(prefix)]
    if strange:
        raise ModelError(f"{source} holds tensors that do not belong to it: {listed(strange)}.")
    bare = {k.removeprefix(prefix): v for k, v in inside.items()}
    tensors = {k: v for k, v in bare.items() if not COMPUTED[kind].match(k)}
    name, model = DESCRIBE[kind](tensors, source)
    return Recognised(name, model, tensors, beside, len(bare) - len(tensors))


def describe_resunet(tensors: Tensors, source: str | Path) -> tuple[str, dict[str, Any]]:
    """Name and description of a ResUNet30; condition and transform sizes come from the shapes."""
    dims = [v.shape[1] for k, v in tensors.items() if k.startswith("film.") and v.ndim == 2]
    bins = [len(v) for k, v in tensors.items() if k.startswith("base.bn0.") and v.ndim == 1]
    sizes = (max(set(dims), key=dims.count) if dims else 0, max(set(bins), key=bins.count) if bins else 0)
    if sizes not in RESUNETS:
        raise ModelError(
            f"{source} is a ResUNet30 for conditions of {sizes[0]} numbers and {sizes[1]} frequency bins, "
            f"which is none of the released ones ({', '.join(RESUNETS.values())})."
        )
    name, (rate, n_fft, hop) = RESUNETS[sizes], RATES[sizes[1]]
    arguments = {"condition_dim": sizes[0], "sample_rate": rate, "n_fft": n_fft, "hop": hop}
    if name.startswith("uss"):
        arguments["segment"] = 2 * rate
    return name, {"class_path": "separation.models.resunet.ResUNet30", "init_args": arguments}


def describe_clipsep(tensors: Tensors, source: str | Path) -> tuple[str, dict[str, Any]]:
    """Name and description of CLIPSep or one of its relatives."""
    name, arguments = "clipsep", dict[str, Any]()
    heads = {k.split(".")[1] for k in tensors if k.startswith("pit_nets.")}
    if "synth_net.weight" in tensors:
        name, arguments = "clipsep-pit", {"fusion": "none"}
    elif "frame_net.fc.weight" in tensors:
        name, arguments = "clipsep-early", {"fusion": "early"}
    elif any(k.startswith("sound_net.unet_block.downconv.") for k in tensors):
        name, arguments = "clipsep-middle", {"fusion": "middle"}
    elif heads:
        name, arguments = "clipsep-nit", {"noise_heads": len(heads)}
    elif "label_net.weight" in tensors:
        name, arguments = "labelsep", {"labels": len(tensors["label_net.weight"])}
    elif "frame_net.weight" in tensors and tensors["frame_net.weight"].shape[-1] == 256:
        name, arguments = "bertsep", {"condition_dim": 256}
    return name, {"class_path": "separation.models.clipsep_unet.CLIPSepUNet", "init_args": arguments}


def describe_bimodal(tensors: Tensors, source: str | Path) -> tuple[str, dict[str, Any]]:
    """Name and description of the bi-modal paper's network."""
    return "bimodal", {"class_path": "separation.models.bimodal_unet.BiModalUNet", "init_args": {}}


DESCRIBE = {"resunet": describe_resunet, "clipsep": describe_clipsep, "bimodal": describe_bimodal}
