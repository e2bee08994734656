"""What tests of whole trainings share: a small recipe's options, pieces named by class path in it, the command line."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_file
from tiny import DIM, read, vectors, write_corpus, write_manifest
from torch import nn

from separation.encoders.joint import JointEncoder
from separation.encoders.sentence import SentenceEncoder
from separation.models.band_unet import BandUNet
from separation.training import cli as train
from separation.training.objectives.bands import BandSupervised

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "conf" / "recipe" / "default.yaml"
RATE = 8000
ENCODER = {"sample_rate": RATE, "embedding_dim": DIM, "channels": (4, 4, 4, 4), "hidden": 16}
NETWORK = {
    "sample_rate": RATE,
    "n_fft": 256,
    "hop": 125,
    "bands": 32,
    "linear_bands": 12,
    "channels": (4, 4, 4, 4),
    "stream_dim": 16,
    "condition_dim": DIM,
}

# What Lightning has to say about small runs on a CPU.
QUIET = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*GPU available but not used"),
    pytest.mark.filterwarnings("ignore:.*MPS available but not used"),
    pytest.mark.filterwarnings("ignore:.*number of training batches.*smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]


class StillUNet(BandUNet):
    """The default network without batch statistics."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, nn.Identity())


class Waveforms(BandSupervised):
    """Compares waveforms, so that nothing asks the layers that detect; one rank's second batch says nothing."""

    def training_step(self, batch, index):
        if self.global_rank == 1 and index == 1:
            return self.finite(None)
        conditions = self.encoder.embed_sentences(batch.sentences)
        targets, _ = self.model.separate(batch.sources.sum(1, keepdim=True), conditions)
        return self.finite((targets[:, :, 0] - batch.sources).square().mean())


class KillAt(Callback):
    """kill -9, of this very process, before step number `step` + 1."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def write_data(folder, validation=True):
    """A corpus of tones with train and validation rows of the same labels, and an encoder's weights."""
    manifest = write_corpus(folder, labels=4, recordings=2, seconds=0.6)
    rows = read(manifest)
    if validation:
        rows += [row | {"split": "validation"} for row in read(write_corpus(folder / "other", labels=4, seconds=0.7))]
        for row in rows[8:]:  # other recordings: one that is in both splits would be kept out of the training
            row["path"], row["recording_id"] = f"other/{row['path']}", f"other:{row['recording_id']}"
    write_manifest(manifest, rows, list(rows[0]))
    save_file(JointEncoder(**ENCODER).state_dict(), folder / "encoder.safetensors")
    return manifest


def arguments(subcommand, data, run, **changes):
    """The command line of a small training of the default recipe that writes into the folder `run`."""
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
        "data.cache": data / "cache",
        "data.foley": 0,
        "data.batches": 3,
        "data.batch_size": 2,
        "data.workers": 0,
        "data.seconds": 0.5,
        "data.sample_rate": RATE,
        "data.validation_count": 0,
    }
    network = changes.pop("network", "separation.models.band_unet.BandUNet")
    sizes = {f"model.model.{k}": list(v) if isinstance(v, tuple) else v for k, v in NETWORK.items()}
    sizes |= {f"model.encoder.{k}": list(v) if isinstance(v, tuple) else v for k, v in ENCODER.items()}
    chosen = options | {"model.model": network} | sizes | changes
    return [subcommand, "--config", str(RECIPE), *(f"--{k}={v}" for k, v in chosen.items() if v is not None)]


def run(*arguments, stand_in=True):
    """`separation-train`, in this process; with a stand-in, sentences need no weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PL_GLOBAL_SEED", "0")  # set by Lightning; taken back afterwards
        patch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls it in a way that will end
        if stand_in:
            patch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))
        patch.setattr(sys, "argv", ["separation-train", *map(str, arguments)])
        train.main()


def run_apart(command, folder, seconds=400, attempts=2):
    """`separation-train` in a process of its own, which is killed with all its children when it takes too long.

    It is then tried once more, without what it left in the folder; see `ranks.together`.
    """
    before = set(folder.rglob("*"))
    for attempt in range(attempts):
        try:
            return _apart(command, folder, seconds)
        except subprocess.TimeoutExpired:
            if attempt == attempts - 1:
                raise
            for path in sorted(set(folder.rglob("*")) - before, reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()


def _apart(command, folder, seconds):
    path = os.pathsep.join([str(ROOT / "tests"), os.environ["PYTHONPATH"]])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-m", "separation.training.cli", *map(str, command)],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def logged(run, name, version=0):
    """Step -> value of what a run has logged under a name."""
    rows = read(run / "log" / f"version_{version}" / "metrics.csv")
    return {int(row["step"]): float(row[name]) for row in rows if row.get(name)}
