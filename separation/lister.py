"""The part of a `Separator` that finds sounds, when they occur, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from separation.audio import as_rate, as_waveform
from separation.errors import ModelError
from separation.inference.changes import Span
from separation.inference.direction import LOCATED_SECONDS, Array, locate_spans
from separation.listing import LIST_THRESHOLD, DetectedSound, Detector, ListingRule, select_sounds
from separation.models.base import ConditionedModel
from separation.presence import PresenceRule
from separation.query import Query
from separation.storage.tensors import own_defaults, read_tensors
from separation.vocabulary.sounds import Sound

if TYPE_CHECKING:
    from separation.inference.changes import Times
    from separation.inference.stream import Stream
    from separation.query import Plain


class Lister:
    """The part of a `Separator` that finds sounds; `Array` says how directions are asked for."""

    model: ConditionedModel
    name: str
    device: torch.device
    rule: PresenceRule
    listing: ListingRule
    stored_sounds: Path | None
    stream: Callable[..., Stream]  # methods of `Separator`
    conditions: Callable[..., Tensor]
    understand: Callable[..., Query]
    level: Callable[..., float]

    @own_defaults()
    def list_sounds(
        self,
        mixture: Tensor | np.ndarray,
        sample_rate: int,
        at_least: float = LIST_THRESHOLD,
        most: int | None = None,
        *,
        span: Times = None,
        array: Array | Any = None,
    ) -> list[DetectedSound]:
        """List the sounds that probably occur in a recording and when, the most certain entries first.

        A query for a listed sound gives the same probability. Near-synonyms are listed once.

        Args:
            mixture: (time,) or (channels, time), as in `__call__`.
            sample_rate: of the mixture, Hz.
            at_least: least probability of a correct entry, 0 to 1: larger values give shorter lists.
            most: largest number of sounds.
            span: as in `__call__`; the rest of the recording is ignored.
            array: what the channels are, see `direction.Array.parse`: then directions are given, see `locate_sounds`.

        Raises:
            ValueError: if the mixture, the rate, the span or the array is not valid.
            ModelError: if the model cannot list sounds.
        """
        blocks, rate, level = self._blocks(mixture, sample_rate)
        sounds = self.list_sounds_in_blocks(blocks, rate, level, at_least, most, span=span)
        return sounds if array is None else self.locate_sounds(sounds, blocks, rate, level, array)

    hear = list_sounds  # the earlier name

    @own_defaults()
    def list_sounds_in_blocks(
        self,
        blocks: Iterable[Tensor],
        sample_rate: int,
        level: float,
        at_least: float = LIST_THRESHOLD,
        most: int | None = None,
        *,
        span: Times = None,
    ) -> list[DetectedSound]:
        """List the sounds of a recording of known level that is given in blocks (channels, n), see `list_sounds`.

        Raises:
            ValueError: if `most` is not a number of sounds.
            ModelError: if the model cannot list sounds.
        """
        if most is not None and (most < 0 or most != int(most)):
            raise ValueError(f"The largest number of sounds must be a whole number from 0 on, not {most}.")
        parsed = Span.parse(span)
        blocks = blocks if parsed is None else parsed.cut(blocks, as_rate(sample_rate))
        found = self.detect(blocks, as_rate(sample_rate), level, self.listing_conditions, len(self.listing.sounds))
        sounds = select_sounds(found, self.listed_sounds, self.listing, at_least, most)
        if parsed is None:
            return sounds
        later = round(parsed.begin, 3)
        return [replace(each, times=tuple((a + later, b + later) for a, b in each.times)) for each in sounds]

    @own_defaults()
    @torch.inference_mode()
    def locate_sounds(
        self,
        sounds: Sequence[DetectedSound],
        blocks: Iterable[Tensor],
        sample_rate: int,
        level: float,
        array: Array | Any = "stereo",
        seconds: float = LOCATED_SECONDS,
    ) -> list[DetectedSound]:
        """Separate listed sounds in their spans and return them with their directions.

        Args:
            sounds: of `list_sounds`.
            blocks: the recording in blocks (channels, n), as it was given to `list_sounds_in_blocks`, without a span.
            sample_rate: of the recording, Hz.
            level: of the recording, see `level`.
            array: what the channels are, see `direction.Array.parse`.
            seconds: of each sound that are separated, its longest spans first.

        Raises:
            ValueError: if the array is not valid or has another number of channels.
        """
        names, chosen = [sound.name for sound in self.listed_sounds], Array.parse(array)
        known = dict(zip(names, self.listing_conditions, strict=True))
        queries = [Query(embedding=known[s.label]) if s.label in known else s.label for s in sounds]

        def separate(numbers: list[int], wave: Tensor) -> Tensor:
            """Targets (sounds, channels, n) of a part (channels, n) of the recording."""
            stream = self.stream([queries[number] for number in numbers], sample_rate, len(wave), level)
            return torch.cat([targets for _, targets in stream.separate([wave])], dim=-1)

        spans = [sound.times for sound in sounds]
        located = locate_spans(spans, blocks, sample_rate, chosen, separate, seconds)
        return [replace(s, direction=whole, directions=each) for s, (whole, each) in zip(sounds, located, strict=True)]

    @own_defaults()
    def when(
        self, mixture: Tensor | np.ndarray, query: Query | Plain, sample_rate: int
    ) -> tuple[tuple[float, float], ...]:
        """Find the spans (from, to), in seconds, in which a query occurs in a recording; none if it does not.

        Args:
            mixture: as in `__call__`.
            query: as in `__call__`; negatives are ignored. Of a sentence, spans in which any of its sounds occurs.
            sample_rate: of the mixture, Hz.

        Raises:
            ValueError, ModelError: as `__call__`.
        """
        [spans] = self.when_in_blocks(*self._blocks(mixture, sample_rate), [query])
        return spans

    @own_defaults()
    def when_in_blocks(
        self, blocks: Iterable[Tensor], sample_rate: int, level: float, queries: Sequence[Query | Plain]
    ) -> list[tuple[tuple[float, float], ...]]:
        """Find the spans of each query in a recording of known level that is given in blocks (channels, n), see `when`.

        Raises:
            ValueError, ModelError: as `when`.
        """
        parts = [[*self.understand(query).parts.values()] or [self.conditions([query])[0]] for query in queries]
        owners = [number for number, each in enumerate(parts) for _ in each]
        conditions = torch.stack([condition.cpu() for each in parts for condition in each])
        found = self.detect(blocks, sample_rate, level, conditions)
        joined: list[list[tuple[float, float]]] = [[] for _ in queries]
        for begin, end, owner in sorted((*span, owner) for n, owner in enumerate(owners) for span in found.spans(n)):
            spans = joined[owner]
            if spans and begin <= spans[-1][1]:
                begin, end = spans[-1][0], max(end, spans.pop()[1])
            spans.append((begin, end))
        return [tuple(spans) for spans in joined]

    @own_defaults()
    def detect(
        self, blocks: Iterable[Tensor], sample_rate: int, level: float, conditions: Tensor, labels: int | None = None
    ) -> Detector:
        """Detect conditions (queries, dim) in a recording of known level that is given in blocks (channels, n).

        Raises:
            ModelError: if the model only separates.
        """
        if not self.model.lists_sounds:
            raise ModelError(f"The model {self.name} cannot list the sounds in a recording.")
        return Detector(self.model, conditions.to(self.device), self.rule, labels).run(blocks, sample_rate, level)

    def _blocks(self, mixture: Tensor | np.ndarray, sample_rate: int) -> tuple[Iterable[Tensor], int, float]:
        """A recording in blocks, its rate and its level."""
        wave, sample_rate = as_waveform(mixture), as_rate(sample_rate)
        return wave.split(24 * sample_rate, dim=-1), sample_rate, self.level([wave], sample_rate)

    @cached_property
    def listed_sounds(self) -> list[Sound]:
        """The sounds that `list_sounds` looks for: the labels in `listing`, then the tagger's other classes."""
        return self.listing.candidates(self.model.has_tagger)

    @cached_property
    @own_defaults()
    def listing_conditions(self) -> Tensor:
        """Conditions (sounds, dim) of `listed_sounds`, on the CPU; from `sounds.safetensors` if the model has them."""
        names = [sound.name for sound in self.listed_sounds]
        stored = read_tensors(self.stored_sounds) if self.stored_sounds else {}
        new = [name for name in names if name not in stored]
        found = stored | (dict(zip(new, self.conditions(new).cpu(), strict=True)) if new else {})
        return torch.stack([found[name] for name in names])
