"""Encoders without a network: label tables, one-hot vectors, named embeddings, and random vectors for dry runs."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.base import EncoderError, QueryEncoder
from separation.storage.tensors import Tensors, read_tensors, select_first

Label = str | int


def as_labels(entry: Label | Sequence[Label]) -> list[Label]:
    """One label or several as a list."""
    return [entry] if isinstance(entry, str | int) else list(entry)


def normalize_label(label: str) -> str:
    """A label for comparison: published lists of one dataset differ in case, commas, underscores and spaces."""
    return " ".join(label.replace(",", " ").replace("_", " ").split()).lower()


class LabelEncoder(QueryEncoder):
    """Base class of encoders with one row per label of a fixed list, in the order of `labels`."""

    modalities = frozenset({"label"})
    unit_length = False

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = list(labels)
        self.numbers = {normalize_label(label): number for number, label in enumerate(self.labels)}
        if not self.labels or len(self.numbers) < len(self.labels):
            raise ValueError("a table of labels needs one label or more, each once")

    def index(self, label: Label) -> int:
        """Return the row of a label, by number or name in any case; raise EncoderError, which suggests similar ones."""
        number = label if isinstance(label, int) else self.numbers.get(normalize_label(label), -1)
        if not 0 <= number < len(self.labels):
            close = get_close_matches(normalize_label(str(label)), self.numbers)
            hint = f"; close to it: {', '.join(self.labels[self.numbers[name]] for name in close)}" if close else ""
            raise EncoderError(f"{label!r} is none of the {len(self.labels)} labels of this model{hint}.")
        return number

    def rows(self) -> Tensor:
        """The whole table (labels, embedding_dim)."""
        raise NotImplementedError

    def encode_label(self, labels: Sequence[Label | Sequence[Label]]) -> Tensor:
        """Encode known labels as (batch, embedding_dim); a nested list is one query, the mean of its rows."""
        table = self.rows()
        found = [table[[self.index(label) for label in as_labels(entry)]].mean(0) for entry in labels]
        return torch.stack(found) if found else table[:0]


class TableEncoder(LabelEncoder):
    """A learned vector for every label, as in LabelSep; not of unit length. The table is in the order of `labels`."""

    def __init__(self, labels: Sequence[str], embedding_dim: int = 512) -> None:
        super().__init__(labels)
        self.embedding_dim = embedding_dim
        self.label_net = nn.Embedding(len(self.labels), embedding_dim)

    @classmethod
    def from_tensors(cls, tensors: Tensors, labels: Sequence[str], source: str = "the checkpoint") -> TableEncoder:
        """Create the encoder from a LabelSep checkpoint's `label_net.weight`; raise EncoderError if it does not fit."""
        found = select_first(tensors, ("", "module.", "encoder."), "label_net.weight").get("label_net.weight")
        if found is None:
            raise EncoderError(f"{source}: tensor label_net.weight is missing.")
        if len(found) != len(labels):
            raise EncoderError(f"{source}: the table has {len(found)} rows, but {len(labels)} labels were given.")
        encoder = cls(labels, found.shape[1])
        encoder.load_state_dict({"label_net.weight": found})
        return encoder.eval()

    def rows(self) -> Tensor:
        return self.label_net.weight


class OneHotEncoder(LabelEncoder):
    """One-hot vectors: 1 at the position of the label in `labels`, 0 elsewhere."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.embedding_dim = len(self.labels)

    def rows(self) -> Tensor:
        return torch.eye(self.embedding_dim)


class NamedEmbeddings(QueryEncoder):
    """Looks up the embedding stored under a name, such as the mean condition of a class's examples.

    Case, commas, underscores and repeated spaces of names do not matter.

    Args:
        embedding_dim: length of the embeddings.
        unit_length: whether they have unit length.
        source: file that they were read from; a name that is not in it is an error. Without a file its embedding is
            zero.
    """

    modalities = frozenset({"text"})

    def __init__(self, embedding_dim: int, unit_length: bool, source: str | Path | None = None) -> None:
        super().__init__()
        self.embedding_dim, self.unit_length, self.source = embedding_dim, unit_length, source
        self.vectors: dict[str, Tensor] = {}

    @classmethod
    def from_file(cls, path: Path, embedding_dim: int, unit_length: bool) -> NamedEmbeddings:
        """Read a .safetensors file with an embedding (embedding_dim,) for each name.

        Raises:
            ModelError: the file is missing or damaged, or is another file.
            EncoderError: an embedding has another size, or holds NaN or infinite numbers.
        """
        if path.suffix != ".safetensors":
            raise EncoderError(f"{path} is not a .safetensors file of embeddings by name.")
        encoder = cls(embedding_dim, unit_length, path)
        for name, vector in read_tensors(path).items():
            if vector.shape != (embedding_dim,) or not torch.isfinite(vector).all():
                shape = "x".join(map(str, vector.shape))
                raise EncoderError(f"{path}: {name} is not {embedding_dim} finite numbers, but has the shape {shape}.")
            encoder.store(name, vector.float())
        return encoder

    def store(self, name: str, embedding: Tensor) -> None:
        """Store an embedding (embedding_dim,) under a name and replace an earlier one."""
        self.vectors[normalize_label(name)] = embedding

    def encode_text(self, texts: list[str]) -> Tensor:
        """Return the embeddings of names as (batch, embedding_dim)."""
        unknown = [text for text in texts if normalize_label(text) not in self.vectors]
        if unknown and self.source:
            raise EncoderError(f"{self.source} has no embedding of {', '.join(dict.fromkeys(unknown))}.")
        none = torch.zeros(self.embedding_dim)
        return torch.stack([self.vectors.get(normalize_label(text), none).cpu() for text in texts])


class RandomEncoder(QueryEncoder):
    """A fixed random unit vector for every query, for dry runs without any weights; equal queries have equal ones."""

    def __init__(
        self, embedding_dim: int = 512, modalities: Iterable[str] = ("text", "label", "image", "audio")
    ) -> None:
        super().__init__()
        self.embedding_dim, self.modalities = embedding_dim, frozenset(modalities)

    def draw(self, form: str, contents: list[bytes]) -> Tensor:
        """Draw a vector for each content, seeded by its checksum."""
        if form not in self.modalities:
            self.refuse(form)
        rows = [np.random.default_rng(zlib.crc32(c)).standard_normal(self.embedding_dim) for c in contents]
        return F.normalize(torch.tensor(np.array(rows).reshape(-1, self.embedding_dim), dtype=torch.float32), dim=-1)

    def encode_text(self, texts: list[str]) -> Tensor:
        return self.draw("text", [text.encode() for text in texts])

    def encode_label(self, labels: Sequence[Any]) -> Tensor:
        return self.draw("label", [str(label).encode() for label in labels])

    def encode_image(self, images: Sequence[Any]) -> Tensor:
        def content(image: Any) -> bytes:
            return str(image).encode() if isinstance(image, str | Path) else np.asarray(image).tobytes()

        queries = [image if isinstance(image, list | tuple) else [image] for image in images]
        rows = [self.draw("image", list(map(content, query))).mean(0) for query in queries]
        return torch.stack(rows) if rows else torch.zeros(0, self.embedding_dim)

    def encode_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        return self.draw("audio", [np.ascontiguousarray(row).tobytes() for row in waveform.detach().cpu().numpy()])
