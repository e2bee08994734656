"""Every shipped YAML: it builds what it describes, alone and with the debugging override; wrong keys are refused."""

import csv
import json
import sys
from argparse import ArgumentError
from pathlib import Path

import pytest

pytest.importorskip("lightning", reason="needs the extra [train]")

import yaml
from safetensors.torch import save_file

from separation.data.datamodule import CorpusData
from separation.data.queried import QueriedData
from separation.data.tagged import TaggedData
from separation.encoders.joint import JointEncoder
from separation.encoders.table import RandomEncoder, TableEncoder
from separation.training import cli as train
from separation.training.callbacks import Best, Last
from separation.training.objectives.base import Objective

CONF = Path(__file__).parents[1] / "conf"
RECIPES = sorted(file.stem for file in (CONF / "recipe").glob("*.yaml"))
DEBUG = str(CONF / "override" / "debug.yaml")
NEEDS_FILES = {
    "audiosep",
    "bimodal",
    "uss",
    "clipsep",
    "clipsep_text",
    "clipsep_hybrid",
    "clipsep_nit",
    "labelsep",
    "pit",
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*GPU available but not used"),
    pytest.mark.filterwarnings("ignore:.*MPS available but not used"),
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Runs are written to a folder of the test's own; the encoder that the default recipe starts from lies there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["separation-train"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls it in a way that will end
    (tmp_path / "runs" / "sound").mkdir(parents=True)
    return tmp_path


def built(*arguments):
    """Objective, data and trainer that some YAML describes, without running anything."""
    return train.CLI(run=False, args=[*arguments, "--trainer.accelerator", "cpu"])


def of_recipe(name, *arguments):
    return built("--config", str(CONF / "recipe" / f"{name}.yaml"), *arguments)


def test_recipes_and_overrides_have_their_names():
    frozen = json.loads((Path(__file__).parent / "frozen" / "training.json").read_text())
    assert frozen["recipes"] == RECIPES
    assert frozen["overrides"] == sorted(file.stem for file in (CONF / "override").glob("*.yaml"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_builds_what_it_describes(name, elsewhere):
    if name == "default":
        save_file(JointEncoder().state_dict(), elsewhere / "runs" / "sound" / "encoder.safetensors")
    cli = of_recipe(name)
    described = yaml.safe_load((CONF / "recipe" / f"{name}.yaml").read_text(encoding="utf-8"))
    for part, made in (("model", cli.model), ("data", cli.datamodule)):
        assert described[part]["class_path"] == f"{type(made).__module__}.{type(made).__qualname__}"
    assert str(cli.datamodule.manifest) == "clips/manifest.csv"
    assert cli.datamodule.batch_size == described["data"]["init_args"]["batch_size"]
    if isinstance(cli.model, Objective):
        assert cli.model.encoder.embedding_dim == cli.model.model.condition_dim
        assert cli.datamodule.sample_rate == cli.model.model.sample_rate


def test_clips_may_stream_in():
    cli = of_recipe("clipsep_text", "--config", str(CONF / "override" / "streamed.yaml"), "--data.shards", "elsewhere")
    assert isinstance(cli.datamodule, QueriedData)
    assert (cli.datamodule.shards, cli.datamodule.sources, cli.datamodule.length) == ("elsewhere", 2, 65535)


def test_labelled_clips_may_stream_in():
    cli = of_recipe("uss", "--config", str(CONF / "override" / "streamed_tagged.yaml"), "--data.shards", "elsewhere")
    assert isinstance(cli.datamodule, TaggedData)
    assert (cli.datamodule.shards, cli.datamodule.labels, cli.datamodule.classes) == ("elsewhere", "audioset", 527)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_tried_without_any_file(name):
    cli = of_recipe(name, "--config", DEBUG)
    assert cli.trainer.max_steps == 3
    assert isinstance(cli.datamodule, CorpusData)
    assert (cli.datamodule.manifest, cli.datamodule.batch_size, cli.datamodule.foley) == (None, 2, 1)
    assert cli.trainer.default_root_dir == "runs/debug"
    assert {type(c) for c in cli.trainer.checkpoint_callbacks} == {Best, Last}  # which save there
    assert isinstance(getattr(cli.model, "encoder", None), RandomEncoder) == (name in NEEDS_FILES)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("name", ["clipsep_hybrid", "clipsep_nit", "labelsep", "pit"])
def test_a_recipe_runs_without_any_file(name, elsewhere, monkeypatch):
    """As people start it, but with hardly any channels. Procedural sounds have drawn pictures."""
    small = ["--model.model.width=2", "--model.model.layers=5", "--model.model.channels=4"]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    recipe = ["--config", str(CONF / "recipe" / f"{name}.yaml"), "--config", DEBUG]
    monkeypatch.setattr(sys, "argv", ["separation-train", "fit", *recipe, *small, *quiet])
    train.main()
    assert (elsewhere / "runs" / "debug" / "last.ckpt").is_file()
    logged = (elsewhere / "runs" / "debug" / "log" / "version_0" / "metrics.csv").read_text(encoding="utf-8")
    assert len(logged.splitlines()) == 4
    assert "train/loss" in logged.splitlines()[0]


@pytest.mark.parametrize(
    "key", ["model.gama", "model.model.widht", "data.pollutde", "trainer.max_stepps", "model.optimiser.ratte"]
)
def test_a_wrong_key_is_an_error_that_names_it(key):
    with pytest.raises(ArgumentError, match=key.rsplit(".", 1)[1]):
        of_recipe("clipsep_nit", f"--{key}=1")


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


def labelsep_labels():
    return (CONF / "labels" / "vggsound.txt").read_text(encoding="utf-8").splitlines()


def test_labelsep_knows_vggsound_s_labels_in_both_spellings():
    labels = labelsep_labels()
    table = TableEncoder(labels, embedding_dim=2)
    assert (len(labels), labels) == (309, sorted(labels))
    assert [label for label in labels if "- " in label or "," in label] == []
    for spelling in WITH_COMMAS:
        assert labels[table.index(spelling)] == spelling.replace(",", "")
    for label in HYPHENS:
        assert labels[table.index(label)] == label


def test_labelsep_s_labels_are_those_of_the_published_lists(data_root):
    def column(name, number):
        with (data_root / "text" / name).open(newline="", encoding="utf-8") as file:
            return {row[number] for row in csv.reader(file)}

    labels, published = labelsep_labels(), column("vggsound/stat.csv", 0)
    assert sorted(label.replace(",", "") for label in published) == labels
    assert {label for label in published if "," in label} == set(WITH_COMMAS)
    assert column("clipsep_eval/vggsound_test-good.csv", 3) | column("clipsep_eval/vggsound_test-no-music.csv", 3) <= (
        set(labels)
    )
    recipe, own = TableEncoder(labels, embedding_dim=2), TableEncoder(sorted(published), embedding_dim=2)
    assert {recipe.index(label) for label in published} == set(range(309))
    assert {own.index(label) for label in labels} == set(range(309))


def test_a_wrong_key_in_a_file_is_an_error_that_names_it(elsewhere):
    (elsewhere / "mine.yaml").write_text("model:\n  init_args:\n    gama: 0.5\n", encoding="utf-8")
    with pytest.raises(ArgumentError, match="gama"):
        of_recipe("clipsep_nit", "--config", str(elsewhere / "mine.yaml"))
