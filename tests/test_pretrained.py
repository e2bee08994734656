"""Model directories and names: written, found, read back, and refused if they are not valid."""

import json
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tiny import ENCODER, MODEL, PARTS, noise, tiny_model

from separation import ModelError, Separator, list_models, pretrained
from separation.encoders.joint import JointEncoder
from separation.pretrained import find_model, load_model, read_card, read_config, save_model
from separation.released.systems import LISTED

pytestmark = pytest.mark.usefixtures("no_sentence_weights")
CARD = {"description": "random weights", "sample_rate": 32000, "licence": "CC BY 4.0", "scores": "none"}
CONFIG = {"card": {**CARD, "queries": ["text"]}, **PARTS}


@pytest.fixture
def parts():
    torch.manual_seed(0)
    return tiny_model(), JointEncoder(**ENCODER).eval()


@pytest.fixture
def directory(tmp_path, parts):
    save_model(tmp_path / "mine", CONFIG, *parts, readme="# Mine\n")
    return tmp_path / "mine"


def change(directory, **tensors):
    """Replaces stored tensors; None removes one."""
    stored = load_file(directory / "model.safetensors") | tensors
    save_file({k: v for k, v in stored.items() if v is not None}, directory / "model.safetensors")


def configure(directory, **changes):
    (directory / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}), encoding="utf-8")


def refusal(directory):
    """The one sentence with which a directory is refused."""
    with pytest.raises(ModelError) as caught:
        load_model(directory)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


# --- Saved and loaded --------------------------------------------------------------------------


def test_a_model_directory_holds_config_weights_and_readme(directory, parts, tmp_path):
    assert sorted(file.name for file in directory.iterdir()) == ["README.md", "config.yaml", "model.safetensors"]
    assert yaml.safe_load((directory / "config.yaml").read_text()) == CONFIG == read_config(directory)
    stored = load_file(directory / "model.safetensors")
    for name, tensor in stored.items():  # kernels and matrices in half precision
        whole = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        assert tensor.dtype == (torch.float16 if tensor.ndim > 1 else whole), name
    assert (directory / "model.safetensors").stat().st_mode & 0o044 == 0o044  # others may read it
    for loaded, original in zip(load_model(directory), parts, strict=True):
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        state = original.state_dict()
        assert list(loaded.state_dict()) == list(state)
        for name, tensor in loaded.state_dict().items():
            assert tensor.dtype == state[name].dtype
            assert torch.equal(tensor, state[name].half().float() if tensor.ndim > 1 else state[name]), name
    save_model(tmp_path / "again", CONFIG, *load_model(directory))
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == stored.keys() and all(torch.equal(again[name], stored[name]) for name in stored)


def test_a_loaded_model_separates_like_the_one_that_was_saved(directory, parts):
    mixture = noise(0.5, channels=2)
    loaded, original = (
        Separator.from_pretrained(directory, device="cpu", precision="float32"),
        Separator(*parts, "original", "cpu"),
    )
    assert loaded.name == "mine"
    for text in ("dog", "rain"):
        wanted, got = original(mixture, text, 32000), loaded(mixture, text, 32000)
        assert (got.target - wanted.target).norm() < 0.01 * wanted.target.norm()
        assert got.presence == pytest.approx(wanted.presence, abs=0.01)


@pytest.mark.parametrize("value", [1e6, -1e6, float("nan"), float("inf")])
def test_weights_beyond_half_precision_are_not_saved(tmp_path, parts, value):
    with torch.no_grad():
        parts[0].head.weight[0, 0] = value
    with pytest.raises(ModelError, match=r"model\.head\.weight holds values beyond the range of fp16"):
        save_model(tmp_path / "mine", CONFIG, *parts)
    assert not (tmp_path / "mine" / "model.safetensors").exists()


def test_the_configs_rule_tells_presence(directory):
    mixture = noise(0.5)
    configure(directory, presence=None)
    plain = Separator.from_pretrained(directory, device="cpu")(mixture, "dog", 32000)  # the detection alone
    configure(directory, presence={"bias": 1.5, "logit": 0.5, "ratio": 0.1})
    ruled = Separator.from_pretrained(directory, device="cpu")(mixture, "dog", 32000)
    logit = np.log(plain.presence / (1 - plain.presence))
    ratio = 10 * np.log10(float(plain.target.square().sum() / mixture.square().sum()))
    assert ruled.presence == pytest.approx(1 / (1 + np.exp(-(1.5 + 0.5 * logit + 0.1 * ratio))), abs=1e-4)
    assert torch.equal(ruled.target, plain.target)


@pytest.mark.parametrize("given", [{"colour": 1}, {"bias": "much"}, {"bias": None}, "much", [1, 2]])
def test_an_invalid_rule_is_refused(directory, given):
    configure(directory, presence=given)
    with pytest.raises(ModelError, match="presence must give bias, logit, ratio"):
        Separator.from_pretrained(directory)


# --- Refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("model.head.weight", None, "missing"),
        ("encoder.audio.0.0.weight", None, "missing"),
        ("model.stem.1.running_var", None, "missing"),
        ("model.surprise", torch.zeros(3), "unexpected"),
        ("encoder.surprise", torch.zeros(3), "unexpected"),
        ("surprise", torch.zeros(3), "unexpected"),
        ("optimizer.surprise", torch.zeros(3), "unexpected"),
        ("model.head.bias", torch.zeros(3), "of another shape"),
        ("encoder.text.0.weight", torch.zeros(3), "of another shape"),
    ],
)
def test_tensors_that_do_not_fit_are_named(directory, name, value, fault):
    change(directory, **{name: value})
    message = refusal(directory)
    assert str(directory / "model.safetensors") in message
    assert fault in message and name.split(".", 1)[-1] in message


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "header"])
def test_a_damaged_file_is_refused(directory, damage):
    file = directory / "model.safetensors"
    data = file.read_bytes()
    damaged = {"cut": data[: len(data) // 2], "text": b"not weights", "empty": b"", "header": b"\xff" * 8 + data[8:]}
    file.write_bytes(damaged[damage])
    assert refusal(directory).startswith(f"{file} is damaged")


def test_missing_files_are_named(directory):
    (directory / "model.safetensors").unlink()
    assert refusal(directory) == f"{directory / 'model.safetensors'} is missing."
    (directory / "config.yaml").unlink()
    assert refusal(directory) == f"{directory} is not a model directory: config.yaml is missing."


@pytest.mark.parametrize(
    "text", ["", "just words", "[1, 2]", "model: {}", "a: [", "\x00", "!!python/object/apply:os.system ['true']"]
)
def test_an_invalid_config_is_refused(directory, text):
    (directory / "config.yaml").write_text(text)
    assert str(directory / "config.yaml") in refusal(directory)


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.exec",
        "torch.nn.Linear",
        "stranger.Net",
        "separation.pretrained.save_model",
        "separation.encoders.sentence.os.system",
        "separation.encoders.sentence.Path",
        "separation.encoders.sentence.find_folder",
        "separation.released.systems.System",
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
def test_other_classes_are_not_built(directory, tmp_path, monkeypatch, part, path):
    (tmp_path / "stranger.py").write_text("raise SystemExit('imported')\n")  # others' modules are not even imported
    monkeypatch.syspath_prepend(tmp_path)

    def never(*arguments, **options):
        raise AssertionError("called")

    monkeypatch.setattr(os, "system", never)
    monkeypatch.setattr(subprocess, "Popen", never)
    configure(directory, **{part: {"class_path": path, "init_args": {}}})
    ours = str(path).startswith(pretrained.BUILT)
    expected = "config cannot be built" if ours else f"names the class {str(path)!r}, which is not one of this package"
    assert expected in refusal(directory)


@pytest.mark.parametrize(
    "init_args",
    [
        {"stream_dim": 32},
        {"colour": "red"},
        {"channels": [8, 8]},
        {"channels": "many"},
        {"n_fft": -3},
        {"bands": 0},
        ["x"],
        7,
    ],
)
def test_arguments_that_do_not_fit_are_refused(directory, init_args):
    sized = init_args == {"stream_dim": 32}  # it can be built, but the weights do not fit
    configure(directory, model={**CONFIG["model"], "init_args": MODEL | init_args if sized else init_args})
    assert ("does not fit BandUNet" if sized else "separation.models.band_unet.BandUNet") in refusal(directory)
    for part in ("separation.models.band_unet.BandUNet", 7, None, []):  # not a description
        configure(directory, model=part)
        assert "config" in refusal(directory)


# --- Hostile -----------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "aliases are expanded"),
        (MERGES, "aliases are expanded"),
        ("card: &a [*a]", "aliases are expanded"),
        ("card: " + "[" * 200_000, "nest"),
        ("card: " + "{a: " * 40 + "1" + "}" * 40, "nested more than 32 levels"),
        ("card: " + "x" * 600_000, "more than 512 KiB"),
        ("card: " + "x" * 20_000, "more than 16384 characters"),
        ("card: " + "1" * 5000, "4300 digits"),
        ("card: 2001-99-99", "month must be in"),
        ("colour: 1", "unknown key, colour"),
        ("card: 7", "card is not a mapping"),
        ("card: {sample_rate: fast}", "sample_rate of the card is not valid: fast"),
        ("card: {queries: [[text]]}", "queries of the card"),
    ],
)
def test_a_hostile_config_is_refused(directory, text, reason):
    rest = yaml.safe_dump(PARTS, default_flow_style=True)[1:] if text.startswith("{") else yaml.safe_dump(PARTS)
    (directory / "config.yaml").write_text(f"{text}\n{rest}")
    message = refusal(directory)
    assert str(directory / "config.yaml") in message and reason in message and len(message) < 400


CLAP, CLIP = "separation.encoders.clap.ClapEncoder", "separation.encoders.clip.ClipEncoder"
UNET, JOINT = (PARTS[part]["class_path"] for part in ("model", "encoder"))


@pytest.mark.parametrize(
    ("path", "arguments", "reason"),
    [
        *((UNET, {name: value}, name) for name, value in [
            ("n_fft", 2**31), ("n_fft", -3), ("n_fft", 0), ("n_fft", 1600.0), ("n_fft", "1600"), ("n_fft", True),
            ("sample_rate", 2**40), ("sample_rate", 0), ("sample_rate", float("nan")), ("sample_rate", 32001),
            ("hop", 2**14), ("bands", 2**20), ("linear_bands", -1), ("stream_dim", 10**6), ("condition_dim", 2**31),
            ("channels", [8, 8, 8, 30000]), ("channels", [8, 8, 8, -1]), ("channels", [8] * 4000), ("channels", None),
            ("high_pass", float("nan")), ("high_pass", float("inf")), ("high_pass", -1.0), ("tagger", 1),
            ("colour", "red"),
        ]),
        *((JOINT, {name: value}, name) for name, value in [
            ("sample_rate", 2**40), ("embedding_dim", 2**31), ("channels", [4] * 100), ("hidden", 0), ("dropout", 2.0),
        ]),
        (CLAP, {"text_config": {"attn_implementation": "somebody/kernel"}}, "text_config"),
        (CLAP, {"audio_config": {"num_hidden_layers": 10**6}}, "num_hidden_layers"),
        (CLIP, {"text": {"hf_model_name": "somebody/model"}}, "text"),
        (CLIP, {"vision": {"timm_model_name": "hf-hub:somebody/model", "timm_model_pretrained": True}}, "vision"),
        ("separation.released.encoder.StatesEncoder", {"clap": {"class_path": CLAP}}, "clap"),
        ("separation.encoders.taggers.FrameTagger", {"labels": "abc"}, "labels"),
    ],
)  # fmt: skip
def test_arguments_out_of_range_are_refused_before_anything_is_built(directory, path, arguments, reason):
    part = "model" if path == UNET else "encoder"
    known = CONFIG[part]["init_args"] if path in (UNET, JOINT) else {}
    configure(directory, **{part: {"class_path": path, "init_args": known | arguments}})
    message = refusal(directory)
    assert f"cannot be built: {path}: " in message and reason in message


def test_parts_that_are_no_separator_are_refused(directory):
    configure(directory, model=PARTS["encoder"])
    assert "JointEncoder and JointEncoder are not a network and an encoder" in refusal(directory)
    configure(directory, encoder={"class_path": JOINT, "init_args": ENCODER | {"embedding_dim": 17}})
    assert "the conditions of the network have 16 numbers, the encoder's 17" in refusal(directory)
    configure(directory, model=CONFIG["model"] | {"source": "hub"})
    assert "unknown key, source" in refusal(directory)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["model.head.weight", "model.stem.1.running_var", "encoder.text.0.bias"])
def test_weights_that_are_not_finite_are_refused(directory, name, value):
    tensor = load_file(directory / "model.safetensors")[name]
    tensor.view(-1)[-1] = value
    change(directory, **{name: tensor})
    message = refusal(directory)
    assert "NaN or infinite" in message and name.split(".", 1)[1] in message


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_weights_of_another_type_are_refused(directory, dtype):
    change(directory, **{"model.head.bias": torch.ones(12, dtype=dtype)})
    assert f"1 of another type: head.bias ({dtype})" in refusal(directory)


@pytest.mark.parametrize("case", ["length", "overlap", "shape"])
def test_headers_that_lie_are_refused(directory, case):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = {"model.a": entry, "model.b": entry if case == "overlap" else entry | {"data_offsets": [8, 16]}}
    if case == "shape":
        header["model.b"]["shape"] = [2**62, 2**62]
    text = json.dumps(header).encode()
    length = 2**63 if case == "length" else len(text)
    (directory / "model.safetensors").write_bytes(length.to_bytes(8, "little") + text + bytes(16))
    assert "is damaged" in refusal(directory)


@pytest.mark.parametrize(
    ("section", "given", "name"),
    [
        *(("presence", {name: value}, name) for name, value in [
            ("bias", float("nan")), ("logit", float("inf")), ("ratio", True), ("bias", "1.5"), ("bias", [1.0]),
            ("background", [float("nan")] * 16), ("background", 1.0), ("background", ["a"]), ("colour", 1),
        ]),
        *(("listing", {name: value}, name) for name, value in [
            ("slope", float("nan")), ("sounds", "abc"), ("sounds", [1, 2]), ("sounds", [" "]),
        ]),
        ("presence", {"background": [1.0, 2.0]}, "background of 2 numbers, not 16"),
        ("listing", {"context": [1.0, 2.0]}, "context of 2 numbers, not 7"),
    ],
)  # fmt: skip
def test_rules_that_are_not_finite_numbers_are_refused(directory, section, given, name):
    configure(directory, **{section: given})
    with pytest.raises(ModelError, match=name):
        Separator.from_pretrained(directory, device="cpu")


def test_a_refusal_takes_neither_time_nor_memory(directory, tmp_path):
    """Each of these took gigabytes or half a minute before it was refused, if it was."""
    for number, arguments in enumerate([{"n_fft": 2**31}, {"bands": 2**20}, {"channels": [8192] * 4}]):
        copy = shutil.copytree(directory, tmp_path / f"bad{number}")
        configure(copy, model={"class_path": UNET, "init_args": MODEL | arguments})
    (shutil.copytree(directory, tmp_path / "bad3") / "config.yaml").write_text(MERGES + yaml.safe_dump(PARTS))
    limits = resource.getrlimit(resource.RLIMIT_AS)
    places = [directory / "nothing", *(tmp_path / f"bad{number}" for number in range(4))]
    for place, word in zip(places, ["Unknown", "n_fft", "bands", "another shape", "expanded"], strict=True):
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        began = time.process_time()
        resource.setrlimit(resource.RLIMIT_AS, (size + 200 * 2**20, limits[1]))
        try:
            with pytest.raises(ModelError, match=word):
                Separator.from_pretrained(str(place), device="cpu")
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        assert time.process_time() - began < 1


# --- Names -------------------------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path, parts, monkeypatch):
    """A weights folder with two models, one without its weights, and something else."""
    weights = tmp_path / "weights"
    for name in ("default", "absent"):
        save_model(weights / name, CONFIG, *parts)
    (weights / "absent" / "model.safetensors").unlink()
    (weights / "notes").mkdir()
    (weights / "ATTRIBUTION.csv").write_text("")
    monkeypatch.setattr(pretrained, "WEIGHTS", weights)
    return weights


def test_models_are_listed_with_their_cards(registry):
    absent, default, *released = list_models()
    assert [card.name for card in released] == list(LISTED)
    assert (absent.name, absent.on_disk, absent.size) == ("absent", False, "unknown")
    assert (default.name, default.on_disk, default.queries) == ("default", True, ("text",))
    assert {name: getattr(default, name) for name in CARD} == CARD
    assert default.size == f"{(registry / 'default' / 'model.safetensors').stat().st_size / 1e6:.0f} MB"


@pytest.mark.parametrize("card", [None, {}])
def test_an_empty_card_is_allowed(directory, card):
    configure(directory, card=card)
    found = read_card(directory)
    assert (found.name, found.licence, found.scores, found.queries) == ("mine", "unknown", "unknown", ())
    load_model(directory)


def test_models_are_found_by_name_and_by_path(registry, directory, tmp_path):
    assert find_model("default") == registry / "default"
    assert find_model(str(directory)) == directory
    assert Separator.from_pretrained(device="cpu").name == "default"
    with pytest.raises(ModelError, match=r'Unknown model "dafault"\. Use a name \(absent, default, audiosep, '):
        Separator.from_pretrained("dafault")
    with pytest.raises(ModelError, match="is not a model directory"):
        Separator.from_pretrained(tmp_path)
