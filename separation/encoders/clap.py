"""CLAP (LAION, HTSAT-base and RoBERTa-base): sentences and recordings to unit vectors of one space of 512 dimensions.

The default backend is transformers; `laion-clap` (numpy < 2) is an optional one. Weights load from LAION's `.pt` files,
from the copy inside AudioSep's checkpoints, and in Hugging Face form. RoBERTa's vocabulary is in none of them: see
`roberta.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.base import EncoderError, QueryEncoder
from separation.encoders.clap_names import COMPUTED, PREFIX_OF, tower_tensors, transformers_names
from separation.encoders.mel import LogMel
from separation.encoders.packages import optional
from separation.encoders.roberta import VOCABULARY, tokenize
from separation.tensors import Tensors, load_strictly, read_tensors

LONGEST = 512  # tokens, as AudioSep cuts
CLIP_SECONDS = 10

TEXT_CONFIG = {"vocab_size": VOCABULARY, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
AUDIO_CONFIG = {
    "patch_embeds_hidden_size": 128,
    "hidden_size": 1024,
    "depths": [2, 2, 12, 2],
    "num_attention_heads": [4, 8, 16, 32],
    "enable_fusion": False,
}


def weights_only(module: nn.Module) -> nn.Module:
    """Keep index buffers, which are computed and differ between versions of transformers, out of `state_dict`."""
    for part in module.modules():
        names = [n for n, _ in part.named_buffers(recurse=False) if n in COMPUTED and n != "num_batches_tracked"]
        part._non_persistent_buffers_set.update(names)
    return module.eval().requires_grad_(False)


def build_text_tower(config: dict[str, Any] | None = None) -> nn.Module:
    """RoBERTa with its projection, random weights. `config` overrides the published sizes."""
    transformers = optional("transformers", "CLAP", "clap")
    settings = transformers.ClapTextConfig(**{**TEXT_CONFIG, **(config or {})})
    return weights_only(transformers.ClapTextModelWithProjection(settings))


def build_audio_tower(config: dict[str, Any] | None = None) -> nn.Module:
    """HTS-AT with its projection, random weights. `config` overrides the published sizes."""
    transformers = optional("transformers", "CLAP", "clap")
    settings = transformers.ClapAudioConfig(**{**AUDIO_CONFIG, **(config or {})})
    return weights_only(transformers.ClapAudioModelWithProjection(settings))


def clip_of(waveform: Tensor, size: int) -> Tensor:
    """(batch, time) to (batch, size): repeated as often as it fits and padded with zeros, or its middle.

    CLAP was trained on random 10 s of longer recordings; the middle is the same every time.
    """
    time = waveform.shape[-1]
    if not time:
        raise ValueError("an example recording has at least one sample")
    start = max(0, time - size) // 2
    clip = waveform[:, start : start + size].repeat(1, max(1, size // time))
    return F.pad(clip, (0, size - clip.shape[-1]))


class ClapEncoder(QueryEncoder):
    """Sentences and recordings (at any rate) to unit vectors.

    Args:
        text: build the text tower (125 M parameters).
        audio: build the audio tower (73 M parameters).
        vocabulary: a folder with RoBERTa's tokenizer files; None: the local Hugging Face cache.
        text_config: overrides of the text tower's sizes.
        audio_config: overrides of the audio tower's sizes.

    Raises:
        EncoderError: transformers is not installed.
    """

    sample_rate = 48000

    def __init__(
        self,
        text: bool = True,
        audio: bool = True,
        vocabulary: str | None = None,
        text_config: dict[str, Any] | None = None,
        audio_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.modalities = frozenset(name for name, wanted in (("text", text), ("audio", audio)) if wanted)
        if not self.modalities:
            raise ValueError("a CLAP encoder has a text tower, an audio tower, or both")
        self.text = build_text_tower(text_config) if text else None
        self.audio = build_audio_tower(audio_config) if audio else None
        self.log_mel = LogMel(self.sample_rate, 1024, 480, 64, 50.0, 14000.0)
        tower = self.text if self.text is not None else self.audio
        self.embedding_dim = int(tower.config.projection_dim)  # type: ignore[union-attr, arg-type]

    @classmethod
    def from_tensors(cls, tensors: Tensors, source: str = "the checkpoint", **options: Any) -> ClapEncoder:
        """From a state dict of any published form; `options` as for the class.

        Raises:
            EncoderError: a tensor is missing, unknown or of another shape.
        """
        encoder = cls(**options)
        encoder.load_published(tensors, source)
        return encoder

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> ClapEncoder:
        """From a LAION `.pt`, an AudioSep checkpoint or a Hugging Face `model.safetensors`."""
        return cls.from_tensors(read_tensors(path), str(path), **options)

    def load_published(self, tensors: Tensors, source: str = "the checkpoint") -> None:
        """Fill the towers strictly; a tensor that belongs to neither is an error as well.

        Raises:
            EncoderError: names the tensor.
        """
        names = transformers_names(tensors, source)
        for name in sorted(names):
            if not name.startswith((*PREFIX_OF["text"], *PREFIX_OF["audio"])):
                raise EncoderError(f"{source}: tensor {name} does not belong to CLAP.")
        for tower in sorted(self.modalities):
            load_strictly(getattr(self, tower), tower_tensors(names, tower), source, lambda n: n.endswith(COMPUTED))

    @torch.no_grad()
    def encode_tokens(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Token numbers and mask (batch, tokens) to states (batch, tokens, 768) and unit vectors (batch, 512)."""
        if self.text is None:
            self.refuse("text")
        device = self.log_mel.window.device
        output = self.text(input_ids=tokens.to(device), attention_mask=mask.to(device))
        return output.last_hidden_state, F.normalize(output.text_embeds.float(), dim=-1)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences to (batch, 512), unit length.

        Raises:
            EncoderError: RoBERTa's vocabulary is missing or another one.
        """
        if self.text is None:
            self.refuse("text")
        if not texts:
            return torch.zeros(0, self.embedding_dim)
        return self.encode_tokens(*tokenize(texts, self.vocabulary, LONGEST))[1]

    def encode_text_states(self, texts: list[str], length: int = 77) -> tuple[Tensor, Tensor]:
        """Sentences to RoBERTa's states (batch, length, 768) and unit vectors, as the BiModal network takes them."""
        return self.encode_tokens(*tokenize(texts, self.vocabulary, length, length))

    @torch.no_grad()
    def encode_log_mel(self, log_mel: Tensor) -> Tensor:
        """Log-mel of 10 s (batch, 1, 1001, 64) to unit vectors (batch, 512)."""
        if self.audio is None:
            self.refuse("audio")
        return F.normalize(self.audio(input_features=log_mel).audio_embeds.float(), dim=-1)

    @torch.no_grad()
    def encode_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Example recordings (batch, time) to (batch, 512), unit length; of longer ones the middle 10 s count."""
        if self.audio is None:
            self.refuse("audio")
        from separation.audio import resample

        waveform = resample(waveform, sample_rate, self.sample_rate).to(self.log_mel.window.device)
        return self.encode_log_mel(self.log_mel(clip_of(waveform, CLIP_SECONDS * self.sample_rate)))
