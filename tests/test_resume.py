"""A training that is killed in the middle of an epoch and resumed equals an uninterrupted one."""

import signal

import pytest
import torch

pytest.importorskip("lightning", reason="needs the extra [train]")

from lightning.pytorch.callbacks import Callback
from parts import ENCODER, NETWORK, RATE, arguments, fit, logged, run, run_apart, write_data
from tiny import vectors

from separation.data.datamodule import ClipData, MixtureData
from separation.data.packing import pack
from separation.data.tagged import TaggedData
from separation.encoders.joint import JointEncoder
from separation.encoders.taggers import FrameTagger
from separation.models.band_unet import BandUNet
from separation.training.callbacks import Last
from separation.training.objectives.bands import BandSupervised
from separation.training.objectives.contrastive import Contrastive
from separation.training.objectives.tagging import Tagging
from separation.training.optimiser import AdamW

TERMS = ("train/snr", "train/sdri", "train/absent", "train/tagging")
OPTIONS = {"trainer.max_epochs": 3, "data.batches": 4, "model.absent_from": 1, "model.absent_ramp": 3}
LAST = "{class_path: separation.training.callbacks.Last, init_args: {every_n_train_steps: 1}}"
BEST = "{class_path: separation.training.callbacks.Best}"  # without validation it has nothing to save
OPTIONS["trainer.callbacks"] = f"[{LAST}, {BEST}]"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with an encoder and a packed corpus, whose sentence vectors a process of its own can use."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("separation.encoders.sentence.SentenceEncoder._embed", lambda self, texts: vectors(texts, 384))
        pack(write_data(folder, validation=False), folder / "packed", sample_rate=RATE)
    return folder


def packed(data):
    return {"data.manifest": data / "packed"}


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """The folder of an uninterrupted run of 12 steps."""
    folder = tmp_path_factory.mktemp("straight")
    run(*arguments("fit", data, folder, **OPTIONS, **packed(data)))
    return folder


@pytest.fixture(scope="module")
def killed(data, straight, tmp_path_factory):
    """The folder of a run that was killed before step 7 of 12."""
    folder = tmp_path_factory.mktemp("killed")
    callbacks = f"[{LAST}, {BEST}, {{class_path: parts.KillAt, init_args: {{step: 6}}}}]"
    done = run_apart(
        arguments("fit", data, folder, **OPTIONS | packed(data) | {"trainer.callbacks": callbacks}), folder
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def resumed(data, killed):
    stored = torch.load(killed / "last.ckpt", weights_only=True)
    assert (stored["epoch"], stored["global_step"]) == (1, 6)
    run(*arguments("fit", data, killed, **OPTIONS, **packed(data), ckpt_path=killed / "last.ckpt"))
    return killed


def test_the_losses_are_those_of_an_uninterrupted_run(straight, resumed):
    for term in TERMS:
        wanted, found = logged(straight, term), logged(resumed, term, version=1)
        assert sorted(wanted) == list(range(12))
        assert term != "train/snr" or len(set(wanted.values())) == 12  # every step has other clips
        assert found == pytest.approx({step: wanted[step] for step in range(6, 12)}, abs=1e-5)


def test_weights_and_averages_with_their_statistics_are_those_of_an_uninterrupted_run(straight, resumed):
    assert [file.name for file in straight.glob("*.ckpt")] == ["last.ckpt"]  # without validation there is no best
    wanted = torch.load(straight / "last.ckpt", weights_only=True)
    found = torch.load(resumed / "last.ckpt", weights_only=True)
    assert found["global_step"] == wanted["global_step"] == 12
    assert found["state_dict"].keys() == wanted["state_dict"].keys()
    assert any(name.startswith("average.") and name.endswith("running_var") for name in wanted["state_dict"])
    for name, tensor in wanted["state_dict"].items():
        assert torch.allclose(found["state_dict"][name].double(), tensor.double(), rtol=0, atol=1e-5), name
    assert "recent" not in found  # no training audio in checkpoints


class Stop(Callback):
    """Ends a run before step number `step` + 1."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self.step:
            raise InterruptedError("stopped")


def supervised():
    optimiser = AdamW(warmup=2)
    return BandSupervised(BandUNet(**NETWORK), JointEncoder(**ENCODER), audio_share=0.5, optimiser=optimiser)


def listening():
    """The default's objective: a tagger, its teacher, names of classes, mixtures that are cut on the device."""
    terms = {"teacher_weight": 0.1, "keep_weight": 1.0, "vocabulary": 0.5, "absent_near": 0.5}
    encoder = JointEncoder(**ENCODER, tagger=True)
    return BandSupervised(BandUNet(**NETWORK, tagger=True), encoder, optimiser=AdamW(warmup=0.1), **terms)


def contrastive():
    return Contrastive(JointEncoder(**ENCODER), AdamW(warmup=2))


def tagging():
    labels = [f"tone {number}" for number in range(4)]
    return Tagging(FrameTagger(labels, sample_rate=RATE, channels=(4, 8, 8), hidden=16), AdamW(warmup=2))


@pytest.mark.parametrize(
    "objective, kind",
    [(supervised, MixtureData), (listening, MixtureData), (contrastive, ClipData), (tagging, TaggedData)],
)
def test_a_run_that_ended_in_its_first_epoch_resumes_there(data, straight, tmp_path, monkeypatch, objective, kind):
    """Lightning makes the first epoch's loader before it knows where a resumed run stands."""
    monkeypatch.setattr("separation.encoders.sentence.SentenceEncoder._embed", lambda self, texts: vectors(texts, 384))

    def train(*callbacks, resume=None):
        torch.manual_seed(0)
        module = objective()
        sizes = {"batch_size": 4, "seconds": 0.5, "batches": 2, "sample_rate": RATE}
        options = {"on_device": True, "union": 0.5} if objective is listening else {}
        source, last = kind(data / "packed", **sizes, **options), Last(every_n_train_steps=1)
        fit(module, source, tmp_path, last, *callbacks, max_epochs=2, resume=resume)
        return module.state_dict()

    wanted = train()
    for file in tmp_path.glob("*.ckpt"):
        file.unlink()
    with pytest.raises(InterruptedError):
        train(Stop(1))
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert (stored["epoch"], stored["global_step"]) == (0, 1)
    found = train(resume=tmp_path / "last.ckpt")
    for name, tensor in wanted.items():
        assert torch.allclose(found[name].double(), tensor.double(), rtol=0, atol=1e-5), name
    moved = [name for name in stored["state_dict"] if not torch.equal(stored["state_dict"][name], found[name])]
    assert len(moved) > 10
