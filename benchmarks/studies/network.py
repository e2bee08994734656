"""Which parts of the default separator's design earn their place? One thing is changed at a time, in small networks.

    python benchmarks/studies/network.py --data FOLDER --seeds 2 --json network.json

All arms are trained alike on mixtures of two isolated clips and asked by label. Scored on train recordings that are
held out, so that choosing by this table leaves the validation recordings unseen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    RATE,
    SECONDS,
    Scores,
    clean_pairs,
    common_labels,
    finish,
    fit,
    options,
    over_seeds,
    recording_groups,
    score_at_level,
)
from torch import Tensor
from weak_text import DIM, halves, joint_space, write

from separation.data.corpus import Corpus
from separation.data.gains import Gains
from separation.data.queried import QueriedData
from separation.encoders.base import QueryEncoder
from separation.encoders.sentence import SentenceEncoder
from separation.models.band_unet import Analysis, BandUNet
from separation.training.objectives.supervised import Supervised
from separation.training.optimiser import AdamW


class Magnitude(BandUNet):
    """Leaves the mixture's phase as it is."""

    def mask(self, analysis: Analysis, conditions: Tensor) -> Tensor:
        """The mask's magnitude, as a mask without imaginary part."""
        magnitude = super().mask(analysis, conditions).square().sum(2).sqrt()
        return torch.stack([magnitude, torch.zeros_like(magnitude)], dim=2)


class NoStream(BandUNet):
    """Without the frame-wise match of condition and sound."""

    def mask(self, analysis: Analysis, conditions: Tensor) -> Tensor:
        """The mask of an analysis whose frames say nothing."""
        silent = Analysis(analysis.skips, analysis.bottom, torch.zeros_like(analysis.frames))
        return super().mask(silent, conditions)


class NoPhase(BandUNet):
    """Sees how loud each band is, and nothing of how phases advance."""

    def features(self, spectrum: Tensor) -> Tensor:
        """Loudness, and zeros for what tells tones from clicks."""
        features = super().features(spectrum)
        return torch.cat([features[:, :1], torch.zeros_like(features[:, 1:])], dim=1)


class Levelled(Gains):
    """Sources within 5 dB of each other, their mixture at the level that the networks are used at."""

    def draw(self, sources: int, rng: np.random.Generator) -> Tensor:
        """A factor for each source."""
        return torch.from_numpy(10 ** (rng.uniform(-2.5, 2.5, sources) / 20)).float()

    def apply(self, sources: Tensor, drawn: Tensor) -> Tensor:
        """See `Gains`."""
        sources = sources * (drawn / sources.square().mean(-1).sqrt().clamp_min(1e-4))[..., None]
        return sources * (BandUNet.input_level / sources.sum(-2).square().mean(-1).sqrt())[..., None, None]


BASE = "as chosen: 64 bands, complex mask, joint space"
SENTENCE = "sentence vectors instead of the joint space"
Make = Callable[..., BandUNet]
ARMS: dict[str, tuple[Make, dict[str, Any]]] = {
    BASE: (BandUNet, {}),
    SENTENCE: (BandUNet, {"condition_dim": SentenceEncoder.embedding_dim}),
    "magnitude mask, the mixture's phase": (Magnitude, {}),
    "loudness only as input": (NoPhase, {}),
    "no frame-wise match": (NoStream, {}),
    "32 bands": (BandUNet, {"bands": 32, "linear_bands": 8}),
    "two thirds of the channels": (BandUNet, {"channels": (16, 28, 44, 64), "stream_dim": 64}),
}


def network(arm: str, seed: int) -> BandUNet:
    """An arm's small network."""
    make, changed = ARMS[arm]
    torch.manual_seed(seed)
    chosen = {"bands": 64, "linear_bands": 24, "channels": (24, 40, 64, 96), "stream_dim": 96, "condition_dim": DIM}
    return make(sample_rate=RATE, n_fft=800, hop=250, **(chosen | changed))


def main() -> None:
    """Command line."""
    parser = options(__doc__, 400, seeds=2, batch_size=8, mixtures=100)
    parser.add_argument("--encoder_steps", type=int, default=500)
    parser.set_defaults(labels=16, encoder_batch=48, keep=None)
    arguments = parser.parse_args()
    train = Corpus(arguments.data / "manifest.csv", "train", arguments.data, RATE, arguments.cache)
    labels = common_labels(train, train, arguments.labels)
    held, seen = halves(clip for clip in train.clips if clip.label in labels)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: write(Path(folder), name, clips) for name, clips in (("held", held), ("seen", seen))}
        joint = joint_space(files["seen"], arguments)
        seen_corpus, held_corpus = (
            Corpus(files[name], "train", arguments.data, RATE, arguments.cache) for name in ("seen", "held")
        )
        pairs = clean_pairs(held_corpus, labels, arguments.mixtures, SECONDS)

        def make(arm: str, seed: int) -> list[float]:
            encoder: QueryEncoder = SentenceEncoder() if arm == SENTENCE else deepcopy(joint)
            data = QueriedData(
                batch_size=arguments.batch_size, seconds=SECONDS, batches=max(1, arguments.steps // 4), seed=seed,
                sample_rate=RATE, gains=Levelled(), validation_count=0,
            )  # fmt: skip
            data.use(seen_corpus, labels)
            objective = Supervised(network(arm, seed), encoder, loss="snr", optimiser=AdamW(2e-3, 0.02, 50), ema=0.99)
            fit(objective, data, arguments.steps, seed)
            return score_at_level(objective.average, encoder.encode_text, pairs)

        arms: Scores = {}
        for arm in arguments.arms or ARMS:
            over_seeds(arm, arms, make, arguments.seeds)
    finish(vars(arguments), arms, recording_groups(pairs), BASE if BASE in arms else None, arguments.json)


if __name__ == "__main__":
    main()
