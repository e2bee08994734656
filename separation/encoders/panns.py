"""PANNs' Cnn14 (Kong et al., 2020): tagger, embedding, and frame-wise detector of the 527 AudioSet classes.

The published files load with their tensor names. The frozen Fourier and mel kernels in them are not read: both are
computed. The networks are used as they were trained, so there is no dropout and no spectrogram masking here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.base import EncoderError
from separation.encoders.mel import LogMel
from separation.encoders.tagger import TaggerEncoder, Tags
from separation.tensors import Tensors, load_strictly, read_tensors, under

CHANNELS = (64, 128, 256, 512, 1024, 2048)
HALVINGS = 5
PREFIXES = ("", "module.", "model.", "query_net.base.", "network.")
DETECTOR_PREFIXES = ("", "module.", "model.", "anchor_segment_detector.sed_model.", "network.")


@dataclass(frozen=True)
class FrontEnd:
    """What a published Cnn14 sees: rate in Hz, window and hop in samples, upper edge of the mel bands in Hz."""

    sample_rate: int
    n_fft: int
    hop: int
    high: float


FRONT_ENDS = {"cnn14": FrontEnd(32000, 1024, 320, 14000.0), "cnn14_16k": FrontEnd(16000, 512, 160, 8000.0)}


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, then an average pool: (batch, in, frames, bands) -> (batch, out, frames / p, bands / p)."""

    def __init__(self, inputs: int, outputs: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.avg_pool2d(x, self.pool) if self.pool > 1 else x


class Cnn14(nn.Module):
    """Waveform (batch, time) to `Tags`.

    Args:
        variant: "cnn14" (32 kHz) or "cnn14_16k".
        classes: of the last layer.
        channels: of the blocks; published networks have the default.
    """

    def __init__(self, variant: str = "cnn14", classes: int = 527, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        if variant not in FRONT_ENDS:
            raise ValueError(f"variant is one of {', '.join(FRONT_ENDS)}, not {variant!r}")
        front = FRONT_ENDS[variant]
        self.variant, self.sample_rate, self.hop = variant, front.sample_rate, front.hop
        self.log_mel = LogMel(front.sample_rate, front.n_fft, front.hop, 64, 50.0, front.high)
        self.bn0 = nn.BatchNorm2d(64)
        self.blocks = len(channels)
        for number, (inputs, outputs) in enumerate(zip((1, *channels), channels, strict=False), 1):
            setattr(self, f"conv_block{number}", ConvBlock(inputs, outputs, 2 if number <= HALVINGS else 1))
        self.fc1 = nn.Linear(channels[-1], channels[-1])
        self.fc_audioset = nn.Linear(channels[-1], classes)

    @property
    def shortest(self) -> int:
        """Samples needed for one step to be left after the halvings."""
        return int(2**HALVINGS - 1) * self.hop

    def features(self, waveform: Tensor) -> Tensor:
        """(batch, time) to (batch, channels, steps), steps = (time // hop + 1) // 32.

        Raises:
            ValueError: shorter than `shortest`.
        """
        if waveform.shape[-1] < self.shortest:
            raise ValueError(f"Cnn14 needs {self.shortest} samples or more, not {waveform.shape[-1]}")
        x: Tensor = self.log_mel(waveform)  # (batch, 1, frames, 64)
        x = self.bn0(x.transpose(1, 3)).transpose(1, 3)  # normalised by band
        for number in range(1, self.blocks + 1):
            x = getattr(self, f"conv_block{number}")(x)
        return x.mean(3)

    def forward(self, waveform: Tensor) -> Tags:
        x = self.features(waveform)
        embedding = F.relu(self.fc1(x.amax(2) + x.mean(2)))
        return Tags(torch.sigmoid(self.fc_audioset(embedding)), embedding)


class Frames(NamedTuple):
    """A detector's answer: probabilities by frame (batch, frames, classes) and by clip (batch, classes)."""

    framewise: Tensor
    clipwise: Tensor


class Cnn14DecisionLevelMax(Cnn14):
    """Waveform (batch, time) at 32 kHz to `Frames`, 100 frames a second; the clip's probability is its largest."""

    def forward(self, waveform: Tensor) -> Frames:  # type: ignore[override]
        x = self.features(waveform)
        x = F.max_pool1d(x, 3, 1, 1) + F.avg_pool1d(x, 3, 1, 1)
        steps = torch.sigmoid(self.fc_audioset(F.relu(self.fc1(x.transpose(1, 2)))))
        frames = waveform.shape[-1] // self.hop + 1
        at = torch.arange(frames, device=x.device).div(2**HALVINGS, rounding_mode="floor").clamp_max(steps.shape[1] - 1)
        return Frames(steps[:, at], steps.amax(1))


def is_kernel(name: str) -> bool:
    """Whether a tensor of a published file is computed here rather than read."""
    return name.startswith(("spectrogram_extractor.", "logmel_extractor.")) or name.endswith("num_batches_tracked")


def variant_of(tensors: Tensors) -> str | None:
    """Which front end a file's own mel matrix belongs to; None where it carries none."""
    matrix = tensors.get("logmel_extractor.melW")
    if matrix is None:
        return None
    return next((name for name, front in FRONT_ENDS.items() if front.n_fft // 2 + 1 == len(matrix)), None)


def load_cnn14(network: Cnn14, tensors: Tensors, prefixes: tuple[str, ...], source: str) -> None:
    """Fill a Cnn14 from a published state dict, with any known prefix.

    Raises:
        EncoderError: the tensors are not those of this network; the message names the first difference.
    """
    bare = under(tensors, prefixes, "conv_block1.conv1.weight")
    if not bare:
        raise EncoderError(f"{source} holds no Cnn14: tensor conv_block1.conv1.weight is missing.")
    variant = variant_of(bare)
    if variant is not None and variant != network.variant:
        raise EncoderError(f"{source} is {variant}, not {network.variant}.")
    load_strictly(network, bare, source, is_kernel)
    network.eval().requires_grad_(False)


class PannsEncoder(TaggerEncoder):
    """Cnn14 as query net: class probabilities (527) or the embedding (2048) of example recordings, and class labels.

    Args:
        condition: "probabilities" ("at_soft" in USS) or "embedding".
        variant: "cnn14" (32 kHz) or "cnn14_16k".
        channels: of the blocks; published networks have the default.
    """

    def __init__(
        self, condition: str = "probabilities", variant: str = "cnn14", channels: tuple[int, ...] = CHANNELS
    ) -> None:
        super().__init__(condition, channels[-1])
        self.network = Cnn14(variant, self.classes, channels).eval().requires_grad_(False)
        self.sample_rate = self.network.sample_rate

    @classmethod
    def from_tensors(
        cls,
        tensors: Tensors,
        condition: str = "probabilities",
        variant: str | None = None,
        source: str = "the checkpoint",
    ) -> PannsEncoder:
        """From a published state dict: PANNs' own, or the query net inside a USS checkpoint.

        Raises:
            EncoderError: a tensor is missing, unknown or of another shape.
        """
        bare = under(tensors, PREFIXES, "conv_block1.conv1.weight")
        encoder = cls(condition, variant or variant_of(bare) or "cnn14")
        load_cnn14(encoder.network, tensors, PREFIXES, source)
        return encoder

    @classmethod
    def from_file(cls, path: str | Path, condition: str = "probabilities", variant: str | None = None) -> PannsEncoder:
        """From a published file, for example `Cnn14_mAP=0.431.pth` or a USS checkpoint."""
        return cls.from_tensors(read_tensors(path), condition, variant, str(path))

    def tag(self, waveform: Tensor) -> Tags:
        short = self.network.shortest - waveform.shape[-1]
        tags: Tags = self.network(F.pad(waveform, (0, short)) if short > 0 else waveform)
        return tags


def detector_from_tensors(tensors: Tensors, source: str = "the checkpoint") -> Cnn14DecisionLevelMax:
    """The frame-wise detector from its own state dict, or from inside a USS checkpoint.

    Raises:
        EncoderError: a tensor is missing, unknown or of another shape.
    """
    network = Cnn14DecisionLevelMax()
    load_cnn14(network, tensors, DETECTOR_PREFIXES, source)
    return network


def detector_from_file(path: str | Path) -> Cnn14DecisionLevelMax:
    """The frame-wise detector from `Cnn14_DecisionLevelMax_mAP=0.385.pth` or a USS checkpoint."""
    return detector_from_tensors(read_tensors(path), str(path))
