"""From a checkpoint to what inference loads."""

import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import DIM, noise, tiny_model, vectors

from separation import export
from separation.encoders.joint import JointEncoder
from separation.encoders.sentence import SentenceEncoder
from separation.export import export_encoder, export_model, tensors
from separation.hub import ModelError, load_model, read_card
from separation.separator import Separator

MODEL = {"channels": [8, 8, 8, 8], "stream_dim": 16, "condition_dim": DIM}
ENCODER = {"channels": [4, 4, 4, 4], "hidden": 16, "embedding_dim": DIM}
CONFIG = {
    "model": {
        "class_path": "separation.objectives.bands.BandSupervised",
        "init_args": {
            "model": {"class_path": "separation.models.band_unet.BandUNet", "init_args": MODEL},
            "encoder": {"class_path": "separation.encoders.joint.JointEncoder", "init_args": ENCODER},
            "optimiser": {"lr": 0.002},
        },
    }
}


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return tiny_model(seed=1), tiny_model(seed=2), JointEncoder(**ENCODER).eval()


@pytest.fixture
def checkpoint(tmp_path, parts):
    """As a supervised training leaves it: the trained network, its average, the encoder."""
    names = ("model", "average", "encoder")
    state = {f"{n}.{k}": v for n, part in zip(names, parts, strict=True) for k, v in part.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, "global_step": 600}, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


@pytest.fixture
def config(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    return tmp_path / "config.yaml"


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def test_tensors_are_chosen_by_their_prefix(checkpoint, parts):
    for name, part in zip(("model.", "average.", "encoder."), parts, strict=True):
        assert same(tensors(checkpoint, name), dict(part.state_dict()))


def test_an_unknown_prefix_is_named(checkpoint):
    with pytest.raises(KeyError, match=r"holds no tensors under 'student\.'"):
        tensors(checkpoint, "student.")


class Evil:
    def __reduce__(self):
        return (subprocess.call, (["true"],))


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    def never(*arguments):
        raise AssertionError("called")

    torch.save({"state_dict": {"model.x": torch.zeros(1)}, "more": Evil()}, tmp_path / "evil.ckpt")
    monkeypatch.setattr(subprocess, "call", never)
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        tensors(tmp_path / "evil.ckpt", "model.")


def test_the_encoder_as_one_file(checkpoint, parts, tmp_path):
    export_encoder(checkpoint, tmp_path / "encoder.safetensors")
    assert same(load_file(tmp_path / "encoder.safetensors"), dict(parts[2].state_dict()))
    encoder = JointEncoder(**ENCODER)
    encoder.load_state_dict(load_file(tmp_path / "encoder.safetensors"))


def test_the_model_directory_holds_the_average_and_says_what_it_is(checkpoint, config, parts, tmp_path):
    card = {"description": "tiny", "queries": ["text"], "licence": "CC BY 4.0", "scores": "none"}
    export_model(checkpoint, tmp_path / "mine", config, card)
    model, encoder = load_model(tmp_path / "mine")
    half = {k: v.half().float() if v.ndim > 1 else v for k, v in parts[1].state_dict().items()}
    assert same(dict(model.state_dict()), half)
    assert torch.allclose(encoder.text[0].weight, parts[2].text[0].weight, atol=1e-3)
    found = read_card(tmp_path / "mine")
    assert (found.description, found.queries, found.licence) == ("tiny", ("text",), "CC BY 4.0")
    assert found.sample_rate == 32000


def test_what_is_exported_separates(checkpoint, config, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))
    export_model(checkpoint, tmp_path / "mine", config, {})
    mixture = noise(0.5)
    wanted = Separator(parts[1], parts[2], "average", "cpu")(mixture, "dog", 32000).target
    found = Separator.from_pretrained(tmp_path / "mine", device="cpu")(mixture, "dog", 32000).target
    assert (found - wanted).norm() < 0.01 * wanted.norm()


def test_a_checkpoint_of_another_network_is_refused(checkpoint, config, tmp_path):
    other = yaml.safe_load(config.read_text())
    other["model"]["init_args"]["model"]["init_args"]["stream_dim"] = 32
    config.write_text(yaml.safe_dump(other))
    with pytest.raises((RuntimeError, ModelError), match="size mismatch"):
        export_model(checkpoint, tmp_path / "mine", config, {})
    assert not (tmp_path / "mine").exists()


def test_the_command(checkpoint, config, parts, tmp_path, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
        export.main()

    run("encoder", checkpoint, tmp_path / "encoder.safetensors")
    assert same(load_file(tmp_path / "encoder.safetensors"), dict(parts[2].state_dict()))
    run("model", checkpoint, tmp_path / "mine", "--config", config, "--scores", "7 dB")
    card = read_card(tmp_path / "mine")
    assert (card.scores, card.licence, card.on_disk) == ("7 dB", "CC BY 4.0", True)
    assert (tmp_path / "mine" / "model.safetensors").stat().st_mode & 0o044 == 0o044  # others may read it
