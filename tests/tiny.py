"""Small stand-ins that several tests share: an encoder without weights, a small network, a corpus of tones."""

import csv
import zlib
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch.nn import functional as F

from separation.encoders.base import QueryEncoder
from separation.models.band_unet import BandUNet
from separation.pretrained import build, save_model
from separation.separator import Separator

DIM = 16  # of conditions
MODEL = {"channels": [8, 8, 8, 8], "stream_dim": 16, "condition_dim": DIM}
ENCODER = {"channels": [4, 4, 4, 4], "hidden": 16, "embedding_dim": DIM}
PARTS = {
    "model": {"class_path": "separation.models.band_unet.BandUNet", "init_args": MODEL},
    "encoder": {"class_path": "separation.encoders.joint.JointEncoder", "init_args": ENCODER},
}
COLUMNS = ("path", "split", "label", "caption", "recording_id", "source", "seconds")  # of the manifests written here


def vectors(texts, dim=DIM):
    """A fixed random unit vector for every text."""
    drawn = [np.random.default_rng(zlib.crc32(text.encode())).standard_normal(dim) for text in texts]
    return F.normalize(torch.tensor(np.array(drawn).reshape(-1, dim), dtype=torch.float32), dim=-1)


class TinyEncoder(QueryEncoder):
    """Takes any text, needs no file."""

    embedding_dim = DIM
    modalities = frozenset({"text"})

    def encode_text(self, texts):
        return vectors(texts)


def lively(model, seed=0):
    """Random weights and statistics under which masks span 0 to 1, turn the phase and depend on query and mixture."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
        model.position.normal_(0, 0.5, generator=generator)
        for parameter in model.head.parameters():
            parameter.normal_(0, 3.0, generator=generator)
        model.detect_bias.zero_()
    return model.eval()


def tiny_model(seed=0, **arguments):
    """The default network's geometry with hardly any channels."""
    torch.manual_seed(seed)
    sizes = {"channels": (8, 8, 8, 8), "stream_dim": 16, "condition_dim": DIM} | arguments
    return lively(BandUNet(**sizes), seed)


def small_rate_model(seed=0, **arguments):
    """The same at 8 kHz with 32 bands: for training steps that take milliseconds."""
    sizes = {"n_fft": 256, "hop": 125, "bands": 32, "linear_bands": 12, "channels": (4, 4, 4, 4)}
    return tiny_model(seed, sample_rate=8000, **sizes, **arguments)


def tiny_separator(seed=0):
    return Separator(tiny_model(seed), TinyEncoder(), "tiny", "cpu")


def write_model(directory, **card):
    """A model directory with random weights; returns the directory."""
    torch.manual_seed(0)
    save_model(directory, {"card": card, **PARTS}, build(PARTS["model"]), build(PARTS["encoder"]))
    return directory


def noise(seconds, sample_rate=32000, channels=1, seed=0, level=0.1):
    """Gaussian noise (channels, time), a little louder and quieter over time."""
    samples = round(seconds * sample_rate)
    wave = np.random.default_rng(seed).standard_normal((channels, samples))
    swell = 1 + 0.8 * np.sin(2 * np.pi * 0.7 * np.arange(samples) / sample_rate)
    return torch.tensor(level * wave * swell, dtype=torch.float32)


def write_corpus(folder, labels=4, recordings=2, seconds=1.0, sample_rate=8000, split="train"):
    """Tones of another frequency for every label as wav files, and their manifest; returns the manifest's path."""
    rows = []
    for label in range(labels):
        for recording in range(recordings):
            time = np.arange(round(seconds * sample_rate)) / sample_rate
            hertz = 300 * 1.6**label * (1 + 0.02 * recording)
            path = Path("audio") / "made" / f"tone {label}" / f"{recording}.wav"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / path, 0.3 * np.sin(2 * np.pi * hertz * time), sample_rate)
            rows.append(
                {
                    "path": path.as_posix(),
                    "split": split,
                    "label": f"tone {label}",
                    "caption": f"A tone of {hertz:.0f} hertz.",
                    "recording_id": f"made:{label}:{recording}",
                    "source": "made",
                    "seconds": seconds,
                }
            )
    return write_manifest(folder / "manifest.csv", rows)


def write_manifest(path, rows, columns=COLUMNS):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path):
    """The rows of a CSV file."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
