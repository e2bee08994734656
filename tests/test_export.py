"""From a training checkpoint to safetensors."""

import os

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny import ENCODER, PARTS, noise, tiny_model

from separation import Separator, export
from separation.encoders.joint import JointEncoder
from separation.pretrained import load_model, read_card

CONFIG = {"model": {"class_path": "an.Objective", "init_args": {**PARTS, "optimiser": {"lr": 0.002}}}}


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return {"model": tiny_model(seed=1), "average": tiny_model(seed=2), "encoder": JointEncoder(**ENCODER).eval()}


@pytest.fixture
def run(tmp_path, parts):
    """A checkpoint and a config as a supervised training leaves them, and the command in their folder."""
    state = {f"{name}.{k}": v for name, part in parts.items() for k, v in part.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, "global_step": 600}, tmp_path / "last.ckpt")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")

    def command(kind, target, *options, checkpoint="last.ckpt"):
        return export.main([kind, str(tmp_path / checkpoint), str(tmp_path / target), *map(str, options)])

    return command


def test_the_encoder_as_one_file(run, parts, tmp_path):
    assert run("encoder", "encoder.safetensors") == 0
    found, expected = load_file(tmp_path / "encoder.safetensors"), parts["encoder"].state_dict()
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_a_model_directory_holds_the_average_and_its_card(run, parts, tmp_path, no_sentence_weights):
    texts = ["--scores", "7 dB", "--description", "tiny", "--licence", "CC BY 4.0"]
    assert run("model", "mine", "--config", tmp_path / "config.yaml", *texts) == 0
    card = read_card(tmp_path / "mine")
    assert (card.description, card.scores, card.licence, card.on_disk) == ("tiny", "7 dB", "CC BY 4.0", True)
    assert (card.queries, card.sample_rate) == (("text", "audio", "embedding"), 32000)
    assert (tmp_path / "mine" / "model.safetensors").stat().st_mode & 0o044 == 0o044  # others may read it
    model, encoder = load_model(tmp_path / "mine")
    for name, value in parts["average"].state_dict().items():
        assert torch.equal(model.state_dict()[name], value.half().float() if value.ndim > 1 else value)
    assert torch.allclose(encoder.text[0].weight, parts["encoder"].text[0].weight, atol=1e-3)

    mixture = noise(0.5)
    wanted = Separator(parts["average"], parts["encoder"], "average", "cpu")(mixture, "dog", 32000).target
    found = Separator.from_pretrained(tmp_path / "mine", device="cpu")(mixture, "dog", 32000).target
    assert (found - wanted).norm() < 0.01 * wanted.norm()


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("the payload ran",))


def test_invalid_exports_are_one_sentence(run, tmp_path, capsys, monkeypatch):
    def refused(*arguments, **options):
        assert run(*arguments, **options) == 1
        message = capsys.readouterr().err
        assert message.startswith("separation.export: ") and message.count("\n") == 1
        assert not (tmp_path / "mine").exists()
        return message

    monkeypatch.chdir(tmp_path)
    config = ("--config", tmp_path / "config.yaml")
    torch.save({"state_dict": {"encoder.x": torch.zeros(1)}, "more": Evil()}, tmp_path / "evil.ckpt")
    assert "holds code" in refused("encoder", "mine", checkpoint="evil.ckpt")
    assert not (tmp_path / "the payload ran").exists()
    torch.save({"state_dict": {"model.x": torch.zeros(1)}}, tmp_path / "none.ckpt")
    assert "holds no tensors of an encoder" in refused("encoder", "mine", checkpoint="none.ckpt")
    assert "missing" in refused("model", "mine", *config, checkpoint="none.ckpt")
    assert "gone.ckpt is missing" in refused("model", "mine", *config, checkpoint="gone.ckpt")
    assert "gone.yaml cannot be read" in refused("model", "mine", "--config", tmp_path / "gone.yaml")
    other = yaml.safe_load(yaml.safe_dump(CONFIG))
    other["model"]["init_args"]["model"]["init_args"]["stream_dim"] = 32
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(other))
    assert "of another shape" in refused("model", "mine", *config)
    (tmp_path / "config.yaml").write_text("model: {}")
    assert "does not describe a separator" in refused("model", "mine", *config)
