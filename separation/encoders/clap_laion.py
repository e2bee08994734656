"""The `laion-clap` package as CLAP's network: optional, since it holds the whole environment at numpy < 2.

It serves to check the default backend (`benchmarks/clap_parity.py`). The package asks a hub for tokenizers and RoBERTa
when it is imported and built; here it is kept offline, RoBERTa is built from its published sizes, and token numbers
come from `roberta.py`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.base import EncoderError, QueryEncoder
from separation.encoders.clap import CLIP_SECONDS, LONGEST, TEXT_CONFIG, clip_of
from separation.encoders.clap_names import COMPUTED, bare
from separation.encoders.packages import optional
from separation.encoders.roberta import tokenize
from separation.tensors import Tensors, load_strictly


@contextmanager
def offline_roberta() -> Iterator[None]:
    """Within it no hub is asked, and `RobertaModel.from_pretrained` gives RoBERTa-base with random weights."""
    with mock.patch.dict(os.environ, HF_HUB_OFFLINE="1", WANDB_MODE="disabled"):
        transformers = optional("transformers", "CLAP", "laion")
        roberta, sizes = transformers.RobertaModel, transformers.RobertaConfig(**TEXT_CONFIG)
        with mock.patch.object(roberta, "from_pretrained", lambda *_, **__: roberta(sizes)):
            yield


def build_network() -> nn.Module:
    """The package's CLAP (HTSAT-base, RoBERTa, no fusion) with random weights.

    Raises:
        EncoderError: the package is not installed.
    """
    with offline_roberta():
        factory = optional("laion_clap.clap_module.factory", "The laion-clap backend", "laion")
        network, _ = factory.create_model("HTSAT-base", "roberta", precision="fp32", device=torch.device("cpu"))
    built: nn.Module = network
    return built.eval().requires_grad_(False)


class LaionClapEncoder(QueryEncoder):
    """As `ClapEncoder`, through the laion-clap package; weights in LAION's names only.

    Args:
        vocabulary: a folder with RoBERTa's tokenizer files; None: the local Hugging Face cache.
    """

    embedding_dim = 512
    modalities = frozenset({"text", "audio"})
    sample_rate = 48000

    def __init__(self, vocabulary: str | None = None) -> None:
        super().__init__()
        self.vocabulary, self.network = vocabulary, build_network()

    def load_published(self, tensors: Tensors, source: str = "the checkpoint") -> None:
        """Fill both towers strictly from LAION's names.

        Raises:
            EncoderError: the names are not LAION's, or a tensor is missing, unknown or of another shape.
        """
        form, found = bare(tensors, source)
        if form != "laion":
            raise EncoderError(f"{source} has no LAION names; the laion-clap backend takes those only.")
        kept = ("text_branch.", "text_projection.", "audio_branch.", "audio_projection.")
        skip = (
            "audio_branch.spectrogram_extractor",
            "audio_branch.logmel_extractor",
            "audio_branch.tscam",
            "audio_branch.head",
        )
        load_strictly(
            self.network, found, source, lambda n: n.endswith(COMPUTED) or not n.startswith(kept) or n.startswith(skip)
        )

    @torch.no_grad()
    def encode_tokens(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token numbers and mask (batch, tokens) to unit vectors (batch, 512)."""
        network: Any = self.network
        return F.normalize(network.encode_text({"input_ids": tokens, "attention_mask": mask}, device="cpu"), dim=-1)

    def encode_text(self, texts: list[str]) -> Tensor:
        return self.encode_tokens(*tokenize(texts, self.vocabulary, LONGEST))

    @torch.no_grad()
    def encode_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        from separation.audio import resample

        clip = clip_of(resample(waveform, sample_rate, self.sample_rate), CLIP_SECONDS * self.sample_rate)
        network: Any = self.network
        return F.normalize(network.get_audio_embedding([{"waveform": each} for each in clip]), dim=-1)
