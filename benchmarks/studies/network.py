"""Which parts of the default separator's design matter? One thing is changed at a time, in small networks.

    python benchmarks/studies/network.py --data FOLDER --seeds 2 --json network.json

All arms are trained alike on mixtures of two isolated clips and asked by label. Scored on train recordings that are
held out, so that choosing by this table leaves the validation recordings unseen.
"""

from __future__ import annotations

import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import study
import torch
from torch import Tensor
from weak_text import DIM, split_halves, train_joint_space, write_train_manifest

from separation.data.corpus import Corpus
from separation.data.gains import Gains
from separation.data.queried import QueriedData
from separation.encoders.base import QueryEncoder
from separation.encoders.sentence import SentenceEncoder
from separation.models.band_unet import Analysis, BandUNet
from separation.training.objectives.supervised import Supervised
from separation.training.optimiser import AdamW


class MagnitudeMask(BandUNet):
    """Leaves the phase of the mixture unchanged."""

    def mask(self, analysis: Analysis, conditions: Tensor) -> Tensor:
        magnitude = super().mask(analysis, conditions).square().sum(2).sqrt()
        return torch.stack([magnitude, torch.zeros_like(magnitude)], dim=2)


class NoStream(BandUNet):
    """Has no frame-wise match of condition and sound."""

    def mask(self, analysis: Analysis, conditions: Tensor) -> Tensor:
        silent = Analysis(analysis.skips, analysis.bottom, torch.zeros_like(analysis.frames))
        return super().mask(silent, conditions)


class LoudnessInput(BandUNet):
    """Receives the level of each band, but not how phases advance."""

    def features(self, spectrum: Tensor) -> Tensor:
        features = super().features(spectrum)
        return torch.cat([features[:, :1], torch.zeros_like(features[:, 1:])], dim=1)


class LevelGains(Gains):
    """Sources within 5 dB of each other, mixtures at the input level of the network."""

    def draw(self, sources: int, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(10 ** (rng.uniform(-2.5, 2.5, sources) / 20)).float()

    def apply(self, sources: Tensor, drawn: Tensor) -> Tensor:
        sources = sources * (drawn / sources.square().mean(-1).sqrt().clamp_min(1e-4))[..., None]
        return sources * (BandUNet.input_level / sources.sum(-2).square().mean(-1).sqrt())[..., None, None]


BASE = "as chosen: 64 bands, complex mask, joint space"
SENTENCE = "sentence vectors instead of the joint space"
ARMS: dict[str, dict[str, Any]] = {
    BASE: {},
    SENTENCE: {"condition_dim": SentenceEncoder.embedding_dim},
    "magnitude mask, the mixture's phase": {"network": MagnitudeMask},
    "loudness only as input": {"network": LoudnessInput},
    "no frame-wise match": {"network": NoStream},
    "32 bands": {"bands": 32, "linear_bands": 8},
    "two thirds of the channels": {"channels": (16, 28, 44, 64), "stream_dim": 64},
}


def main(argv: list[str] | None = None) -> None:
    """Run the study."""
    parser = study.make_parser(__doc__, steps=400, seeds=2, mixtures=100, labels=16)
    parser.add_argument("--encoder_steps", type=int, default=500)
    parser.set_defaults(encoder_batch=48, keep=None)
    arguments = parser.parse_args(argv)
    train = Corpus(arguments.data / "manifest.csv", "train", arguments.data, study.RATE, arguments.cache)
    labels = study.common_labels(train, train, arguments.labels)
    held, seen = split_halves(clip for clip in train.clips if clip.label in labels)
    with tempfile.TemporaryDirectory() as folder:
        held_manifest = write_train_manifest(Path(folder) / "held.csv", held)
        seen_manifest = write_train_manifest(Path(folder) / "seen.csv", seen)
        joint = train_joint_space(seen_manifest, arguments)
        seen_corpus, held_corpus = (
            Corpus(manifest, "train", arguments.data, study.RATE, arguments.cache)
            for manifest in (seen_manifest, held_manifest)
        )
    pairs = study.clean_pairs(held_corpus, labels, arguments.mixtures, study.SECONDS)

    def run(arm: str, seed: int) -> list[float]:
        encoder: QueryEncoder = SentenceEncoder() if arm == SENTENCE else deepcopy(joint)
        data = QueriedData(gains=LevelGains(), **study.data_settings(arguments, seed))
        data.set_corpus(seen_corpus, labels)
        model = study.band_unet(**{"condition_dim": DIM, "seed": seed} | ARMS[arm])
        objective = Supervised(model, encoder, loss="snr", optimiser=AdamW(2e-3, 0.02, 50), ema=0.99)
        study.fit(objective, data, arguments.steps, seed)
        return study.score_pairs(objective.average, encoder.encode_text, pairs, objective.average.input_level)

    scores = study.run_arms(arguments.arms or ARMS, run, arguments.seeds)
    study.report(vars(arguments), scores, pairs, BASE if BASE in scores else None, arguments.json)


if __name__ == "__main__":
    main()
