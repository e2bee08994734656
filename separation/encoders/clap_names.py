"""Tensor names of LAION's CLAP and of its Hugging Face form, and the way from one to the other.

LAION's names are found in its `.pt` files ("module." before them), in AudioSep's checkpoints ("query_encoder.model."),
in BiModal's ("module.net_clap.model.model.") and CLAPSep's ("clap_model.model."): any prefix will do.
"""

from __future__ import annotations

from torch import Tensor

from separation.encoders.base import EncoderError
from separation.tensors import Tensors

# What a file may hold beyond the weights of both towers: computed here, not used by any condition, or training state.
COMPUTED = ("position_ids", "token_type_ids", "relative_position_index", "attn_mask", "num_batches_tracked")
UNUSED = (
    "audio_branch.spectrogram_extractor.",
    "audio_branch.logmel_extractor.",
    "audio_branch.tscam_conv.",
    "audio_branch.head.",
    "text_transform.",
    "audio_transform.",
    "logit_scale",
)
SIGNS = {
    "laion": ("text_branch.embeddings.word_embeddings.weight", "audio_branch.patch_embed.proj.weight"),
    "transformers": (
        "text_model.embeddings.word_embeddings.weight",
        "audio_model.audio_encoder.patch_embed.proj.weight",
    ),
}
PREFIX_OF = {"text": ("text_model.", "text_projection."), "audio": ("audio_model.", "audio_projection.")}

PROJECTION = (("projection.0.", "projection.linear1."), ("projection.2.", "projection.linear2."))
# Order matters: "attn.proj" before "mlp.fc1", since the new names hold "output.dense" as well.
AUDIO = (
    ("audio_branch.bn0.", "audio_model.audio_encoder.batch_norm."),
    ("audio_branch.", "audio_model.audio_encoder."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.relative_position_bias_table", ".attention.self.relative_position_bias_table"),
    (".attn.proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)


def is_unused(name: str) -> bool:
    """Whether a bare name is computed here, or plays no part in the conditions."""
    return name.endswith(COMPUTED) or name.startswith(UNUSED)


def replaced(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    """A name with every old part replaced by the new one."""
    for old, new in pairs:
        name = name.replace(old, new)
    return name


def renamed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A LAION tensor under its Hugging Face name; the joint query-key-value matrix becomes three."""
    if name.startswith(("text_projection.", "audio_projection.")):
        return {replaced(name, PROJECTION): tensor}
    if name.startswith("text_branch."):
        return {name.replace("text_branch.", "text_model.", 1): tensor}
    if ".attn.qkv." in name:
        parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
        return {replaced(name.replace(".attn.qkv.", f".attention.self.{p}."), AUDIO): part for p, part in parts}
    return {replaced(name, AUDIO): tensor}


def find_form(tensors: Tensors) -> tuple[str, str] | None:
    """("laion" or "transformers", prefix) of the CLAP among these tensors; None for none."""
    for form, signs in SIGNS.items():
        for sign in signs:
            for name in tensors:
                if name == sign or name.endswith(f".{sign}"):
                    return form, name[: len(name) - len(sign)]
    return None


def bare(tensors: Tensors, source: str) -> tuple[str, dict[str, Tensor]]:
    """The form, and CLAP's weights without prefix.

    Raises:
        EncoderError: there is no CLAP among these tensors.
    """
    found = find_form(tensors)
    if found is None:
        raise EncoderError(f"{source} holds no CLAP: neither tensor {' nor '.join(s[0] for s in SIGNS.values())}.")
    form, prefix = found
    kept = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    return form, {k: v for k, v in kept.items() if not is_unused(k)}


def transformers_names(tensors: Tensors, source: str) -> dict[str, Tensor]:
    """CLAP's weights of either form under Hugging Face names.

    Raises:
        EncoderError: there is no CLAP among these tensors.
    """
    form, found = bare(tensors, source)
    if form == "transformers":
        return found
    return {new: part for name, tensor in found.items() for new, part in renamed(name, tensor).items()}


def tower_tensors(tensors: Tensors, tower: str) -> dict[str, Tensor]:
    """The part of Hugging Face names that belongs to the "text" or "audio" tower."""
    return {k: v for k, v in tensors.items() if k.startswith(PREFIX_OF[tower])}
