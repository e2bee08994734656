"""Training configurations and checkpoints of earlier versions, and where the base configuration applies."""

import sys

import pytest
import torch
import yaml

pytest.importorskip("lightning", reason="needs the extra [train]")

from parts import RECIPE, arguments, logged, run, write_data

from separation.training import callbacks
from separation.training.cli import CLI
from separation.training.objectives.bands import BandSupervised

EARLIER = """
seed_everything: 0
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 1
  default_root_dir: mine
  logger:
    - class_path: lightning.pytorch.loggers.CSVLogger
      init_args: {save_dir: mine, name: log}
  callbacks:
    - class_path: separation.callbacks.checkpoints.Last
    - class_path: separation.callbacks.speed.Speed
model:
  class_path: separation.objectives.bands.BandSupervised
  init_args:
    model: {class_path: separation.models.band_unet.BandUNet, init_args: {channels: [4, 4, 4, 4], condition_dim: 256}}
    encoder: {class_path: separation.encoders.sound.SoundEncoder}
data:
  class_path: separation.data.datamodule.MixtureData
  init_args: {manifest: clips/manifest.csv, batch_size: 2, batches: 2}
"""


@pytest.fixture(autouse=True)
def quiet_parser(monkeypatch, tmp_path):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setattr(sys, "argv", ["separation-train"])
    monkeypatch.chdir(tmp_path)


def build(*arguments):
    return CLI(run=False, args=[*map(str, arguments), "--trainer.accelerator=cpu"])


def test_a_whole_configuration_with_earlier_class_paths_still_works(tmp_path):
    (tmp_path / "mine.yaml").write_text(EARLIER)
    cli = build("--config", tmp_path / "mine.yaml")
    assert type(cli.model) is BandSupervised and cli.trainer.default_root_dir == "mine"
    kinds = {type(callback).__name__ for callback in cli.trainer.callbacks}
    assert {"Last", "Speed"} <= kinds and not {"Best", "Examples"} & kinds


def test_a_recipe_copied_elsewhere_still_uses_base_yaml(tmp_path):
    (tmp_path / "mine.yaml").write_text(RECIPE.read_text().replace("runs/small", "runs/mine", 1))
    described = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert "logger" not in described["trainer"] and "callbacks" not in described["trainer"]
    cli = build("--config", tmp_path / "mine.yaml", "--model.encoder_weights=null")
    kinds = {type(callback) for callback in cli.trainer.callbacks}
    assert {callbacks.Last, callbacks.Best, callbacks.Speed, callbacks.Examples} <= kinds
    assert {logger.save_dir for logger in cli.trainer.loggers} == {"runs/mine"}
    assert cli.trainer.reload_dataloaders_every_n_epochs == 1  # otherwise all epochs have the same mixtures


def test_a_checkpoint_that_holds_audio_of_an_earlier_version_is_resumed(tmp_path):
    write_data(tmp_path)
    run(*arguments("fit", tmp_path, tmp_path / "run", **{"trainer.max_epochs": 1}))
    stored = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert "recent" not in stored
    stored["recent"] = [[torch.zeros(2, 1, 4000).half(), torch.zeros(2, 4, 16).half()]]
    torch.save(stored, tmp_path / "run" / "last.ckpt")
    run(*arguments("fit", tmp_path, tmp_path / "run", ckpt_path=tmp_path / "run" / "last.ckpt"))
    assert sorted(logged(tmp_path / "run", "train/snr", 1)) == [3, 4, 5]
