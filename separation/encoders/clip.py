"""CLIP ViT-B/32 (Radford et al., 2021) through open_clip: texts and images to vectors of one space of 512 dimensions.

Vectors keep their length (about 10), as CLIPSep uses them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import reduce
from torch import Tensor

from separation.encoders.base import EncoderError, QueryEncoder, import_optional
from separation.encoders.torchscript import read_archive
from separation.storage.tensors import Tensors, load_strictly, read_tensors

VOCABULARY = 49408
AT_ONCE = 256  # pictures
VISION = {"layers": 12, "width": 768, "head_width": 64, "patch_size": 32, "image_size": 224}
TEXT = {"context_length": 77, "vocab_size": VOCABULARY, "width": 512, "heads": 8, "layers": 12}
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

# CLIPSep uses "photo" in training, "ensemble" (one entry occurs twice) for its scores and "verbatim" in its script.
PROMPTS = {
    "verbatim": ("{}",),
    "photo": ("a photo of {}",),
    "ensemble": (
        "a photo of {}.",
        "a photo of the small {}.",
        "a photo of the small {}.",
        "a low resolution photo of a {}.",
        "a photo of many {}.",
    ),
}

# Hugging Face's names to OpenAI's, which open_clip uses as well.
SIGN = "text_model.embeddings.token_embedding.weight"
RENAMES = (
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    (".self_attn.out_proj.", ".attn.out_proj."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    ("text_model.embeddings.token_embedding.", "token_embedding."),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm.", "ln_final."),
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding.", "visual.conv1."),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("visual_projection.weight", "visual.proj"),
    ("text_projection.weight", "text_projection"),
)

SAFE_KINDS = ("JPEG", "PNG", "WEBP", "BMP")  # of pictures that come as bytes, such as from a web server
Picture = Any
"""A path, a file's bytes, a PIL image, an array (height, width, 3) or tensor (3, height, width) of uint8 or floats."""


def openai_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return CLIP's weights in float32 under OpenAI's names, from OpenAI's or Hugging Face's."""
    bare = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    settings = ("input_resolution", "context_length", "vocab_size")  # numbers in OpenAI's archives
    bare = {
        name: tensor.float()
        for name, tensor in bare.items()
        if name not in settings and not name.endswith(("position_ids", "attn_mask"))
    }
    if SIGN not in bare:
        return bare
    found = {}
    for name, tensor in bare.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        if ".q_proj." in name:  # three matrices for what is one in OpenAI's form
            tensor = torch.cat([bare.get(name.replace(".q_proj.", f".{part}_proj."), tensor) for part in "qkv"])
            name = name.replace(".self_attn.q_proj.", ".attn.in_proj_")
        elif name.endswith("projection.weight"):
            tensor = tensor.T.contiguous()
        for theirs, ours in RENAMES:
            name = name.replace(theirs, ours)
        found[name] = tensor
    return found


def check_tokenizer(tokenizer: Any) -> None:
    """Raise EncoderError if a tokenizer's size or its token numbers of one sentence are not CLIP's."""
    if tokenizer.vocab_size != VOCABULARY:
        raise EncoderError(f"The tokenizer of open_clip has {tokenizer.vocab_size} tokens, CLIP's has {VOCABULARY}.")
    expected = [49406, 320, 1125, 539, 320, 1929, 49407]
    numbers = tokenizer(["a photo of a dog"])[0, : len(expected)].tolist()
    if numbers != expected:
        raise EncoderError(
            f"The tokenizer of open_clip makes {numbers} of 'a photo of a dog', CLIP's makes {expected}."
        )


def open_picture(picture: Picture) -> Any:
    """Convert any form of picture to a PIL image in RGB; raise EncoderError for anything else."""
    from PIL import Image

    if isinstance(picture, str | Path | bytes):
        file, kinds = (io.BytesIO(picture), SAFE_KINDS) if isinstance(picture, bytes) else (picture, None)
        try:
            with Image.open(file, formats=kinds) as image:
                return image.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError):
            name = f"A file of {len(picture)} bytes" if isinstance(picture, bytes) else picture
            raise EncoderError(f"{name} cannot be read as a picture.") from None
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    pixels = picture.detach().cpu().permute(1, 2, 0).numpy() if isinstance(picture, Tensor) else np.asarray(picture)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise EncoderError(f"A picture must have shape (height, width, 3), not {pixels.shape}.")
    if pixels.dtype != np.uint8:
        pixels = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels))


class ClipEncoder(QueryEncoder):
    """Texts and images to CLIP vectors (512), not of unit length.

    Args:
        prompts: "ensemble" (CLIPSep's scores), "photo" (CLIPSep's training) or "verbatim" (CLIPSep's script).
        embedding_dim: length of the vectors.
        vision: settings of the image tower that differ from the published ones.
        text: settings of the text tower that differ from the published ones.

    Raises:
        EncoderError: open_clip is not installed, or its tokenizer is not CLIP's.
        ValueError: there are no such prompts.
    """

    modalities = frozenset({"text", "image"})
    unit_length = False

    def __init__(
        self,
        prompts: str = "ensemble",
        embedding_dim: int = 512,
        vision: dict[str, Any] | None = None,
        text: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if prompts not in PROMPTS:
            raise ValueError(f"prompts must be one of {', '.join(PROMPTS)}, not {prompts!r}")
        open_clip = import_optional("open_clip", "CLIP", "clip")
        self.prompts, self.embedding_dim = prompts, embedding_dim
        vision_settings = open_clip.CLIPVisionCfg(**{**VISION, **(vision or {})})
        text_settings = open_clip.CLIPTextCfg(**{**TEXT, **(text or {})})
        network = open_clip.CLIP(embedding_dim, vision_settings, text_settings, quick_gelu=True)
        self.network = network.eval().requires_grad_(False)
        # The short side is resized (bicubic), the middle cut out, and the pixels are normalised.
        self.prepare = open_clip.image_transform(vision_settings.image_size, is_train=False, mean=MEAN, std=DEVIATION)
        self.tokenizer = open_clip.SimpleTokenizer()
        check_tokenizer(self.tokenizer)

    @classmethod
    def from_tensors(cls, tensors: Tensors, source: str = "the checkpoint", **options: Any) -> ClipEncoder:
        """Create the encoder from tensors with OpenAI's or Hugging Face's names; raise ModelError if they misfit."""
        encoder = cls(**options)
        load_strictly(encoder.network, openai_names(tensors), source)
        return encoder

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> ClipEncoder:
        """Create the encoder from OpenAI's `ViT-B-32.pt`, or timm/vit_base_patch32_clip_224.openai's `.safetensors`."""
        tensors = read_archive(path)
        return cls.from_tensors(read_tensors(path) if tensors is None else tensors, str(path), **options)

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Tensor:
        """Encode texts as (batch, 512), the mean over the prompts."""
        if not texts:
            return torch.zeros(0, self.embedding_dim)
        patterns = PROMPTS[self.prompts]
        tokens = self.tokenizer([pattern.format(text) for text in texts for pattern in patterns])
        vectors: Tensor = self.network.encode_text(tokens.to(self.device))
        return reduce(vectors.float(), "(text prompt) dim -> text dim", "mean", prompt=len(patterns))

    @torch.no_grad()
    def encode_image(self, images: Sequence[Picture | Sequence[Picture]]) -> Tensor:
        """Encode pictures as (batch, 512); a nested list is one query, the mean over its pictures.

        Raises:
            EncoderError: a list is empty, a file is not a readable picture, or an array has another shape.
        """
        queries = [entry if isinstance(entry, list | tuple) else [entry] for entry in images]
        if not all(queries):
            raise EncoderError("A query by pictures needs one picture or more.")
        if not queries:
            return torch.zeros(0, self.embedding_dim)
        with ThreadPoolExecutor() as pool:  # decoding and resizing release the interpreter
            pixels = list(pool.map(lambda picture: self.prepare(open_picture(picture)), chain(*queries)))
        parts = torch.split(torch.stack(pixels), AT_ONCE)
        vectors = torch.cat([self.network.encode_image(part.to(self.device)).float() for part in parts])
        return torch.stack([part.mean(0) for part in torch.split(vectors, [len(query) for query in queries])])
