"""Compares `ClapEncoder` with the laion-clap package, both with the same random weights.

    HF_HUB_OFFLINE=1 python benchmarks/clap_parity.py [--json FILE]

Needs the extra `laion` and so an environment with numpy < 2. Nothing is downloaded. Every tensor of the laion-clap
network is filled with random numbers, written to a file with LAION's names, and read by `ClapEncoder.from_file`. Token
numbers are random: the tokenizer is not compared.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from common import make_parser, run_benchmark, write_json
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.base import import_optional
from separation.encoders.clap import SPECIAL, TEXT_CONFIG, VOCABULARY, ClapEncoder


def build_laion() -> Any:
    """Build laion-clap's network (HTSAT-base, RoBERTa, no fusion) with random weights, without downloading anything.

    Raises:
        EncoderError: the package is not installed.
    """
    with mock.patch.dict(os.environ, HF_HUB_OFFLINE="1", WANDB_MODE="disabled"):
        transformers = import_optional("transformers", "CLAP", "laion")
        roberta, sizes = transformers.RobertaModel, transformers.RobertaConfig(**TEXT_CONFIG)
        with mock.patch.object(roberta, "from_pretrained", lambda *_, **__: roberta(sizes)):
            factory = import_optional("laion_clap.clap_module.factory", "This benchmark", "laion")
            network, _ = factory.create_model("HTSAT-base", "roberta", precision="fp32", device=torch.device("cpu"))
    return network.eval().requires_grad_(False)


def fill(network: nn.Module, seed: int = 0) -> None:
    """Fill a network with weights that keep signals in range; the input norm gets statistics of real log-mels."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point() or "extractor" in name or "attn_mask" in name:
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("bn0.running_mean"):
            noise = noise - 20
        elif name.endswith("bn0.running_var"):
            noise = 100 + 10 * noise.abs()
        elif tensor.ndim < 2:
            noise = 0.1 * noise + ("norm" in name.lower() or "bn0" in name) * name.endswith("weight")
        elif "embeddings" not in name and "bias_table" not in name:
            noise = noise * (tensor[0].numel() ** -0.5)
        tensor.copy_(noise)


def random_tokens(lengths: list[int], seed: int = 1) -> tuple[Tensor, Tensor]:
    """Return rows of `<s> ... </s> <pad> ...` and their mask, both (batch, tokens)."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((len(lengths), max(lengths)), SPECIAL["<pad>"])
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = torch.randint(4, VOCABULARY - 1, (length,), generator=generator)
        row[0], row[length - 1] = SPECIAL["<s>"], SPECIAL["</s>"]
    return tokens, (tokens != SPECIAL["<pad>"]).long()


@torch.no_grad()
def compare() -> dict[str, float]:
    """Return the largest absolute differences of unit vectors, and the cosine of vectors of different inputs."""
    laion = build_laion()
    fill(laion)
    state = laion.state_dict()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clap.pt"
        torch.save({"epoch": 15, "state_dict": {f"module.{key}": value for key, value in state.items()}}, file)
        began = time.perf_counter()
        ours = ClapEncoder.from_file(file)
        seconds = time.perf_counter() - began

    def encode_audio(rows: Tensor) -> Tensor:
        return F.normalize(laion.get_audio_embedding([{"waveform": each} for each in rows]), dim=-1)

    tokens, mask = random_tokens([3, 9, 20, 77])
    audio = 0.1 * torch.randn(2, 480000, generator=torch.Generator().manual_seed(2))
    audio[1] *= torch.linspace(0, 1, 480000)
    text, sound = ours.encode_tokens(tokens, mask)[1], ours.encode_audio(audio, 48000)
    same_text = F.normalize(laion.encode_text({"input_ids": tokens, "attention_mask": mask}, device="cpu"), dim=-1)
    same_sound = encode_audio(audio)
    branch = laion.audio_branch
    branch.spectrogram_extractor, branch.logmel_extractor = nn.Identity(), nn.Identity()
    same_mel = encode_audio(ours.log_mel(audio))
    return {
        "text, same tokens": float((text - same_text).abs().max()),
        "audio, same waveform": float((sound - same_sound).abs().max()),
        "audio, same log-mel": float((sound - same_mel).abs().max()),
        "cosine of two texts": float(text[0] @ text[1]),
        "cosine of two sounds": float(sound[0] @ sound[1]),
        "tensors": float(len(state)),
        "seconds to load": seconds,
    }


def main() -> None:
    """Print the figures."""
    options = make_parser(__doc__).parse_args()
    figures = compare()
    for name, value in figures.items():
        print(f"{name:24} {value:.3g}")
    write_json(options.json, figures)


if __name__ == "__main__":
    run_benchmark(main)
