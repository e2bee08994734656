"""Recipes and overrides: what they build, alone and with debug.yaml; wrong keys are refused."""

import csv
import json
import sys
from argparse import ArgumentError
from pathlib import Path

import pytest

pytest.importorskip("lightning", reason="needs the extra [train]")

import torch
import yaml
from parts import run
from safetensors.torch import save_file

from separation.data.datamodule import CorpusData
from separation.encoders.joint import JointEncoder
from separation.encoders.table import RandomEncoder, TableEncoder
from separation.pretrained import WEIGHTS
from separation.storage.tensors import read_tensors, select
from separation.training import cli as train
from separation.training.callbacks import Best, Last
from separation.training.objectives.base import Objective

CONF = Path(__file__).parents[1] / "conf"
RECIPES = sorted(file.stem for file in (CONF / "recipe").glob("*.yaml"))
DEBUG = str(CONF / "override" / "debug.yaml")
NEEDS_FILES = {"audiosep", "bimodal", "uss", "labelsep", "pit"} | {
    name for name in RECIPES if name.startswith("clipsep")
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A working folder for each test, with the folder of the encoder that the default recipe loads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["separation-train"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls it in a deprecated way
    for folder in ("sound", "small_sound"):
        (tmp_path / "runs" / folder).mkdir(parents=True)
    return tmp_path


def recipe(name):
    """The file of a recipe. LabelSep gets few labels: jsonargparse copies the whole list for each of its items."""
    file = CONF / "recipe" / f"{name}.yaml"
    if name != "labelsep":
        return str(file)
    short = file.read_text(encoding="utf-8").replace("../labels/vggsound.txt", str(CONF / "labels" / "foley.txt"))
    assert "foley" in short
    Path("labelsep.yaml").write_text(short, encoding="utf-8")
    return "labelsep.yaml"


def build(name, *arguments):
    """Objective, data and trainer of a recipe, without running anything: large networks get no random weights."""
    with pytest.MonkeyPatch.context() as patch:
        for drawn in (drawn for drawn in dir(torch.nn.init) if drawn.endswith(("normal_", "uniform_"))):
            patch.setattr(torch.nn.init, drawn, lambda tensor, *_, **__: tensor)
        return train.CLI(run=False, args=["--config", recipe(name), *arguments, "--trainer.accelerator", "cpu"])


def test_recipes_and_overrides_have_their_names():
    frozen = json.loads((Path(__file__).parent / "frozen" / "training.json").read_text())
    assert frozen["recipes"] == RECIPES
    assert frozen["overrides"] == sorted(file.stem for file in (CONF / "override").glob("*.yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_what_it_describes(name, elsewhere):
    encoder = JointEncoder(tagger=name in ("default", "live"))
    for folder in ("sound", "small_sound"):
        save_file(encoder.state_dict(), elsewhere / "runs" / folder / "encoder.safetensors")
    cli = build(name)
    described = yaml.safe_load((CONF / "recipe" / f"{name}.yaml").read_text(encoding="utf-8"))
    for part, made in (("model", cli.model), ("data", cli.datamodule)):
        assert described[part]["class_path"] == f"{type(made).__module__}.{type(made).__qualname__}"
    assert str(cli.datamodule.manifest) == "clips/manifest.csv"
    assert cli.datamodule.batch_size == described["data"]["init_args"]["batch_size"]
    if isinstance(cli.model, Objective):
        assert cli.model.encoder.embedding_dim == cli.model.model.condition_dim
        assert cli.datamodule.sample_rate == cli.model.model.sample_rate
    if name in ("default", "small", "live"):  # the networks of the embedded models
        embedded = select(read_tensors(WEIGHTS / name / "model.safetensors"), "model.")
        assert {n: p.shape for n, p in cli.model.model.state_dict().items()} == {
            n: p.shape for n, p in embedded.items()
        }
        assert torch.equal(cli.model.encoder.text[0].weight, encoder.text[0].weight)


@pytest.mark.parametrize(
    "name, override, settings",
    [
        ("clipsep_text", "streamed", {"sources": 2, "length": 65535, "held": 256}),
        ("clipsep_nit", "streamed", {"frames": 3, "length": 65535, "held": 256}),
        ("uss", "streamed_tagged", {"labels": "audioset", "classes": 527, "held": 1024}),
    ],
)
def test_clips_from_shards(name, override, settings):
    data = build(name, "--config", str(CONF / "override" / f"{override}.yaml"), "--data.shards", "elsewhere").datamodule
    assert {key: getattr(data, key) for key in ("shards", *settings)} == settings | {"shards": "elsewhere"}


def test_the_default_recipe_goes_on_from_the_embedded_model():
    source = WEIGHTS / "default"
    longer = ["--config", str(CONF / "override" / "default_longer.yaml"), "--model.start_from", str(source)]
    built, tensors = build("default", *longer).model.state_dict(), read_tensors(source / "model.safetensors")
    assert {name for name in built if not name.startswith("average.")} >= tensors.keys()
    assert all(torch.equal(built[name], value.to(built[name].dtype)) for name, value in tensors.items())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_tried_without_any_file(name):
    cli = build(name, "--config", DEBUG)
    assert cli.trainer.max_steps == 3
    assert isinstance(cli.datamodule, CorpusData)
    assert (cli.datamodule.manifest, cli.datamodule.batch_size, cli.datamodule.foley) == (None, 2, 1)
    assert cli.trainer.default_root_dir == "runs/debug"
    assert {type(c) for c in cli.trainer.checkpoint_callbacks} == {Best, Last}  # which save there
    assert isinstance(getattr(cli.model, "encoder", None), RandomEncoder) == (name in NEEDS_FILES)
    if isinstance(cli.model, Objective) and name not in ("audiosep", "uss", "finetune"):  # whose sizes are fixed
        assert sum(weight.numel() for weight in cli.model.model.parameters()) < 5e6


@pytest.mark.parametrize("name", ["clipsep_hybrid", "clipsep_nit", "labelsep", "pit"])
def test_a_recipe_runs_without_any_file(name, elsewhere, few_sounds):
    """With few channels; procedural sounds have drawn pictures."""
    small = ["--model.model.width=2", "--model.model.layers=5", "--model.model.channels=4"]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    run("fit", "--config", recipe(name), "--config", DEBUG, *small, *quiet)
    assert (elsewhere / "runs" / "debug" / "last.ckpt").is_file()
    logged = (elsewhere / "runs" / "debug" / "log" / "version_0" / "metrics.csv").read_text(encoding="utf-8")
    assert len(logged.splitlines()) == 4
    assert "train/loss" in logged.splitlines()[0]


@pytest.mark.parametrize(
    "key", ["model.gama", "model.model.widht", "data.pollutde", "trainer.max_stepps", "model.optimiser.ratte"]
)
def test_a_wrong_key_is_an_error_that_names_it(key):
    with pytest.raises(ArgumentError, match=key.rsplit(".", 1)[1]):
        build("clipsep_nit", f"--{key}=1")


def test_a_wrong_key_in_a_file_is_an_error_that_names_it():
    Path("mine.yaml").write_text("model:\n  init_args:\n    gama: 0.5\n", encoding="utf-8")
    with pytest.raises(ArgumentError, match="gama"):
        build("clipsep_nit", "--config", "mine.yaml")


# As the dataset's own list spells the labels that CLIPSep's lists have without commas; and what is easily torn apart.
WITH_COMMAS = (
    "alligators, crocodiles hissing", "bee, wasp, etc. buzzing", "bird chirping, tweeting", "cattle, bovinae cowbell",
    "child speech, kid speaking", "donkey, ass braying", "electric shaver, electric razor shaving",
    "engine accelerating, revving, vroom", "female speech, woman speaking", "fly, housefly buzzing",
    "heart sounds, heartbeat", "ice cream truck, ice cream van", "male speech, man speaking",
    "motorboat, speedboat acceleration", "pigeon, dove cooing", "playing marimba, xylophone",
    "playing steel guitar, slide guitar", "playing violin, fiddle", "race car, auto racing",
    "railroad car, train wagon", "rowboat, canoe, kayak rowing", "subway, metro, underground",
    "vehicle horn, car horn, honking",
)  # fmt: skip
HYPHENS = ("chimpanzee pant-hooting", "dog bow-wow", "horse clip-clop", "police car (siren)")


LABELS = (CONF / "labels" / "vggsound.txt").read_text(encoding="utf-8").splitlines()


def test_labelsep_knows_the_labels_of_vggsound_in_both_spellings():
    table = TableEncoder(LABELS, embedding_dim=2)
    assert (len(LABELS), LABELS) == (309, sorted(LABELS))
    assert [label for label in LABELS if "- " in label or "," in label] == []
    for spelling in WITH_COMMAS:
        assert LABELS[table.index(spelling)] == spelling.replace(",", "")
    for label in HYPHENS:
        assert LABELS[table.index(label)] == label


def test_the_labels_of_labelsep_are_those_of_the_published_lists(data_root):
    def column(name, number):
        with (data_root / "text" / name).open(newline="", encoding="utf-8") as file:
            return {row[number] for row in csv.reader(file)}

    published = column("vggsound/stat.csv", 0)
    assert sorted(label.replace(",", "") for label in published) == LABELS
    assert {label for label in published if "," in label} == set(WITH_COMMAS)
    assert column("clipsep_eval/vggsound_test-good.csv", 3) | column("clipsep_eval/vggsound_test-no-music.csv", 3) <= (
        set(LABELS)
    )
    recipe, own = TableEncoder(LABELS, embedding_dim=2), TableEncoder(sorted(published), embedding_dim=2)
    assert {recipe.index(label) for label in published} == set(range(309))
    assert {own.index(label) for label in LABELS} == set(range(309))
