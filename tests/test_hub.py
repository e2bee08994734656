"""Model directories: written, read back, and refused where they are not right."""

import os
import subprocess

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import DIM, noise, tiny_model, vectors

from separation import hub
from separation.checkpoints.registry import RELEASED
from separation.encoders.joint import JointEncoder
from separation.encoders.sentence import SentenceEncoder
from separation.hub import (
    ModelError,
    build,
    find_model,
    list_models,
    load_model,
    load_rule,
    read_card,
    read_config,
    save_model,
)
from separation.models.band_unet import BandUNet
from separation.presence import PresenceRule
from separation.separator import Separator

MODEL = {"channels": [8, 8, 8, 8], "stream_dim": 16, "condition_dim": DIM}
ENCODER = {"channels": [4, 4, 4, 4], "hidden": 16, "embedding_dim": DIM}
CONFIG = {
    "card": {
        "description": "random weights",
        "queries": ["text"],
        "sample_rate": 32000,
        "licence": "CC BY 4.0",
        "scores": "none",
    },
    "model": {"class_path": "separation.models.band_unet.BandUNet", "init_args": MODEL},
    "encoder": {"class_path": "separation.encoders.joint.JointEncoder", "init_args": ENCODER},
}


@pytest.fixture(autouse=True)
def no_sentence_weights(monkeypatch):
    """The sentence encoder's 91 MB stay on the disk."""
    monkeypatch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return tiny_model(), JointEncoder(**ENCODER).eval()


@pytest.fixture
def directory(tmp_path, parts):
    save_model(tmp_path / "mine", CONFIG, *parts, readme="# Mine\n")
    return tmp_path / "mine"


def change(directory, edit):
    """Rewrites the stored tensors after `edit` has changed their dictionary."""
    tensors = load_file(directory / "model.safetensors")
    edit(tensors)
    save_file(tensors, directory / "model.safetensors")


def configure(directory, **changes):
    (directory / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}), encoding="utf-8")


def refusal(directory):
    """The one sentence with which a directory is refused."""
    with pytest.raises(ModelError) as caught:
        load_model(directory)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def stored(tensor):
    """What is left of a tensor: kernels and matrices at half precision, vectors and counts as they are."""
    return tensor.half().float() if tensor.ndim > 1 else tensor


def test_what_is_saved_is_loaded_at_half_precision(directory, parts):
    for loaded, original in zip(load_model(directory), parts, strict=True):
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        state = original.state_dict()
        assert list(loaded.state_dict()) == list(state)
        for name, tensor in loaded.state_dict().items():
            assert tensor.dtype == state[name].dtype
            assert torch.equal(tensor, stored(state[name])), name


def test_a_model_directory_is_config_weights_and_readme(directory):
    assert sorted(file.name for file in directory.iterdir()) == ["README.md", "config.yaml", "model.safetensors"]
    assert yaml.safe_load((directory / "config.yaml").read_text()) == CONFIG
    for name, tensor in load_file(directory / "model.safetensors").items():
        whole = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        assert tensor.dtype == (torch.float16 if tensor.ndim > 1 else whole), name
    assert (directory / "model.safetensors").stat().st_mode & 0o044 == 0o044  # others may read it


def test_statistics_beyond_half_precision_survive(tmp_path, parts):
    parts[0].stem[1].running_var.copy_(torch.tensor([1e-9, 1e-5, 1.0, 1e5, 1e6, 1e9, 2.0, 3.0]))
    save_model(tmp_path / "mine", CONFIG, *parts)
    assert torch.equal(load_model(tmp_path / "mine")[0].stem[1].running_var, parts[0].stem[1].running_var)


@pytest.mark.parametrize("value", [1e6, -1e6, float("nan"), float("inf")])
def test_weights_beyond_half_precision_are_not_saved(tmp_path, parts, value):
    with torch.no_grad():
        parts[0].head.weight[0, 0] = value
    with pytest.raises(ModelError, match=r"model\.head\.weight holds values beyond the range of fp16"):
        save_model(tmp_path / "mine", CONFIG, *parts)
    assert not (tmp_path / "mine" / "model.safetensors").exists()


@pytest.mark.parametrize("given", [None, {}])
def test_without_a_rule_presence_is_the_detection_alone(directory, given):
    configure(directory, presence=given)
    assert load_rule(directory) == PresenceRule(bias=0.0, logit=1.0, ratio=0.0)


def test_the_configs_rule_tells_presence(directory):
    mixture = noise(0.5)
    plain = Separator.from_pretrained(directory, device="cpu")(mixture, "dog", 32000)
    configure(directory, presence={"bias": 1.5, "logit": 0.5, "ratio": 0.1})
    assert load_rule(directory) == PresenceRule(1.5, 0.5, 0.1)
    ruled = Separator.from_pretrained(directory, device="cpu")(mixture, "dog", 32000)
    logit = np.log(plain.presence / (1 - plain.presence))
    ratio = 10 * np.log10(float(plain.target.square().sum() / mixture.square().sum()))
    assert ruled.presence == pytest.approx(1 / (1 + np.exp(-(1.5 + 0.5 * logit + 0.1 * ratio))), abs=1e-4)
    assert torch.equal(ruled.target, plain.target)


@pytest.mark.parametrize("given", [{"colour": 1}, {"bias": "much"}, {"bias": None}, "much", [1, 2]])
def test_a_rule_that_says_nothing_is_refused(directory, given):
    configure(directory, presence=given)
    with pytest.raises(ModelError, match="presence must give bias, logit and ratio"):
        Separator.from_pretrained(directory)


def test_a_loaded_model_separates_like_the_one_that_was_saved(directory, parts):
    mixture = noise(0.5, channels=2)
    loaded = Separator.from_pretrained(directory, device="cpu")
    assert loaded.name == "mine"
    original = Separator(*parts, "original", "cpu")
    for text in ("dog", "rain"):
        wanted, got = original(mixture, text, 32000), loaded(mixture, text, 32000)
        assert (got.target - wanted.target).norm() < 0.01 * wanted.target.norm()
        assert got.presence == pytest.approx(wanted.presence, abs=0.01)


def test_saving_what_was_loaded_changes_nothing_more(directory, tmp_path):
    save_model(tmp_path / "again", CONFIG, *load_model(directory))
    first, second = (load_file(d / "model.safetensors") for d in (directory, tmp_path / "again"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("part", ["model.head.weight", "encoder.audio.0.0.weight", "model.stem.1.running_var"])
def test_a_missing_tensor_is_refused(directory, part):
    change(directory, lambda tensors: tensors.pop(part))
    message = refusal(directory)
    assert str(directory / "model.safetensors") in message
    assert part.split(".", 1)[1] in message


@pytest.mark.parametrize("name", ["model.surprise", "encoder.surprise", "surprise", "optimizer.surprise"])
def test_a_left_over_tensor_is_refused(directory, name):
    change(directory, lambda tensors: tensors.update({name: torch.zeros(3)}))
    message = refusal(directory)
    assert "surprise" in message
    assert str(directory / "model.safetensors") in message


@pytest.mark.parametrize("name", ["model.head.bias", "encoder.text.0.weight"])
def test_a_misshapen_tensor_is_refused(directory, name):
    change(directory, lambda tensors: tensors.update({name: torch.zeros(3)}))
    message = refusal(directory)
    assert name.split(".", 1)[1] in message
    assert str(directory / "model.safetensors") in message


def test_a_wrong_size_in_the_config_is_refused(directory):
    configure(directory, model={**CONFIG["model"], "init_args": {**MODEL, "stream_dim": 32}})
    assert "does not fit its config" in refusal(directory)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "header"])
def test_a_damaged_file_is_refused(directory, damage):
    file = directory / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(
        {"cut": data[: len(data) // 2], "text": b"not weights at all", "empty": b"", "header": b"\xff" * 8 + data[8:]}[
            damage
        ]
    )
    assert refusal(directory).startswith(f"{file} is damaged")


def test_missing_files_are_named(directory, tmp_path):
    (directory / "model.safetensors").unlink()
    assert refusal(directory) == f"{directory / 'model.safetensors'} is missing."
    (directory / "config.yaml").unlink()
    assert refusal(directory) == f"{directory} is no model directory: config.yaml is missing."


@pytest.mark.parametrize(
    "text", ["", "just words", "[1, 2]", "model: {}", "a: [", "\x00", "!!python/object/apply:os.system ['true']"]
)
def test_a_config_that_says_nothing_is_refused(directory, text):
    (directory / "config.yaml").write_text(text)
    assert str(directory / "config.yaml") in refusal(directory)


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.exec",
        "torch.nn.Identity",
        "torch.nn.Linear",
        "separation.hub.save_model",
        "separation.encoders.sentence.os.system",
        "separation.encoders.sentence.hashlib.md5",
        "separation.encoders.sentence.Path",
        "separation.encoders.sentence.find_folder",
        "separation.models.band_unet.Analysis",
        "separation.models.band_unet.torch",
        "separation.models.nothing.Nothing",
        "separation.models.band_unet.Nothing",
        "separation.models",
        "BandUNet",
        "",
        None,
    ],
)
@pytest.mark.parametrize("part", ["model", "encoder"])
def test_classes_of_others_are_not_built(directory, monkeypatch, part, path):
    def never(*arguments, **options):
        raise AssertionError("called")

    monkeypatch.setattr(os, "system", never)
    monkeypatch.setattr(subprocess, "Popen", never)
    configure(directory, **{part: {"class_path": path, "init_args": {}}})
    message = refusal(directory)
    ours = str(path).startswith(("separation.models.", "separation.encoders."))
    assert (
        "config cannot be built" in message if ours else f"names the class {str(path)!r}, which is not one" in message
    )


def test_modules_of_others_are_not_even_imported(directory, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text("import torch\nraise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    configure(directory, model={"class_path": "stranger.Net"})
    assert "not one of this package's" in refusal(directory)


@pytest.mark.parametrize(
    "init_args", [{"colour": "red"}, {"channels": [8, 8]}, {"channels": "many"}, {"n_fft": -3}, {"bands": 0}, ["x"], 7]
)
def test_arguments_that_do_not_fit_are_refused(directory, init_args):
    configure(directory, model={**CONFIG["model"], "init_args": init_args})
    assert "separation.models.band_unet.BandUNet" in refusal(directory)


@pytest.mark.parametrize("part", ["separation.models.band_unet.BandUNet", 7, None, []])
def test_a_part_that_is_no_description_is_refused(directory, part):
    configure(directory, model=part)
    assert "config" in refusal(directory)


def test_build_makes_the_described_object():
    model = build(CONFIG["model"])
    assert isinstance(model, BandUNet)
    assert model.position.shape == (1, 8, 64, 1)
    assert build({"class_path": "separation.encoders.sentence.SentenceEncoder"}).embedding_dim == 384


# --- Names -------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path, parts, monkeypatch):
    """A weights folder with two models, one without its weights, and something else."""
    weights = tmp_path / "weights"
    save_model(weights / "default", CONFIG, *parts)
    save_model(weights / "absent", CONFIG, *parts)
    (weights / "absent" / "model.safetensors").unlink()
    (weights / "notes").mkdir()
    (weights / "ATTRIBUTION.csv").write_text("")
    monkeypatch.setattr(hub, "WEIGHTS", weights)
    return weights


def test_models_are_listed_with_their_cards(registry):
    absent, default, *released = list_models()
    assert [card.name for card in released] == list(RELEASED)
    assert (absent.name, default.name) == ("absent", "default")
    assert (absent.on_disk, default.on_disk) == (False, True)
    assert default.description == "random weights"
    assert default.queries == ("text",)
    assert default.sample_rate == 32000
    assert default.licence == "CC BY 4.0"
    assert default.scores == "none"
    assert default.size == f"{(registry / 'default' / 'model.safetensors').stat().st_size / 1e6:.0f} MB"
    assert absent.size == "unknown"


@pytest.mark.parametrize("card", [None, {}])
def test_an_empty_card_is_no_reason_to_fail(directory, card):
    configure(directory, card=card)
    found = read_card(directory)
    assert (found.name, found.licence, found.scores, found.queries) == ("mine", "unknown", "unknown", ())
    load_model(directory)


def test_the_default_is_found_by_its_name(registry):
    assert find_model("default") == registry / "default"
    assert Separator.from_pretrained(device="cpu").name == "default"


def test_a_directory_is_found_by_its_path(registry, directory):
    assert find_model(str(directory)) == directory
    assert find_model("default") == registry / "default"


def test_an_unknown_name_is_refused_with_the_known_ones(registry):
    with pytest.raises(ModelError, match=r'no model "dafault": .*\(absent, default\)'):
        Separator.from_pretrained("dafault")


def test_a_folder_without_a_config_is_no_model(tmp_path):
    with pytest.raises(ModelError, match="is no model directory"):
        Separator.from_pretrained(tmp_path)


def test_read_config_returns_the_file(directory):
    assert read_config(directory) == CONFIG
