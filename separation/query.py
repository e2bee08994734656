"""Queries: what to extract from a recording, in any form, and how they become condition vectors.

    Query("dog barking")
    Query("dog barking", negative="rain")
    Query(audio="bark.wav")                                  # an example recording, a folder of them, or several
    Query(label="Animal", subclasses=True)                   # an AudioSet class and the classes below it
    Query("dog barking", audio=["a.wav", "b.wav"], weights={"audio": 2})

Creating a query reads and encodes nothing; `Query.encode` does, for the encoder of a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from separation.encoders.base import Example, Extract, QueryEncoder

    Plain = str | int | Tensor | np.ndarray
    """A text (or a class name, for models that know classes only), a class number, an embedding (dim,)."""

FORMS = ("text", "label", "audio", "image", "embedding")
EMPTY = "The query is empty. Say what to extract, for example: dog barking"
WORDLESS = "The query contains no word. Say what to extract, for example: dog barking"
TAKEN = {
    "text": "texts",
    "label": "classes by name, id or number",
    "audio": "files, folders, and waveforms with their sample rates, such as (waveform, 44100)",
    "image": "files and arrays",
    "embedding": "a vector, or a .npy or .safetensors file",
}
"""What the forms of a query take."""


@dataclass(frozen=True, eq=False)
class Query:
    """One thing to extract from a recording.

    Several values of one form have equal weight: the condition is their mean (AudioSet classes: their union). Several
    forms are averaged with `weights`. The mean is normalised to unit length if the encoder's vectors are.

    Args:
        text: one or more descriptions.
        label: one or more classes by name, id or number.
        audio: one or more example recordings: a file, a folder, or a waveform with its sample rate. The built-in models
            use the part that sounds; a tagger (USS) removes silent frames and averages over segments of 2 s, as
            published.
        image: one or more pictures of the sound source, files or arrays.
        embedding: a condition vector (dim,), or a .npy or .safetensors file; needs no encoder.
        negative: one or more queries of any kind that must not be in the result, see `models.base.NegativeFilter`.
        weights: of the forms, 1 by default; for example {"text": 1, "audio": 2}.
        subclasses: a label includes the AudioSet classes below it in the ontology, as in USS.
        as_one: a text is one sound, also if it is a sentence that names several, see `separation.inference.sentences`.
        parts: the sounds that a sentence names, with their conditions (dim,); `Separator.understand` fills it.

    Raises:
        ValueError: if the query is empty, or a value or weight is not valid.
    """

    text: str | Sequence[str] = ()
    label: str | int | Sequence[str | int] = ()
    audio: Example | Sequence[Example] = ()
    image: Any = ()
    embedding: Tensor | np.ndarray | str | Path | None = None
    negative: Query | Plain | Sequence[Query | Plain] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    subclasses: bool = False
    as_one: bool = False
    parts: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        forms = self.forms()
        values = [(form, value) for form, values in forms.items() for value in values]
        if not values or any(isinstance(value, str) and not value.strip() for _, value in values):
            raise ValueError(EMPTY)
        for form, value in values:
            if not is_taken(form, value):
                raise ValueError(f"The {form} of a query takes {TAKEN[form]}, not {type(value).__name__}.")
        if not all(map(has_word, forms.get("text", ()))):
            raise ValueError(WORDLESS)
        if not isinstance(self.weights, Mapping):
            kind = type(self.weights).__name__
            raise ValueError(f'The weights of a query are numbers by form, such as {{"audio": 2}}, not {kind}.')
        for name, weight in self.weights.items():
            if name not in forms:
                raise ValueError(f"weights names {name}, but the query has only {', '.join(forms)}.")
            if not isinstance(weight, Real) or not 0 < weight < math.inf:
                raise ValueError(f"The weight of {name} must be a positive number, not {weight!r}.")

    @classmethod
    def parse(cls, value: Query | Plain, encoder: QueryEncoder) -> Query:
        """Convert a query of any kind; texts become labels if the encoder takes labels and no texts.

        Raises:
            ValueError: if it is empty or of another type.
        """
        labels_only = "label" in encoder.modalities and "text" not in encoder.modalities
        if isinstance(value, Query):
            forms = value.forms()
            if not labels_only or "text" not in forms:
                return value
            weights = {"label" if name == "text" else name: weight for name, weight in value.weights.items()}
            return replace(value, text=(), label=[*forms.get("label", ()), *forms["text"]], weights=weights)
        if getattr(value, "shape", ()):
            return cls(embedding=value)  # type: ignore[arg-type]
        if not is_taken("label", value):
            hint = "; a recording is Query(audio=...)" if isinstance(value, Path) else ""
            kind = type(value).__name__
            raise ValueError(f"A query is a text, a class number, an embedding or a Query, not {kind}{hint}.")
        if isinstance(value, str):
            return cls(label=value) if labels_only else cls(value)
        return cls(label=int(value))

    def forms(self) -> dict[str, list[Any]]:
        """Return the values of each form that is given, in the order of `FORMS`."""
        found = {name: as_list(getattr(self, name)) for name in FORMS}
        return {name: values for name, values in found.items() if values}

    def negatives(self) -> list[Query | Plain]:
        """Return the queries that must not be in the result."""
        return as_list(self.negative)

    @property
    def name(self) -> str:
        """Short name: the text, the class or the name of the file; "... without ..." if there are negatives."""
        names = [value_name(form, value) for form, values in self.forms().items() for value in values]
        without = map(query_name, self.negatives())
        return " without ".join(" and ".join(part) for part in (names, list(without)) if part)

    def __repr__(self) -> str:
        others = {"negative": self.negatives(), "weights": self.weights, "subclasses": self.subclasses}
        others |= {"as_one": self.as_one}
        given = [*self.forms(), *(name for name, value in others.items() if value)]
        return f"Query({', '.join(f'{name}={show(getattr(self, name))}' for name in given)})"

    def encode(self, encoder: QueryEncoder, dim: int, extract: Extract | None = None) -> Tensor:
        """Compute the condition (1, dim), on the CPU and without the negatives.

        Args:
            encoder: of the model.
            dim: length of the model's conditions.
            extract: separates an example recording by a condition, see `QueryEncoder.encode_examples`.

        Raises:
            ValueError: if an embedding or a recording is not valid.
            ModelError: if the encoder does not take such queries, or something that it needs is missing.
            OntologyError: if a class is unknown.
        """
        import torch

        vectors = []
        for form, values in self.forms().items():
            if form == "text":
                encode = encoder.encode_text if self.as_one else encoder.encode_query
                vector = encode([" ".join(str(text).split()) for text in values])
                vector = vector if len(values) == 1 else encoder.mean(vector)
            elif form == "label":
                if self.subclasses:
                    from separation.vocabulary.ontology import subtree

                    values = list(dict.fromkeys(index for value in values for index in subtree(value)))
                vector = encoder.encode_label([values[0] if len(values) == 1 else values])
            elif form == "audio":
                vector = encoder.encode_examples(values, extract)
            elif form == "image":
                vector = encoder.encode_image([values[0] if len(values) == 1 else values])
            else:
                vector = load_embedding(values[0], dim)
            vectors.append(vector.cpu())
        if len(vectors) == 1:
            return vectors[0]
        weights = torch.tensor([float(self.weights.get(form, 1.0)) for form in self.forms()])
        return encoder.mean(torch.cat(vectors), weights)


def encode_queries(queries: Sequence[Query], encoder: QueryEncoder, dim: int, extract: Extract | None = None) -> Tensor:
    """Compute the conditions (queries, dim) of queries without their negatives; plain texts are encoded together.

    Raises:
        ValueError, ModelError, OntologyError: as `Query.encode`; ValueError also if there is no query.
    """
    import torch

    if not queries:
        raise ValueError(EMPTY)
    simple = [query for query in queries if list(query.forms()) == ["text"] and not query.as_one]
    texts = [query.text for query in simple if isinstance(query.text, str)]
    if len(texts) == len(queries) and "text" in encoder.modalities:
        return encoder.encode_query([" ".join(text.split()) for text in texts])
    return torch.cat([query.encode(encoder, dim, extract) for query in queries])


def load_embedding(value: Tensor | np.ndarray | str | Path, dim: int) -> Tensor:
    """Convert a condition vector (dim,) or (1, dim), or the only array of a .npy or .safetensors file, to (1, dim).

    Nothing is unpickled.

    Raises:
        ValueError: if the vector has another size or holds NaN or infinite numbers.
        ModelError: if the file cannot be read, or holds something else.
    """
    import numpy as np
    import torch

    if isinstance(value, str | Path) and Path(value).suffix == ".safetensors":
        from separation.storage.tensors import read_tensors

        arrays = read_tensors(Path(value))
        if len(arrays) != 1:
            names = ", ".join(sorted(arrays)[:4])
            raise ModelError(f"{value} contains {len(arrays)} arrays ({names}) instead of one embedding.")
        [value] = arrays.values()
    elif isinstance(value, str | Path):
        try:
            array = np.load(value, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            array = None
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
            raise ModelError(f"{value} is not a .npy file with an array of numbers.")
        value = array.astype(np.float32)
    try:
        vector = torch.as_tensor(value, device="cpu").detach().float()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"An embedding is an array of numbers, which this {type(value).__name__} is not.") from None
    if vector.shape not in ((dim,), (1, dim)):
        raise ValueError(f"An embedding for this model has {dim} numbers, not shape {tuple(vector.shape)}.")
    if not torch.isfinite(vector).all():
        raise ValueError("The embedding contains NaN or infinite numbers.")
    return vector.reshape(1, dim)


def is_taken(form: str, value: Any) -> bool:
    """Whether a form of query takes values of this type."""
    if form in ("text", "label"):
        return isinstance(value, str if form == "text" else str | Integral) and not isinstance(value, bool)
    if isinstance(value, str | Path) or form == "image":
        return True
    return isinstance(value, tuple) and len(value) == 2 if form == "audio" else hasattr(value, "shape")


def has_word(text: str) -> bool:
    """Whether a text contains a letter or digit of any script."""
    return any(map(str.isalnum, text))


def find_excluded(asked: Iterable[str], excluded: Sequence[str]) -> list[str]:
    """Return which of the excluded texts are asked for as well, whatever their case."""
    wanted = {text.casefold() for text in asked}
    return [text for text in excluded if text.casefold() in wanted]


def as_list(value: Any) -> list[Any]:
    """Return one or more values as a list; a waveform with its sample rate is one value."""
    if value is None:
        return []
    if isinstance(value, tuple) and len(value) == 2 and hasattr(value[0], "shape"):
        return [value]
    return list(value) if isinstance(value, list | tuple) else [value]


def show(value: Any) -> str:
    """Return the repr of a value of a query; of an array only the type and shape."""
    if hasattr(value, "shape"):
        return f"<{type(value).__name__} {tuple(value.shape)}>"
    return f"[{', '.join(map(show, value))}]" if isinstance(value, list | tuple) else repr(value)


def query_name(query: Query | Plain) -> str:
    """Short name of a query of any kind, see `Query.name`."""
    return query.name if isinstance(query, Query) else value_name("text", query)


def value_name(form: str, value: Any) -> str:
    """Short name of one value of a query. AudioSet ids are looked up; the meaning of numbers depends on the model."""
    if isinstance(value, Path) or (isinstance(value, str) and form in ("audio", "image", "embedding")):
        path = Path(value).absolute()
        return path.name if form == "audio" and path.is_dir() else path.stem
    if not isinstance(value, str | int):
        return {"audio": "example", "image": "picture"}.get(form, "embedding")
    text = " ".join(str(value).split())
    if form == "label" and text.isdecimal():
        return f"class {text}"
    if form == "label" and text.startswith(("/m/", "/t/")):
        from separation.vocabulary.ontology import OntologyError, class_index, classes

        try:
            return classes()[class_index(text)].name
        except OntologyError:
            return text
    return text
