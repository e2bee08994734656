"""Tensor names of CLIP's Hugging Face form, and the way from them to OpenAI's, which open_clip has too."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# OpenAI's archives carry these three numbers beside the weights.
NUMBERS = ("input_resolution", "context_length", "vocab_size")
COMPUTED = ("position_ids", "attn_mask")
SIGN = "text_model.embeddings.token_embedding.weight"

TOWERS = (
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("text_model.encoder.layers.", "transformer.resblocks."),
)
PARTS = (
    (".self_attn.out_proj.", ".attn.out_proj."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
)
SINGLE = {
    "logit_scale": "logit_scale",
    SIGN: "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}
TRANSPOSED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}


def layer_name(name: str) -> str:
    """The name of a layer's tensor; others stay."""
    for old, new in TOWERS + PARTS:
        name = name.replace(old, new)
    return name


def openai_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's weights, of either form and with or without "module.", under OpenAI's names, float32."""
    bare = {k.removeprefix("module."): v for k, v in tensors.items()}
    bare = {k: v.float() for k, v in bare.items() if k not in NUMBERS and not k.endswith(COMPUTED)}
    return from_transformers(bare) if SIGN in bare else bare


def from_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face names to OpenAI's; the three attention matrices become one."""
    found = {}
    for name, tensor in tensors.items():
        if ".self_attn.q_proj." in name:
            parts = [tensors.get(name.replace(".q_proj.", f".{p}_proj."), tensor) for p in "qkv"]
            kind = name.rsplit(".", 1)[1]
            found[layer_name(name.split("self_attn")[0]) + f"attn.in_proj_{kind}"] = torch.cat(parts)
        elif name in TRANSPOSED:
            found[TRANSPOSED[name]] = tensor.T.contiguous()
        elif ".self_attn.k_proj." not in name and ".self_attn.v_proj." not in name:
            found[SINGLE.get(name) or layer_name(name)] = tensor
    return found
