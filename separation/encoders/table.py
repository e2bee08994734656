"""Conditions without a network: a table of labels, ones and zeros, or vectors that come as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from separation.encoders.base import EncoderError, QueryEncoder, UnsupportedQueryError
from separation.tensors import Tensors, under

Label = str | int


def spelled(label: str) -> str:
    """A label as labels are compared: published lists of one dataset differ in case, commas and blanks."""
    return " ".join(label.replace(",", " ").split()).lower()


class LabelEncoder(QueryEncoder):
    """Labels of a fixed list to rows; a base for the tables below. Labels are found as `spelled` spells them."""

    modalities = frozenset({"label"})
    unit_length = False

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self.labels = list(labels)
        self.numbers = {spelled(label): number for number, label in enumerate(self.labels)}
        if not self.labels or len(self.numbers) < len(self.labels):
            raise ValueError("a table of labels needs one label or more, each once")

    def index(self, label: str | int) -> int:
        """The row of a label, given by name or number.

        Raises:
            EncoderError: there is no such label; the message names close ones.
        """
        number = label if isinstance(label, int) else self.numbers.get(spelled(label), -1)
        if not 0 <= number < len(self.labels):
            from difflib import get_close_matches

            close = [self.labels[self.numbers[name]] for name in get_close_matches(spelled(str(label)), self.numbers)]
            hint = f"; close to it: {', '.join(close)}" if close else ""
            raise EncoderError(f"{label!r} is none of the {len(self.labels)} labels of this model{hint}.")
        return number

    def vectors(self) -> Tensor:
        """The whole table (labels, embedding_dim)."""
        raise NotImplementedError

    def encode_label(self, labels: Sequence[Label | Sequence[Label]]) -> Tensor:
        """Labels to (batch, embedding_dim); a list within the list is one query, the mean of its rows."""
        table = self.vectors()
        several = [[entry] if isinstance(entry, str | int) else list(entry) for entry in labels]
        rows = [table[[self.index(label) for label in entry]].mean(0) for entry in several]
        return torch.stack(rows) if rows else table[:0]


class TableEncoder(LabelEncoder):
    """A learned vector for every label, as in LabelSep; not of unit length.

    Args:
        labels: in the order of the table.
        embedding_dim: numbers a label.
    """

    def __init__(self, labels: Sequence[str], embedding_dim: int = 512) -> None:
        super().__init__(labels)
        self.embedding_dim = embedding_dim
        self.label_net = nn.Embedding(len(self.labels), embedding_dim)

    @classmethod
    def from_tensors(cls, tensors: Tensors, labels: Sequence[str], source: str = "the checkpoint") -> TableEncoder:
        """From a LabelSep checkpoint's `label_net.weight`.

        Raises:
            EncoderError: it is missing, or has another number of rows than there are labels.
        """
        found = under(tensors, ("", "module.", "encoder."), "label_net.weight").get("label_net.weight")
        if found is None:
            raise EncoderError(f"{source}: tensor label_net.weight is missing.")
        if len(found) != len(labels):
            raise EncoderError(f"{source}: the table has {len(found)} rows, and {len(labels)} labels were given.")
        encoder = cls(labels, found.shape[1])
        encoder.load_state_dict({"label_net.weight": found})
        return encoder.eval()

    def vectors(self) -> Tensor:
        return self.label_net.weight


class OneHotEncoder(LabelEncoder):
    """1 at the label's place, 0 elsewhere.

    Args:
        labels: in the order of the places.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__(labels)
        self.embedding_dim = len(self.labels)

    def vectors(self) -> Tensor:
        return torch.eye(self.embedding_dim)


class EmbeddingEncoder(QueryEncoder):
    """Takes plain embeddings only: for a separator without an encoder, or whose encoder cannot be loaded.

    Args:
        embedding_dim: the condition's size.
        reason: why there is nothing else; one sentence, which every other query then raises.
    """

    unit_length = False

    def __init__(self, embedding_dim: int, reason: str = "") -> None:
        super().__init__()
        self.embedding_dim, self.reason = embedding_dim, reason

    def refuse(self, form: str) -> NoReturn:
        """As in `QueryEncoder`, with this encoder's own reason.

        Raises:
            UnsupportedQueryError: always.
        """
        if self.reason:
            raise UnsupportedQueryError(f"No {form} query without the encoder: {self.reason}")
        super().refuse(form)
