"""CLAP's two backends with the same random weights: how far apart are they?

    HF_HUB_OFFLINE=1 python benchmarks/clap_parity.py [--json FILE]

Needs laion-clap, so an environment with numpy < 2. Nothing is downloaded. The laion-clap network is filled with random
numbers (every tensor, so that each one matters), written as a file with LAION's names, and read back by
`ClapEncoder.from_file`.
Token numbers are random: text-to-token is not part of the comparison.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from separation.encoders.clap import ClapEncoder
from separation.encoders.clap_laion import LaionClapEncoder
from separation.encoders.roberta import SPECIAL, VOCABULARY


def fill(network: nn.Module, seed: int = 0) -> None:
    """Random weights that keep signals in range; statistics of the input norm as of real log-mels."""
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
    """Rows of `<s> ... </s> <pad> ...` and their mask."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.full((len(lengths), max(lengths)), SPECIAL["<pad>"])
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = torch.randint(4, VOCABULARY - 1, (length,), generator=generator)
        row[0], row[length - 1] = SPECIAL["<s>"], SPECIAL["</s>"]
    return tokens, (tokens != SPECIAL["<pad>"]).long()


def through_mel(laion: LaionClapEncoder, mel: Tensor) -> Tensor:
    """The laion-clap audio tower on a log-mel, its own spectrogram taken out."""
    network: Any = laion.network
    branch = network.audio_branch
    branch.spectrogram_extractor, branch.logmel_extractor = nn.Identity(), nn.Identity()
    with torch.no_grad():
        return nn.functional.normalize(network.get_audio_embedding([{"waveform": each} for each in mel]), dim=-1)


def compare() -> dict[str, float]:
    """Largest absolute differences of unit vectors, and how alike vectors of different inputs are (cosine)."""
    laion = LaionClapEncoder()
    fill(laion.network)
    tensors = float(len(laion.network.state_dict()))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clap.pt"
        torch.save({"epoch": 15, "state_dict": {f"module.{k}": v for k, v in laion.network.state_dict().items()}}, file)
        start = time.perf_counter()
        ours = ClapEncoder.from_file(file)
        seconds = time.perf_counter() - start
    tokens, mask = random_tokens([3, 9, 20, 77])
    audio = 0.1 * torch.randn(2, 480000, generator=torch.Generator().manual_seed(2))
    audio[1] *= torch.linspace(0, 1, 480000)
    text, same_text = ours.encode_tokens(tokens, mask)[1], laion.encode_tokens(tokens, mask)
    sound, same_sound = ours.encode_audio(audio, 48000), laion.encode_audio(audio, 48000)
    mel = ours.log_mel(audio)
    return {
        "text, same tokens": float((text - same_text).abs().max()),
        "audio, same waveform": float((sound - same_sound).abs().max()),
        "audio, same log-mel": float((ours.encode_log_mel(mel) - through_mel(laion, mel[:, 0:1])).abs().max()),
        "cosine of two texts": float(text[0] @ text[1]),
        "cosine of two sounds": float(sound[0] @ sound[1]),
        "tensors": tensors,
        "seconds to load": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    figures = compare()
    for name, value in figures.items():
        print(f"{name:24} {value:.3g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
