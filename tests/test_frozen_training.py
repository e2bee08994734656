"""Two optimiser steps of every objective on generated batches, against losses recorded before the restructuring.

`python tests/test_frozen_training.py` records them anew in frozen/training.json.
"""

import json
import zlib
from pathlib import Path

import pytest
import torch
from queries import encoder, noises, queried, unet
from tiny import DIM, small_rate_model, vectors
from torch.nn import functional as F

pytest.importorskip("lightning", reason="needs the extra [train]")

from lightning.pytorch.callbacks import Callback
from parts import ENCODER, RATE, fit

from separation.data.captioned import CaptionedBatch
from separation.data.mixing import Batch
from separation.data.tagged import TaggedBatch
from separation.encoders.joint import JointEncoder
from separation.encoders.sentence import SentenceEncoder
from separation.encoders.table import OneHotEncoder, TableEncoder
from separation.encoders.taggers import FrameTagger
from separation.training.objectives.bands import BandSupervised
from separation.training.objectives.bimodal import BiModal
from separation.training.objectives.contrastive import Contrastive
from separation.training.objectives.noise_invariant import NoiseInvariant
from separation.training.objectives.supervised import Supervised
from separation.training.objectives.tagging import Tagging
from separation.training.objectives.weakly_supervised import WeaklySupervised

FROZEN = Path(__file__).parent / "frozen" / "training.json"
LABELS = ["a", "b", "c", "d"]

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")


def fill(module):
    """Weights that depend on the names of the parameters only, not on the order in which layers are made."""
    for name, parameter in module.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(parameter.shape, generator=generator)
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        offset = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
        parameter.data = offset + scale * noise
    return module


def joint():
    encoder = JointEncoder(**ENCODER)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # nothing random: SpecAugment draws otherwise than when the losses were recorded
    return fill(encoder)


def tagger():
    return fill(FrameTagger(LABELS, sample_rate=RATE, channels=(4, 8, 8), hidden=16))


def tones(*shape, seconds=0.5, seed=0):
    """Tones that are loud in one part of the time, (*shape, time)."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(round(seconds * RATE)) / RATE
    hertz, start = (torch.rand(*shape, 1, generator=generator) for _ in range(2))
    return torch.sin(2 * torch.pi * (200 + 2000 * hertz) * time) * torch.exp(-(((time / seconds - start) * 6) ** 2))


def mixtures(seed):
    sentences = vectors([f"{seed} {n}" for n in range(9)], 384).view(3, 3, 384)
    labels = torch.tensor([[0, 1, 2], [3, 0, 1], [2, 3, 0]])
    bank = vectors(LABELS, 384)
    return Batch(tones(3, 3, seed=seed) * (labels >= 0)[..., None], labels, sentences, bank, torch.tensor([2, 3, 2]))


def clips(seed):
    labels = torch.tensor([[0], [1], [2], [1]])
    sentences = vectors([f"{seed} {n}" for n in range(4)], 384)[:, None]
    return Batch(tones(4, 1, seed=seed), labels, sentences, vectors(LABELS, 384), torch.ones(4, dtype=torch.long))


def tagged(seed):
    drawn = torch.tensor([0, 1, 2, 3])
    return TaggedBatch(tones(4, seconds=1.5, seed=seed), F.one_hot(drawn, 4).float(), drawn)


def captioned(seed):
    captions, phrases = [f"caption {n}" for n in range(4)], [f"phrase {n % 7}" for n in range(8)]
    names = [f"name {n}" for n in range(2)]
    return CaptionedBatch(
        tones(2, 2, seed=seed), captions, phrases, torch.ones(2, 2, 2), tones(1, 2, seed=seed + 9), names
    )


def asked(seed):
    pictures = [[[f"{row} {n}.jpg"] for n in range(2)] for row in range(2)]
    return queried(noises(seed=seed), pictures=pictures)


def filled_unet(**arguments):
    return fill(unet(**arguments))


def network():
    return fill(small_rate_model()).train()


def labelled():
    return fill(small_rate_model(condition_dim=4)).train()


CASES = {
    "bands": (lambda: BandSupervised(network(), joint(), 0.5, absent_from=0, absent_ramp=1, absent_near=0.5), mixtures),
    "bimodal": (lambda: BiModal(network(), joint()), captioned),
    "bimodal, faithful": (lambda: BiModal(network(), joint(), faithful=True, own_level=False), captioned),
    "contrastive": (lambda: Contrastive(joint(), text_noise=0.0, mask=0.0), clips),
    "label": (
        lambda: Supervised(
            filled_unet(), fill(TableEncoder(["label 0", "label 1"], DIM)), "binary_mask", ["label"], learn_encoder=True
        ),
        asked,
    ),
    "l1": (lambda: Supervised(filled_unet(), encoder(), "l1", audio_share=0.5, ema=0.0), asked),
    "masks": (lambda: Supervised(filled_unet(), encoder(), "binary_mask", ["image", "text"]), asked),
    "noise invariant": (lambda: NoiseInvariant(filled_unet(noise_heads=2), encoder(), queries=["image"]), asked),
    "noise invariant, warm-up": (lambda: NoiseInvariant(filled_unet(noise_heads=2), encoder(), warmup=1), asked),
    "pit": (lambda: Supervised(filled_unet(fusion="none"), OneHotEncoder(["1", "2"]), "binary_mask", ["none"]), asked),
    "ratio masks": (lambda: Supervised(filled_unet(), encoder(), "ratio_mask"), asked),
    "si_sdr": (lambda: Supervised(filled_unet(), encoder(), "si_sdr"), asked),
    "snr": (lambda: Supervised(filled_unet(), encoder(), "snr"), asked),
    "tagging": (lambda: Tagging(tagger()), tagged),
    "weakly supervised": (
        lambda: WeaklySupervised(labelled(), tagger(), seconds=0.4, loss="snr", own_level=True),
        tagged,
    ),
    "weakly supervised, random": (
        lambda: WeaklySupervised(labelled(), tagger(), anchors="random", seconds=0.4),
        tagged,
    ),
}


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.values.append(float(outputs["loss"]))


def train(name, folder):
    """Losses of two steps, what was logged, and the sizes of all weights and statistics afterwards."""
    make, batch = CASES[name]
    module, losses = make(), Losses()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PL_GLOBAL_SEED", "0")
            patch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))
            batches = torch.utils.data.DataLoader([batch(0), batch(1)], batch_size=None)
            trainer = fit(module, batches, folder, losses, limit_val_batches=0)
    finally:
        torch.set_num_threads(threads)
    sizes = {
        part: sum(float(v.double().abs().sum()) for k, v in module.state_dict().items() if k.startswith(f"{part}."))
        for part in ("model", "average", "encoder")
    }
    return {"losses": losses.values, "metrics": sorted(trainer.callback_metrics), "sizes": sizes}


@pytest.mark.parametrize("name", CASES)
def test_two_steps_are_those_of_the_recorded_run(name, tmp_path):
    wanted, found = json.loads(FROZEN.read_text())["objectives"][name], train(name, tmp_path)
    assert found["losses"] == pytest.approx(wanted["losses"], rel=1e-5, abs=1e-5)
    assert found["metrics"] == wanted["metrics"]
    assert found["sizes"] == pytest.approx(wanted["sizes"], rel=1e-5)


if __name__ == "__main__":
    stored = json.loads(FROZEN.read_text()) if FROZEN.is_file() else {}
    stored["objectives"] = {name: train(name, "runs") for name in CASES}
    FROZEN.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
