"""Noise invariant training: does it help when half of the training clips have an unrelated sound in them?

    python benchmarks/studies/noise_invariant.py --data FOLDER --seeds 3

Arms: "plain" (CLIPSep's objective) and "nit" (two noise heads) on the same polluted clips, with the same seeds, steps
and batches; "plain, squared", the masks of "plain" to the power of two, tells whether sharper masks alone do as well;
"clean", the plain objective on clean clips, only if --arms names it. Queries are texts, encoded by the frozen sentence
encoder. All are scored on pairs of validation clips, each of which is asked for by its label: SDRi, SI-SDRi and the SIR
of BSS Eval version 3, which need not agree. The pairs have equal levels, or the levels of the recordings, or a third
clip of the same level that is not asked for.
"""

from __future__ import annotations

from copy import copy
from functools import cache

import study
import torch

from separation.data.gains import RandomGains
from separation.data.queried import QueriedData
from separation.encoders.sentence import SentenceEncoder
from separation.evaluate.metrics import METRICS
from separation.models.clipsep_unet import CLIPSepUNet
from separation.training.objectives.noise_invariant import NoiseInvariant
from separation.training.objectives.supervised import Supervised
from separation.training.optimiser import AdamW

ARMS = {"plain": (0, 0.5, 1), "plain, squared": (0, 0.5, 2), "nit": (2, 0.5, 1), "clean": (0, 0.0, 1)}
"""Noise heads, share of polluted training clips, and power of the masks when they are scored."""
METRIC_NAMES = {"SDRi": "sdri", "SI-SDRi": "si_sdri", "SIR": "bss3_sir"}
ROWS: dict[str, dict[str, bool]] = {
    "": {},
    ", levels as recorded": {"as_recorded": True},
    ", with an unasked sound": {"unasked": True},
}


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
    add("--pollution_db", type=float, nargs=2, default=(-5.0, 5.0), help="level of a clip over its pollution, dB")
    add("--warmup", type=int, default=0, help="steps without noise heads")
    add("--width", type=int, default=16, help="channels of the finest level")
    arguments = parser.parse_args(argv)
    train, held, labels, _ = study.read_data(arguments, seconds=4.0958)
    rows = {name: study.clean_pairs(held, labels, arguments.mixtures, 4.0958, **how) for name, how in ROWS.items()}
    scored = {heading + name: pairs for name, pairs in rows.items() for heading in METRIC_NAMES}

    @cache
    def train_network(heads: int, polluted: float, seed: int) -> tuple[CLIPSepUNet, SentenceEncoder]:
        settings = study.data_settings(arguments, seed) | {"seconds": 2.032, "batches": arguments.steps}  # 128 frames
        gains, pollution_db = RandomGains(as_recorded=False), tuple(arguments.pollution_db)
        data = QueriedData(gains=gains, polluted=polluted, pollution_db=pollution_db, **settings)
        data.set_corpus(train, labels)
        optimiser = AdamW(lr=2e-3, weight_decay=0.0, warmup=arguments.steps // 20)
        common = {"encoder": SentenceEncoder(), "loss": "binary_mask", "optimiser": optimiser, "ema": 0.99}
        model = network(heads, arguments.width, seed)
        if heads:
            objective = NoiseInvariant(model, **common, noise_weight=0.1, gamma=0.25, warmup=arguments.warmup)
        else:
            objective = Supervised(model, **common)
        study.fit(objective, data, arguments.steps, seed)
        return objective.average.cpu(), objective.encoder

    def run(arm: str, seed: int) -> dict[str, list[float]]:
        heads, polluted, power = ARMS[arm]
        trained, encoder = train_network(heads, polluted, seed)
        model = copy(trained)
        model.masks = lambda *inputs: trained.masks(*inputs) ** power
        found = {}
        for name, pairs in rows.items():
            metrics = {heading + name: METRICS[metric].compute for heading, metric in METRIC_NAMES.items()}
            found |= study.score_metrics(model, encoder.encode_text, pairs, None, metrics)
        return found

    study.compare_arms(arguments, ("plain", "plain, squared", "nit"), run, scored, "plain", {})


if __name__ == "__main__":
    study.run_benchmark(main)
