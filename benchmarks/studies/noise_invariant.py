"""Noise invariant training: does it help when half of the training clips have an unrelated sound in them?

    python benchmarks/studies/noise_invariant.py --data FOLDER --seeds 3

Arms: "plain" (CLIPSep's objective) and "nit" (two noise heads) on the same polluted clips, with the same seeds, steps
and batches; "clean", the plain objective on clean clips, with --clean. Queries are texts, encoded by the frozen
sentence encoder. All are scored on clean pairs of validation clips, each of which is asked for by its label.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import clean_pairs, common_labels, finish, fit, held_out, options, over_seeds, recording_groups, score_pairs

from separation.data.corpus import Corpus
from separation.data.gains import RandomGains
from separation.data.queried import QueriedData
from separation.encoders.sentence import SentenceEncoder
from separation.models.clipsep_unet import CLIPSepUNet
from separation.training.objectives.noise_invariant import NoiseInvariant
from separation.training.objectives.supervised import Supervised
from separation.training.optimiser import AdamW

RATE, SECONDS = 16000, 2.032  # 128 frames
ARMS = {"plain": (0, 1.0), "nit": (2, 1.0), "clean": (0, 0.0)}  # noise heads, share of the pollution asked for


def network(heads: int, width: int, seed: int) -> CLIPSepUNet:
    """A small CLIPSep; the parts that two arms share begin alike."""
    torch.manual_seed(seed)
    model = CLIPSepUNet(384, noise_heads=heads, width=width, channels=16, layers=6)
    torch.manual_seed(seed)
    model.load_state_dict(CLIPSepUNet(384, width=width, channels=16, layers=6).state_dict(), strict=False)
    return model


def train_and_score(arguments, corpus, labels, pairs, arm: str, seed: int) -> list[float]:
    """One run: SDRi, dB, of every query."""
    heads, pollution = ARMS[arm]
    data = QueriedData(
        sample_rate=RATE,
        seconds=SECONDS,
        batch_size=arguments.batch_size,
        batches=arguments.steps,
        seed=seed,
        balance=0.5,
        gains=RandomGains(as_recorded=False),
        polluted=pollution * arguments.polluted,
        pollution_db=tuple(arguments.pollution_db),
        validation_count=0,
    )
    data.use(corpus, labels)
    common = {
        "encoder": SentenceEncoder(),
        "loss": "binary_mask",
        "optimiser": AdamW(lr=arguments.lr, weight_decay=0.0, warmup=arguments.steps // 20),
        "ema": 0.99,
    }
    model = network(heads, arguments.width, seed)
    if heads:
        settings = {"noise_weight": arguments.noise_weight, "gamma": arguments.gamma, "warmup": arguments.warmup}
        objective = NoiseInvariant(model, **common, **settings)
    else:
        objective = Supervised(model, **common)
    fit(objective, data, arguments.steps, seed)
    return score_pairs(objective.average.cpu(), objective.encoder.encode_text, pairs)


def main() -> None:
    """Command line."""
    parser = options(__doc__, steps=1500, batch_size=8, mixtures=200, labels=40)
    parser.add_argument("--polluted", type=float, default=0.5, help="share of the training clips that are polluted")
    parser.add_argument("--pollution_db", type=float, nargs=2, default=(-5.0, 5.0), help="a clip's level over it")
    parser.add_argument("--gamma", type=float, default=0.25)
    parser.add_argument("--noise_weight", type=float, default=0.1)
    parser.add_argument("--warmup", type=int, default=0, help="steps without noise heads")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--width", type=int, default=16, help="channels of the finest level")
    parser.add_argument("--clean", action="store_true", help="the plain objective on clean clips too")
    arguments = parser.parse_args()
    manifest = arguments.data / "manifest.csv"
    splits = ("train", "validation")
    train, held = (Corpus(manifest, split, sample_rate=RATE, cache=arguments.cache) for split in splits)
    if arguments.tune:
        train, held = held_out(train)
    labels = common_labels(train, held, arguments.labels)
    pairs = clean_pairs(held, labels, arguments.mixtures, 4.0958)
    groups = recording_groups(pairs)
    print(f"{len(labels)} labels, {len(pairs)} pairs, of {len(set(groups))} recordings", flush=True)
    run = partial(train_and_score, arguments, train, labels, pairs)
    scores: dict[str, list[list[float]]] = {}
    for arm in arguments.arms or ["plain", "nit", *(["clean"] if arguments.clean else [])]:
        over_seeds(arm, scores, run, arguments.seeds)
    finish(vars(arguments), scores, groups, "plain" if "plain" in scores else None, arguments.json)


if __name__ == "__main__":
    main()
