"""CLIP ViT-B/32 (Radford et al., 2021) through open_clip: sentences and pictures to vectors, as CLIPSep uses them.

CLIPSep takes CLIP's vectors as they come (their length is about 10), so these are not of unit length.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from separation.encoders.base import EncoderError, QueryEncoder
from separation.encoders.clip_names import openai_names
from separation.encoders.packages import optional
from separation.encoders.torchscript import is_archive, read_archive
from separation.tensors import Tensors, load_strictly, read_tensors

VOCABULARY = 49408
SENTENCE, NUMBERS = "a photo of a dog", [49406, 320, 1125, 539, 320, 1929, 49407]

VISION = {"layers": 12, "width": 768, "head_width": 64, "patch_size": 32, "image_size": 224}
TEXT = {"context_length": 77, "vocab_size": VOCABULARY, "width": 512, "heads": 8, "layers": 12}

# CLIPSep trains with the second; its published scores are with the third, whose double entry is its own; its script
# adds nothing.
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
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Picture = Any  # a path, a PIL image, an array (height, width, 3), or a tensor (3, height, width)


def check(tokenizer: Any) -> None:
    """Refuse a tokenizer that is not CLIP's.

    Raises:
        EncoderError: says what is wrong with it.
    """
    if tokenizer.vocab_size != VOCABULARY:
        raise EncoderError(f"The tokenizer of open_clip has {tokenizer.vocab_size} tokens, CLIP's has {VOCABULARY}.")
    numbers = tokenizer([SENTENCE])[0, : len(NUMBERS)].tolist()
    if numbers != NUMBERS:
        raise EncoderError(f"The tokenizer of open_clip makes {numbers} of {SENTENCE!r}, CLIP's makes {NUMBERS}.")


def pillow() -> Any:
    """The module PIL.Image.

    Raises:
        EncoderError: Pillow is not installed.
    """
    return optional("PIL.Image", "A query by pictures", "clip")


def open_picture(picture: Picture) -> Any:
    """Any form of picture as a PIL image in RGB.

    Raises:
        EncoderError: it cannot be read, or is no picture.
    """
    images = pillow()
    if isinstance(picture, str | Path):
        try:
            with images.open(picture) as image:
                return image.convert("RGB")
        except (OSError, ValueError, images.DecompressionBombError):
            raise EncoderError(f"{picture} cannot be read as a picture.") from None
    return picture.convert("RGB") if isinstance(picture, images.Image) else from_array(picture)


def from_array(picture: Any) -> Any:
    """An array (height, width, 3) or tensor (3, height, width), 0..255 in uint8 or 0..1 in floats, as a PIL image.

    Raises:
        EncoderError: it has another shape.
    """
    import numpy as np

    pixels = picture.detach().cpu().permute(1, 2, 0).numpy() if isinstance(picture, Tensor) else np.asarray(picture)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise EncoderError(f"A picture has shape (height, width, 3), not {pixels.shape}.")
    if pixels.dtype != np.uint8:
        pixels = (pixels.clip(0, 1) * 255).round().astype(np.uint8)
    return pillow().fromarray(np.ascontiguousarray(pixels))


def prepare(picture: Picture, size: int) -> Tensor:
    """A picture to CLIP's input (3, size, size): short side resized (bicubic), middle cut out, normalised."""
    import numpy as np

    image = open_picture(picture)
    width, height = image.size
    wide, high = (size, size * height // width) if width <= height else (size * width // height, size)
    image = image.resize((wide, high), pillow().Resampling.BICUBIC)
    left, top = round((wide - size) / 2), round((high - size) / 2)
    pixels = torch.from_numpy(np.array(image.crop((left, top, left + size, top + size))))
    return (pixels.permute(2, 0, 1).float() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[
        :, None, None
    ]


class ClipEncoder(QueryEncoder):
    """Sentences and pictures to CLIP vectors (512), not of unit length.

    Args:
        prompts: "ensemble" (CLIPSep's scores), "photo" (CLIPSep's training) or "verbatim" (CLIPSep's script).
        embedding_dim: of the vectors.
        vision: overrides of the picture tower's sizes.
        text: overrides of the text tower's sizes.

    Raises:
        EncoderError: open_clip is not installed, or its tokenizer is not CLIP's.
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
            raise ValueError(f"prompts is one of {', '.join(PROMPTS)}, not {prompts!r}")
        open_clip = optional("open_clip", "CLIP", "clip")
        self.prompts, self.embedding_dim = prompts, embedding_dim
        self.image_size = {**VISION, **(vision or {})}["image_size"]
        sizes = (
            open_clip.CLIPVisionCfg(**{**VISION, **(vision or {})}),
            open_clip.CLIPTextCfg(**{**TEXT, **(text or {})}),
        )
        self.network = open_clip.CLIP(embedding_dim, *sizes, quick_gelu=True).eval().requires_grad_(False)
        self.tokenizer = open_clip.SimpleTokenizer()
        check(self.tokenizer)

    @classmethod
    def from_tensors(cls, tensors: Tensors, source: str = "the checkpoint", **options: Any) -> ClipEncoder:
        """From a state dict with OpenAI's (open_clip's) or Hugging Face names; `options` as for the class.

        Raises:
            EncoderError: a tensor is missing, unknown or of another shape.
        """
        encoder = cls(**options)
        load_strictly(encoder.network, openai_names(tensors), source)
        return encoder

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> ClipEncoder:
        """From OpenAI's `ViT-B-32.pt`, or timm/vit_base_patch32_clip_224.openai's `open_clip_model.safetensors`."""
        tensors = read_archive(path) if is_archive(path) else read_tensors(path)
        return cls.from_tensors(tensors, str(path), **options)

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences to (batch, 512): the mean over the prompts they are put into."""
        if not texts:
            return torch.zeros(0, self.embedding_dim)
        patterns = PROMPTS[self.prompts]
        tokens = self.tokenizer([pattern.format(text) for text in texts for pattern in patterns])
        vectors: Tensor = self.network.encode_text(tokens.to(self.network.logit_scale.device))
        return vectors.float().reshape(len(texts), len(patterns), self.embedding_dim).mean(1)

    @torch.no_grad()
    def encode_image(self, images: Sequence[Picture | Sequence[Picture]]) -> Tensor:
        """Pictures to (batch, 512); a list within the list is one query, the mean over its pictures.

        Raises:
            EncoderError: a file is no picture, or an array has another shape.
        """
        queries = [list(entry) if isinstance(entry, list | tuple) else [entry] for entry in images]
        if not all(queries):
            raise EncoderError("A query by pictures needs one picture or more.")
        device = self.network.logit_scale.device
        return (
            torch.stack([self._mean(query, device) for query in queries])
            if queries
            else torch.zeros(0, self.embedding_dim)
        )

    def _mean(self, pictures: list[Picture], device: torch.device) -> Tensor:
        prepared = torch.stack([prepare(picture, self.image_size) for picture in pictures]).to(device)
        vectors: Tensor = self.network.encode_image(prepared)
        return vectors.float().mean(0)
