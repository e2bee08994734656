"""Noise invariant training: does it help when half of the training clips have an unrelated sound in them?

    python benchmarks/studies/noise_invariant.py --data FOLDER --seeds 3

Arms: "plain" (CLIPSep's objective) and "nit" (two noise heads) on the same polluted clips, with the same seeds, steps
and batches; "clean", the plain objective on clean clips, with --clean. Queries are texts, encoded by the frozen
sentence encoder. All are scored on clean pairs of validation clips, each of which is asked for by its label.
"""

from __future__ import annotations

import study
import torch

from separation.data.gains import RandomGains
from separation.data.queried import QueriedData
from separation.encoders.sentence import SentenceEncoder
from separation.models.clipsep_unet import CLIPSepUNet
from separation.training.objectives.noise_invariant import NoiseInvariant
from separation.training.objectives.supervised import Supervised
from separation.training.optimiser import AdamW

SECONDS = 2.032  # 128 frames
ARMS = {"plain": (0, 1.0), "nit": (2, 1.0), "clean": (0, 0.0)}  # noise heads, part of the requested pollution


def network(heads: int, width: int, seed: int) -> CLIPSepUNet:
    """Build a small CLIPSep; parts that two arms share have the same initial weights."""
    torch.manual_seed(seed)
    model = CLIPSepUNet(384, noise_heads=heads, width=width, channels=16, layers=6)
    torch.manual_seed(seed)
    model.load_state_dict(CLIPSepUNet(384, width=width, channels=16, layers=6).state_dict(), strict=False)
    return model


def main(argv: list[str] | None = None) -> None:
    """Run the study."""
    parser = study.make_parser(__doc__, steps=1500, mixtures=200, labels=40)
    add = parser.add_argument
    add("--polluted", type=float, default=0.5, help="share of the training clips that are polluted")
    add("--pollution_db", type=float, nargs=2, default=(-5.0, 5.0), help="level of a clip over its pollution, dB")
    add("--gamma", type=float, default=0.25)
    add("--noise_weight", type=float, default=0.1)
    add("--warmup", type=int, default=0, help="steps without noise heads")
    add("--lr", type=float, default=2e-3)
    add("--width", type=int, default=16, help="channels of the finest level")
    add("--clean", action="store_true", help="also train the plain objective on clean clips")
    arguments = parser.parse_args(argv)
    train, held = study.read_corpora(arguments)
    if arguments.tune:
        train, held = study.hold_out(train)
    labels = study.common_labels(train, held, arguments.labels)
    pairs = study.clean_pairs(held, labels, arguments.mixtures, 4.0958)
    recordings = {recording for pair in pairs for recording in pair.recordings}
    print(f"{len(labels)} labels, {len(pairs)} pairs, of {len(recordings)} recordings", flush=True)

    def run(arm: str, seed: int) -> list[float]:
        heads, pollution = ARMS[arm]
        settings = study.data_settings(arguments, seed) | {"seconds": SECONDS, "batches": arguments.steps}
        polluted, pollution_db = pollution * arguments.polluted, tuple(arguments.pollution_db)
        gains = RandomGains(as_recorded=False)
        data = QueriedData(gains=gains, polluted=polluted, pollution_db=pollution_db, **settings)
        data.set_corpus(train, labels)
        optimiser = AdamW(lr=arguments.lr, weight_decay=0.0, warmup=arguments.steps // 20)
        common = {"encoder": SentenceEncoder(), "loss": "binary_mask", "optimiser": optimiser, "ema": 0.99}
        model = network(heads, arguments.width, seed)
        if heads:
            settings = {"noise_weight": arguments.noise_weight, "gamma": arguments.gamma, "warmup": arguments.warmup}
            objective = NoiseInvariant(model, **common, **settings)
        else:
            objective = Supervised(model, **common)
        study.fit(objective, data, arguments.steps, seed)
        return study.score_pairs(objective.average.cpu(), objective.encoder.encode_text, pairs)

    arms = arguments.arms or ["plain", "nit", *(["clean"] if arguments.clean else [])]
    scores = study.run_arms(arms, run, arguments.seeds)
    study.report(vars(arguments), scores, pairs, "plain" if "plain" in scores else None, arguments.json)


if __name__ == "__main__":
    main()
