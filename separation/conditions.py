"""The part of a `Separator` that understands queries: query to condition vectors, and hints about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from separation.encoders.base import QueryEncoder
from separation.encoders.joint import JointEncoder
from separation.errors import NotFiniteError
from separation.inference.sentences import split_sentence
from separation.inference.suggestions import Hint, suggest
from separation.query import Query, encode_queries
from separation.storage.tensors import own_defaults

if TYPE_CHECKING:
    from separation.listing import ListingRule
    from separation.models.base import ConditionedModel
    from separation.query import Plain


class Conditioner:
    """The part of a `Separator` that turns queries into conditions."""

    model: ConditionedModel
    encoder: QueryEncoder
    device: torch.device
    listing: ListingRule
    __call__: Callable[..., Any]  # of `Separator`

    @own_defaults()
    @torch.inference_mode()
    def understand(self, query: Query | Plain) -> Query:
        """Return a query with the sounds that its text names in `Query.parts`, if these are several.

        Only models of this package with a joint encoder understand sentences; see `separation.inference.sentences`.

        Raises:
            ValueError: if the query is empty.
        """
        parsed = Query.parse(query, self.encoder)
        if parsed.as_one or parsed.parts or not isinstance(self.encoder, JointEncoder):
            return parsed
        if list(parsed.forms()) != ["text"] or not isinstance(parsed.text, str):
            return parsed
        return replace(parsed, parts=split_sentence(" ".join(parsed.text.split()), self.encoder, self.listing.sounds))

    @own_defaults()
    @torch.inference_mode()
    def conditions(self, queries: Sequence[Query | Plain]) -> Tensor:
        """Encode queries of any form to conditions (queries, dim), without their negatives.

        Raises:
            ValueError: if there is none, one is empty, or an embedding has another size.
            ModelError: if the model does not take such queries, or something that encodes them is missing.
        """
        if isinstance(queries, str):
            raise ValueError("The queries must be a list, not one text.")
        parsed = [Query.parse(query, self.encoder) for query in queries]

        def extract(example: Tensor, condition: Tensor) -> Tensor:
            """Separate an example recording (time,) by a condition (1, dim)."""
            return self(example, Query(embedding=condition[0]), self.encoder.sample_rate).target[0]

        encoded = encode_queries(parsed, self.encoder, self.model.condition_dim, extract).to(self.device)
        if not torch.isfinite(encoded).all():
            raise NotFiniteError("condition")
        return encoded

    @own_defaults()
    def suggest(self, query: Query | Plain) -> list[Hint]:
        """Return hints for the texts of a query, negatives included, that the model probably does not know.

        A sentence that names several sounds gets one that says which. Only models of this package with a joint encoder
        give hints. A hint changes nothing about the separation, which uses the text as typed. Raises ValueError if the
        query is empty.
        """
        if not isinstance(self.encoder, JointEncoder):
            return []
        parsed = [self.understand(query)]
        parsed += [self.understand(each) for each in parsed[0].negatives()]
        hints: list[Hint | None] = []
        for each in parsed:
            if each.parts:
                hints.append(Hint(" ".join(str(each.text).split()), 1.0, None, {}, tuple(each.parts)))
            for text in each.parts or (" ".join(text.split()) for text in each.forms().get("text", ())):
                hints.append(suggest(text, self.encoder, self.listing.sounds))
        return list({(hint.query, hint.parts): hint for hint in hints if hint is not None}.values())

    @own_defaults()
    def encode(self, query: Query | Plain) -> Query:
        """Replace the values of a query by their embedding, to use it on many recordings.

        Labels stay, because the published inference of a released model treats them in its own way.
        """
        parsed = self.understand(query)
        negative = [self.encode(each) for each in parsed.negatives()]
        vector = self.conditions([parsed])[0]
        if list(parsed.forms()) == ["label"]:
            return replace(parsed, negative=negative)
        return Query(embedding=vector, negative=negative, parts=parsed.parts)

    def _sounds(self, queries: Sequence[Query]) -> tuple[Tensor, list[int]]:
        """Conditions (sounds, dim) of queries whose sentences are understood, and the number of sounds of each."""
        each = [
            torch.stack([*query.parts.values()]).to(whole) if query.parts else whole[None]
            for query, whole in zip(queries, self.conditions(queries), strict=True)
        ]
        return torch.cat(each), list(map(len, each))
