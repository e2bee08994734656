"""From a query of any form to the condition vector that a model takes, by the model's encoder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from separation.encoders.base import QueryEncoder
from separation.errors import ModelError
from separation.query import EMPTY, Query

if TYPE_CHECKING:
    from separation.query import Plain


def as_query(query: Query | Plain, encoder: QueryEncoder) -> Query:
    """A query of any kind as a `Query`; a string is a label where the encoder takes labels and no texts.

    Raises:
        ValueError: it is empty or of another type.
    """
    if isinstance(query, Query):
        return by_class(query) if knows_classes_only(encoder) else query
    if isinstance(query, Tensor | np.ndarray):
        return Query(embedding=query)
    if isinstance(query, bool) or not isinstance(query, str | int | np.integer) or not str(query).strip():
        raise ValueError(EMPTY)
    if isinstance(query, str) and not knows_classes_only(encoder):
        return Query(query)
    return Query(label=query if isinstance(query, str) else int(query))


def knows_classes_only(encoder: QueryEncoder) -> bool:
    """Whether words can only be the names of classes."""
    return "label" in encoder.modalities and "text" not in encoder.modalities


def by_class(query: Query) -> Query:
    """The query with its texts as names of classes."""
    forms = query.forms()
    if "text" not in forms:
        return query
    weights = {"label" if name == "text" else name: weight for name, weight in query.weights.items()}
    return replace(query, text=(), label=[*forms.get("label", ()), *forms["text"]], weights=weights)


def condition(query: Query, encoder: QueryEncoder, dim: int) -> Tensor:
    """The condition (1, dim) of a query, without its negatives.

    Args:
        query: in any form.
        encoder: of the model.
        dim: numbers of the model's conditions.

    Raises:
        ValueError: an embedding has another size, or a recording is none.
        ModelError: the encoder takes no such queries, or what it needs is missing.
        OntologyError: a class is unknown.
    """
    vectors = {form: vector(form, values, query, encoder, dim).cpu() for form, values in query.forms().items()}
    if len(vectors) == 1:
        return next(iter(vectors.values()))
    weights = torch.tensor([float(query.weights.get(form, 1.0)) for form in vectors])
    return encoder.mean(torch.cat(list(vectors.values())), weights)


def vector(form: str, values: list[Any], query: Query, encoder: QueryEncoder, dim: int) -> Tensor:
    """The values of one form to their condition (1, dim)."""
    if form == "embedding":
        return embedding(values[0], dim)
    if form == "label":
        return encoder.encode_label([alone(labels(values, query.subclasses))])
    if form == "audio":
        return encoder.encode_examples(values)
    if form == "image":
        return encoder.encode_image([alone(values)])
    encoded = encoder.encode_text([" ".join(str(text).split()) for text in values])
    return encoded if len(values) == 1 else encoder.mean(encoded)


def alone(values: list[Any]) -> Any:
    """The only value of a list, or the list."""
    return values[0] if len(values) == 1 else values


def labels(values: list[Any], subclasses: bool) -> list[Any]:
    """Labels, with the AudioSet classes below them where those are meant too."""
    if not subclasses:
        return values
    from separation.ontology import subtree

    return list(dict.fromkeys(index for value in values for index in subtree(value)))


def embedding(value: Tensor | np.ndarray | str | Path, dim: int) -> Tensor:
    """A condition vector (dim,) or (1, dim), given or in a file, as (1, dim).

    Raises:
        ValueError: it has another size.
        ModelError: the file holds no vector.
    """
    given = read_embedding(value) if isinstance(value, str | Path) else torch.as_tensor(value)
    found = given.detach().float().cpu()
    if found.shape not in ((dim,), (1, dim)):
        raise ValueError(f"An embedding for this model has {dim} numbers, not shape {tuple(found.shape)}.")
    if not torch.isfinite(found).all():
        raise ValueError("The embedding holds NaN or infinite numbers.")
    return found.reshape(1, dim)


def read_embedding(path: str | Path) -> Tensor:
    """The one array of a .npy or .safetensors file; nothing is unpickled.

    Raises:
        ModelError: it cannot be read, or holds other things.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        from separation.tensors import read_tensors

        found = read_tensors(path)
        if len(found) != 1:
            raise ModelError(f"{path} holds {len(found)} arrays ({', '.join(sorted(found)[:4])}), not one embedding.")
        return next(iter(found.values()))
    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
            raise ValueError("no array of numbers")
        return torch.from_numpy(array.astype(np.float32))
    except (OSError, ValueError, EOFError):
        raise ModelError(f"{path} is no .npy file with an array of numbers.") from None


def conditions(queries: Iterable[Query], encoder: QueryEncoder, dim: int) -> Tensor:
    """Conditions (queries, dim); plain texts are encoded together."""
    queries = list(queries)
    texts = [query.text for query in queries if isinstance(query.text, str) and list(query.forms()) == ["text"]]
    if len(texts) == len(queries) and "text" in encoder.modalities:
        return encoder.encode_text([" ".join(text.split()) for text in texts])
    return torch.cat([condition(query, encoder, dim) for query in queries])
