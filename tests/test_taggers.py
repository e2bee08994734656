"""Taggers that can be trained: Cnn14, the MobileNet on patches, and adapters of a transformer; PANNs' augmentation."""

import csv

import pytest

pytest.importorskip("lightning", reason="needs the extra [train]")

import torch
from parts import ROOT, run
from tiny import read, write_corpus

from separation.compat import make_importable
from separation.encoders.panns import PannsEncoder
from separation.encoders.taggers import PatchTagger
from separation.pretrained import WEIGHTS
from separation.storage.tensors import read_tensors, select
from separation.training.objectives.tagging import SpecAugment, Tagging, mean_average_precision

make_importable()
LABELS = [f"tone {number}" for number in range(4)]
CHANNELS = (4, 8, 8, 8, 8, 16)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eight tones to train on and four to validate on."""
    folder = tmp_path_factory.mktemp("tones")
    train = write_corpus(folder, len(LABELS), 2, 1.5, 32000)
    rows = read(train)
    for row in rows:
        if row["path"].endswith("1.wav"):
            row["split"] = "validation"
    with train.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def train(corpus, folder, recipe, *options):
    """Train with a recipe for a few steps; returns the logged rows and the weights."""
    run(
        "fit", "--config", str(ROOT / "conf" / "recipe" / recipe), *options,
        f"--data.manifest={corpus / 'manifest.csv'}", f"--data.labels={LABELS}",
        f"--model.encoder.labels={LABELS}", "--data.workers=0", "--data.seconds=1.5",
        "--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.enable_progress_bar=false",
        f"--trainer.default_root_dir={folder}",
    )  # fmt: skip
    return read(folder / "log" / "version_0" / "metrics.csv"), read_tensors(folder / "last.ckpt")


def last(rows, name):
    return [float(row[name]) for row in rows if row.get(name)][-1]


def test_stripes_have_at_most_the_given_width():
    torch.manual_seed(0)
    masked = SpecAugment(frames=20, mels=8, stripes=2)(torch.ones(64, 1, 200, 64))
    silent = masked == 0
    frames, mels = silent.all(3).sum(2)[:, 0], silent.all(2).sum(2)[:, 0]
    assert 0 < frames.max() < 40 and 0 < mels.max() < 16
    assert len(frames.unique()) > 10  # each clip has its own


def test_spectrograms_and_tags_of_two_clips_are_mixed_with_the_same_weights():
    module = Tagging(PannsEncoder(labels=LABELS, channels=CHANNELS), mixup_alpha=1.0).train()
    torch.manual_seed(0)
    batch = type("Batch", (), {"waveforms": torch.zeros(4, 32000), "tags": torch.eye(4)})
    waveforms, tags = module.mix_clips(batch)
    assert torch.equal(waveforms, batch.waveforms)
    assert torch.allclose(tags.sum(1), torch.ones(4)) and ((tags > 0).sum(1) == 2).all()
    spectrogram = torch.arange(4.0)[:, None, None, None].expand(4, 1, 10, 64)
    weights = tags.diagonal()
    expected = weights * torch.arange(4.0) + (1 - weights) * torch.tensor([3.0, 0.0, 1.0, 2.0])
    assert torch.allclose(module.encoder.spectrogram(spectrogram)[:, 0, 0, 0], expected)
    assert torch.equal(module.eval().encoder.spectrogram(spectrogram), spectrogram)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    encoder, noise = PannsEncoder(labels=LABELS, channels=CHANNELS), 0.1 * torch.randn(1, 32000)
    first = encoder.tag(noise).embedding
    assert torch.equal(encoder.tag(noise).embedding, first)
    encoder.train()
    assert not torch.equal(encoder.tag(noise).embedding, encoder.tag(noise).embedding)


def test_mean_average_precision():
    probabilities = torch.tensor([[0.9, 0.9, 0.3], [0.8, 0.8, 0.2], [0.7, 0.7, 0.1]])
    tags = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    # class 0: (1/1 + 2/3) / 2; class 1: 1/2; class 2 does not occur
    assert float(mean_average_precision(probabilities, tags)) == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert float(mean_average_precision(probabilities[:, :1], tags[:, :1])) == pytest.approx(5 / 6)


def test_the_embedded_tagger_learns_new_classes(corpus, tmp_path):
    override = str(ROOT / "conf" / "override" / "panns_small.yaml")
    options = ["--config", override, "--data.batch_size=4", "--data.batches=10", "--trainer.max_epochs=1"]
    rows, weights = train(
        corpus, tmp_path, "panns.yaml", *options, "--model.optimiser.lr=0.001", "--model.optimiser.warmup=2"
    )
    assert last(rows, "val/map") > 0.9
    embedded = select(read_tensors(WEIGHTS / "default" / "model.safetensors"), "encoder.tagger.")
    moved = weights["encoder.network.stem.weight"] - embedded["stem.weight"].float()
    assert 0 < moved.abs().max() < 0.1  # it started there
    encoder = PatchTagger(LABELS)
    encoder.load_state_dict(select(weights, "encoder."))
    assert encoder.encode_audio(torch.randn(2, 48000), 32000).shape == (2, 1024)


def test_cnn14_learns_with_its_published_augmentation(corpus, tmp_path):
    channels = f"--model.encoder.channels=[{','.join(map(str, CHANNELS))}]"
    options = ["--data.batch_size=8", "--data.batches=20", "--trainer.max_epochs=1", "--trainer.max_steps=-1"]
    options += ["--model.optimiser.lr=0.01"]
    rows, weights = train(corpus, tmp_path, "panns.yaml", channels, *options, "--trainer.log_every_n_steps=1")
    losses = [float(row["train/loss"]) for row in rows if row.get("train/loss")]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert 0.2 < last(rows, "val/map") <= 1
    encoder = PannsEncoder(labels=LABELS, channels=CHANNELS)
    encoder.load_state_dict(select(weights, "encoder."))


def test_only_adapters_of_a_transformer_learn(tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the extra [clap]")
    from separation.encoders.ast import AdaptedAST

    torch.manual_seed(0)
    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config["max_length"] = 128
    published = transformers.ASTModel(transformers.ASTConfig(**config)).eval()
    published.save_pretrained(tmp_path / "ast")
    encoder, clips = AdaptedAST(LABELS, size=4, config=config), 0.1 * torch.randn(4, 16000)
    module = Tagging(encoder, mixup=0.0, encoder_weights=str(tmp_path / "ast"))
    module.setup("fit")
    module.train()
    features = encoder.extractor(list(clips.numpy()), sampling_rate=16000, return_tensors="pt")["input_values"]
    assert torch.allclose(encoder.tag(clips).embedding, published(features).pooler_output, atol=1e-6)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 1.0)
    for _ in range(2):  # the first step moves only what follows the adapters' zeros
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy(encoder.tag(clips).probabilities, torch.eye(4)).backward()
        optimiser.step()
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed} == {"adapters", "classify"}
    assert any(".down." in name for name in changed)
