"""Shared by tests of whole trainings: the options of a small training, classes that it names, the command."""

import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import lightning
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from safetensors.torch import save_file
from tiny import DIM, read, vectors, write_corpus, write_manifest
from torch import nn

from separation.encoders.joint import JointEncoder
from separation.encoders.sentence import SentenceEncoder
from separation.models.band_unet import BandUNet
from separation.training import cli as train
from separation.training.objectives.bands import BandSupervised

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "conf" / "recipe" / "small.yaml"  # the default network without a tagger
RATE = 8000
CHANNELS = (4, 4, 4, 4)
ENCODER = {"sample_rate": RATE, "embedding_dim": DIM, "channels": CHANNELS, "hidden": 16}
BANDS = {"n_fft": 256, "hop": 125, "bands": 32, "linear_bands": 12}
NETWORK = BANDS | {"sample_rate": RATE, "channels": CHANNELS, "stream_dim": 16, "condition_dim": DIM}


class StillUNet(BandUNet):
    """The default network without batch statistics."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, nn.Identity())


class Waveforms(BandSupervised):
    """Compares waveforms, so the presence layers have no gradient; the second batch of one device has no loss."""

    def training_step(self, batch, index):
        if self.global_rank == 1 and index == 1:
            return self.skip_invalid(None)
        conditions = self.encoder.embed_sentences(batch.sentences)
        targets = self.model.separate(batch.sources.sum(1, keepdim=True), conditions).targets
        return self.skip_invalid((targets[:, :, 0] - batch.sources).square().mean())


class KillAt(Callback):
    """Kills its own process with SIGKILL before step number `step` + 1."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def small_encoder(seed=1):
    torch.manual_seed(seed)
    return JointEncoder(**ENCODER).eval()


def write_data(folder, validation=True):
    """A corpus of tones with train and validation rows of the same labels, and an encoder's weights."""
    manifest = write_corpus(folder, labels=4, recordings=2, seconds=0.6)
    rows = read(manifest)
    if validation:
        rows += [row | {"split": "validation"} for row in read(write_corpus(folder / "other", labels=4, seconds=0.7))]
        for row in rows[8:]:  # other recordings: one that is in both splits is not trained on
            row["path"], row["recording_id"] = f"other/{row['path']}", f"other:{row['recording_id']}"
    write_manifest(manifest, rows, list(rows[0]))
    save_file(JointEncoder(**ENCODER).state_dict(), folder / "encoder.safetensors")
    return manifest


def arguments(subcommand, data, run, recipe=RECIPE, **changes):
    """The command line of a small training of a recipe that writes into the folder `run`.

    The network None leaves out the settings of the separator.
    """
    options = {
        "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",
        "trainer.max_epochs": 2,
        "trainer.log_every_n_steps": 1,
        "trainer.enable_progress_bar": "false",
        "trainer.num_sanity_val_steps": 0,
        "trainer.default_root_dir": run,
        "trainer.logger": f"[{{class_path: CSVLogger, init_args: {{save_dir: {run}, name: log}}}}]",
        "model.encoder_weights": data / "encoder.safetensors",
        "data.manifest": data / "manifest.csv",
        "data.foley": 0,
        "data.batches": 3,
        "data.batch_size": 2,
        "data.workers": 0,
        "data.seconds": 0.5,
        "data.sample_rate": RATE,
        "data.validation_count": 0,
    }
    network = changes.pop("network", "separation.models.band_unet.BandUNet")
    sizes = {f"model.encoder.{name}": value for name, value in ENCODER.items()}
    if network is not None:
        sizes |= {"model.model": network} | {f"model.model.{name}": value for name, value in NETWORK.items()}
    config = {}  # as one text: each option by itself is checked with all that came before it
    for key, value in (options | sizes | changes).items():
        path = key if key.startswith("trainer") else key.replace(".", ".init_args.")
        *outer, name = (f"{path}.class_path" if key in ("model", "model.model") else path).split(".")
        if value is not None:
            inner = functools.reduce(lambda part, each: part.setdefault(each, {}), outer, config)
            inner[name] = yaml.safe_load(value) if isinstance(value, str) else value
    return [subcommand, "--config", str(recipe), "--config", json.dumps(config, default=str)]


def run(*arguments):
    """`separation-train` in this process; sentences need no weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PL_GLOBAL_SEED", "0")  # set by Lightning; restored afterwards
        patch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls it in a deprecated way
        patch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))
        patch.setattr(sys, "argv", ["separation-train", *map(str, arguments)])
        train.main()


def fit(module, data, folder, *callbacks, resume=None, **options):
    """Train in this process for one epoch without logs; returns the trainer. Callbacks say whether a run is saved."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "reload_dataloaders_every_n_epochs": 1}
    saved = {"enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks)}
    named = quiet | settings | saved | {"default_root_dir": folder} | options
    trainer = lightning.Trainer(**named, callbacks=list(callbacks))
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return trainer


def refused(capsys, *arguments):
    """The last line of the error output of a `separation-train` that ends with exit status 2."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err.splitlines()[-1].removeprefix("separation-train: ")


def run_apart(command, folder, seconds=400):
    """`separation-train` in a process of its own."""
    path = os.pathsep.join([str(ROOT / "tests"), os.environ["PYTHONPATH"]])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    program = [sys.executable, "-m", "separation.training.cli", *map(str, command)]
    return subprocess.run(program, env=environment, cwd=folder, capture_output=True, text=True, timeout=seconds)


def logged(run, name, version=0):
    """Step -> value of what a run has logged under a name."""
    rows = read(run / "log" / f"version_{version}" / "metrics.csv")
    return {int(row["step"]): float(row[name]) for row in rows if row.get(name)}
