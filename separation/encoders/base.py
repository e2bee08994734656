"""The interface of query encoders, and example recordings as queries."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.audio import read
from separation.audio.waveform import as_rate, as_waveform, resample
from separation.compat import make_importable
from separation.errors import ModelError
from separation.storage.download import RemoteFile, find_file
from separation.storage.folders import cache_folder

EXAMPLE_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")  # files that are read from a folder of examples

Example = str | Path | tuple[Tensor | np.ndarray, int]
"""A file, or a waveform (time,) or (channels, time) with its sample rate in Hz."""

Extract = Callable[[Tensor, Tensor], Tensor]
"""Separates a recording (time,), at the encoder's rate, by a condition (1, embedding_dim); returns its target."""


class EncoderError(ModelError):
    """An encoder's files or packages are missing or not the expected ones; the message says what to do."""


class UnsupportedQueryError(EncoderError, NotImplementedError):
    """The encoder does not support this form of query; the message names the supported ones."""


class QueryEncoder(nn.Module):
    """Base class of encoders, which turn queries into condition vectors (batch, embedding_dim).

    A subclass names the supported forms of queries in `modalities` and overrides the methods for them; for recordings,
    `embed_audio`. Embeddings need no encoder.

    Attributes:
        embedding_dim: length of the condition vectors.
        modalities: supported forms: "text", "audio", "label", "image".
        unit_length: whether condition vectors have unit length.
        needs_files: whether weights have to be downloaded, or put in place by hand, before the first query.
        ignores_silence: whether silent frames of example recordings are removed before they are encoded.
        sample_rate: rate of the audio input in Hz, for encoders of recordings.
    """

    embedding_dim: int
    modalities: frozenset[str] = frozenset()
    unit_length: bool = True
    needs_files: bool = False
    ignores_silence: bool = False
    sample_rate: int

    @property
    def device(self) -> torch.device:
        """Device of the encoder's weights."""
        return next(self.parameters()).device

    def fingerprint(self, form: str) -> bytes:
        """Identify what the vectors of a form of query depend on, class and weights; empty if there are no weights."""
        digest = hashlib.blake2b(type(self).__name__.encode(), digest_size=32)
        tensors = sorted(self.state_dict().items())
        for name, tensor in tensors:
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
        return digest.digest() if tensors else b""

    def refuse(self, form: str) -> NoReturn:
        """Raise UnsupportedQueryError, which names the supported forms of query."""
        forms = ", ".join([*sorted(self.modalities, reverse=True), "embedding"])
        raise UnsupportedQueryError(f"{type(self).__name__} takes no {form}; it takes {forms}.")

    def encode_text(self, texts: list[str]) -> Tensor:
        """Encode texts as (batch, embedding_dim)."""
        self.refuse("text")

    def encode_query(self, texts: list[str]) -> Tensor:
        """Encode texts that are queries as (batch, embedding_dim), by default as `encode_text`."""
        return self.encode_text(texts)

    def encode_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Encode example recordings (batch, time) at `sample_rate` Hz as (batch, embedding_dim)."""
        if "audio" not in self.modalities:
            self.refuse("audio")
        return self.embed_audio(resample(waveform, sample_rate, self.sample_rate).to(self.device))

    def embed_audio(self, waveform: Tensor) -> Tensor:
        """Embed recordings (batch, time) at the encoder's rate and on its device as (batch, embedding_dim)."""
        raise NotImplementedError

    def encode_label(self, labels: Sequence[Any]) -> Tensor:
        """Encode class names, ids or indices as (batch, embedding_dim); a nested list is one query."""
        self.refuse("label")

    def encode_image(self, images: Sequence[Any]) -> Tensor:
        """Encode images (files or arrays) as (batch, embedding_dim); a nested list is one query, their mean."""
        self.refuse("image")

    def encode_example(self, waveform: Tensor, extract: Extract | None = None) -> Tensor:
        """Encode one example recording (time,) at the encoder's rate as (1, embedding_dim)."""
        return self.encode_audio(waveform[None], self.sample_rate)

    def encode_examples(self, examples: Example | Iterable[Example], extract: Extract | None = None) -> Tensor:
        """Encode example recordings as one condition (1, embedding_dim), the mean over the recordings.

        Args:
            examples: a file, a folder of files, a waveform with its sample rate, or several of these.
            extract: separates an example, for encoders that look for its loudest sound.

        Raises:
            EncoderError: there is no recording, or one is silent.
            AudioError: a file cannot be read.
            ValueError: a waveform or its sample rate is not valid.
        """
        if "audio" not in self.modalities:
            self.refuse("audio")
        vectors = []
        for example in list_examples(examples):
            if isinstance(example, str | Path):
                name, (waveform, rate) = str(example), read(example)
            else:
                name, waveform, rate = "The example", as_waveform(example[0], "example"), as_rate(example[1])
            waveform = resample(waveform.mean(0, keepdim=True), rate, self.sample_rate)[0]
            if self.ignores_silence:  # keep the 0.1-s frames whose peak exceeds 0.02, as USS does
                size = round(0.1 * self.sample_rate)
                frames = waveform[: len(waveform) // size * size].reshape(-1, size)
                waveform = frames[frames.abs().amax(1) > 0.02].flatten()
            if not waveform.any():
                raise EncoderError(f"{name} is silent, so it cannot serve as an example.")
            vectors.append(self.encode_example(waveform, extract))
        if not vectors:
            places = str(examples) if isinstance(examples, str | Path) else ", ".join(map(str, examples))
            raise EncoderError(
                f"{places or 'The query'} contains no example recordings ({', '.join(EXAMPLE_SUFFIXES)})."
            )
        return self.mean(torch.cat(vectors))

    def mean(self, vectors: Tensor, weights: Tensor | None = None) -> Tensor:
        """Weighted mean (1, embedding_dim) of conditions (n, embedding_dim), normalised if `unit_length` is True."""
        weights = vectors.new_ones(len(vectors)) if weights is None else weights.to(vectors)
        mean = (weights / weights.sum()) @ vectors
        return F.normalize(mean, dim=-1)[None] if self.unit_length else mean[None]


def list_examples(examples: Example | Iterable[Example]) -> list[Example]:
    """Flatten example recordings into a list; a folder stands for its audio files, sorted by name."""
    if isinstance(examples, str | Path):
        path = Path(examples)
        return sorted(p for p in path.iterdir() if p.suffix.lower() in EXAMPLE_SUFFIXES) if path.is_dir() else [path]
    if isinstance(examples, tuple) and len(examples) == 2 and isinstance(examples[0], Tensor | np.ndarray):
        return [examples]
    return [example for entry in examples for example in list_examples(entry)]


def select_sounding(waveform: Tensor, sample_rate: int) -> Tensor:
    """Select the part of an example (time,) that sounds, so that silence and faint background count for nothing.

    Ends more than 40 dB below the loudest 10 ms are cut off. Of the half seconds in between, those within 25 dB of the
    loudest are joined, at most 120 of them.
    """
    size, half = sample_rate // 100, sample_rate // 2
    power = waveform[: len(waveform) // size * size].reshape(-1, size).square().mean(1)
    if not len(power) or not power.any():
        return waveform
    sounding = (power > 1e-4 * power.max()).nonzero()[:, 0]
    waveform = waveform[sounding[0] * size : (sounding[-1] + 1) * size]
    blocks = waveform.split(half)
    power = torch.stack([block.square().mean() for block in blocks])
    loud = (power > 10**-2.5 * power.max()).nonzero()[:, 0]
    loudest = loud[power[loud].argsort(descending=True)[:120]].sort().values
    return torch.cat([blocks[number] for number in loudest.tolist()])


def import_optional(module: str, user: str, extra: str) -> Any:
    """Import a module of an optional package, also beside torchaudio and torchvision builds that do not load.

    Raises EncoderError, which says that `user` needs it and which `extra` of this package installs it.
    """
    make_importable()
    try:
        return importlib.import_module(module)
    except ImportError:
        raise EncoderError(
            f'{user} needs the package {module.split(".")[0]}; install it with: pip install "separation[{extra}]" '
            f'(in this project\'s folder: pip install ".[{extra}]")'
        ) from None


def find_weights(filename: str, what: str, home: str) -> Path:
    """Find a weight file in the cache folder, or in the Hugging Face cache of its repository; nothing is downloaded.

    Raises EncoderError, which says what the weights belong to (`what`) and where they are published (`home`).
    """
    path = find_file(RemoteFile(f"{home}/resolve/main/{filename}", filename))
    if path is None:
        raise EncoderError(
            f"The weights of {what} are missing: get {filename} from {home} and put it into {cache_folder()}; "
            "without them the command separate takes embeddings alone (--query-embedding)."
        )
    return path
