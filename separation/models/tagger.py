"""A small AudioSet tagger: MobileNet v1 on log-mel patches, with the architecture of YAMNet (Plakal and Ellis).

Its features tell the default separator and its encoder what sounds (Howard et al., "MobileNets", 2017).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.models.spectra import STFT, mel_filters

CLASSES = 521
MELS = 64
PATCH_FRAMES, PATCH_HOP = 96, 50  # at 100 frames per second: 0.96 s every 0.5 s
PATCHES_PER_SECOND = 2
LOG_FLOOR = 1e-3
INPUT_LEVEL = 0.1  # root mean square of the recordings that the tagger was trained on, about -20 dB
LAYERS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""Output channels and stride of the depthwise separable layers after the stem of 32 channels and stride 2."""
MIDDLE_LAYER = 10  # the last one before the last stride
MIDDLE_DIM, LATE_DIM = 4 * 512, 1024  # the middle layer keeps 4 rows of mels, which still tell high from low


class LogMelPatches(nn.Module):
    """Waveforms of unit root mean square, at `sample_rate` Hz, to the log-mel patches that the tagger takes.

    Log-mels have 100 frames per second: magnitudes under Hann windows of 25 ms, 64 bands from 125 to 7500 Hz on HTK's
    scale, log(x + 0.001). Channels are joined by power, so their polarity and order do not matter.
    """

    filters: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        window = sample_rate // 40
        self.stft = STFT(2 ** math.ceil(math.log2(window)), sample_rate // 100, None, window_length=window)
        # The published filters are for windows at 16 kHz; longer ones have larger magnitudes.
        filters = mel_filters(sample_rate, self.stft.n_fft, MELS, 125.0, 7500.0, "htk", unit_sum=False)
        self.register_buffer("filters", filters * (INPUT_LEVEL * 16000 / sample_rate), persistent=False)

    def forward(self, waveform: Tensor, count: int) -> Tensor:
        """Waveform (batch, channels, time) to (batch, count, 96, 64); patch k is centred on k / 2 seconds."""
        with torch.autocast(waveform.device.type, enabled=False):
            power = self.stft(waveform.float()).abs().square().sum(1)  # (batch, bins, frames)
            log_mel = torch.log(power.sqrt().transpose(1, 2) @ self.filters + LOG_FLOOR)
        frames = (count - 1) * PATCH_HOP + PATCH_FRAMES
        missing = frames - PATCH_FRAMES // 2 - log_mel.shape[1]
        padded = F.pad(log_mel, (0, 0, PATCH_FRAMES // 2, max(0, missing)), value=math.log(LOG_FLOOR))
        return padded[:, :frames].unfold(1, PATCH_FRAMES, PATCH_HOP).transpose(2, 3)


class Convolution(nn.Conv2d):
    """Convolution with bias and ReLU, padded as TensorFlow pads: at stride 2 only at the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x if self.stride[0] == 1 else F.pad(x, (0, 1, 0, 1))))


class Tagger(nn.Module):
    """Log-mel patches to features and to logits of AudioSet's 521 classes, in the order of YAMNet.

    Patches must have 96 frames: the layers rely on the zeros around them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(1, 32, 3, 2)
        channels = (32, *(outputs for outputs, _ in LAYERS))
        self.layers = nn.ModuleList(
            nn.Sequential(Convolution(inputs, inputs, 3, stride, inputs), Convolution(inputs, outputs, 1))
            for inputs, (outputs, stride) in zip(channels, LAYERS, strict=False)
        )
        self.classify = nn.Linear(LATE_DIM, CLASSES)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Patches (..., 96, 64) to middle features (..., 2048), four rows of mels each, and late features (..., 1024).

        `classify` turns late features into logits (..., 521).
        """
        x = self.stem(patches.flatten(0, -3)[:, None].contiguous(memory_format=torch.channels_last))
        middle = x
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number == MIDDLE_LAYER:
                middle = x.mean(2).flatten(1)
        shape = patches.shape[:-2]
        return middle.unflatten(0, shape), x.mean((2, 3)).unflatten(0, shape)
