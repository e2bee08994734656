"""`Separator`, the one class that users hold: mixture and query in, target and residual out.

Segments begin at whole seconds of the recording. A segment is brought to the model's rate, separated and brought back;
each sample of the result comes from a segment that sees more than the model's context on either side, so a file of any
length gives what one pass over the whole would give, in constant memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor

from separation.audio import AudioError, Reader, resample
from separation.audio.waveform import as_rate, as_waveform
from separation.conditions import as_query, conditions
from separation.encoders.base import QueryEncoder
from separation.level import Level, energy
from separation.listing import LIKELY, Heard, Listener, ListingRule, heard
from separation.models.base import ConditionedModel, NegativeFilter
from separation.overlap_add import OverlapAdd
from separation.presence import PresenceRule, energy_ratio_db
from separation.pretrained import ModelError, find_model, load_model, load_settings
from separation.query import EMPTY, Query

if TYPE_CHECKING:
    from separation.query import Plain

SEGMENT_SECONDS = ConditionedModel.segment_seconds
RESAMPLER_SECONDS = 0.25  # more than the resampling filters reach

Watch = Callable[[Iterable[Tensor], str, int | None], Iterable[Tensor]]
"""Passes on the blocks of one pass over a file, to show progress or to stop: (blocks, stage, samples per channel)."""

__all__ = ["FileSeparation", "ModelError", "Query", "Separation", "Separator", "Stream", "Watch"]


@dataclass(frozen=True)
class Separation:
    """What came out: waveforms (channels, time) float32 with target + residual == mixture.

    presence: probability that the query sounds in the mixture at all, 0 to 1; NaN where the model does not say.
    """

    target: Tensor
    residual: Tensor
    sample_rate: int
    presence: float


def choose_device(name: str | torch.device | None) -> torch.device:
    """`auto` or nothing: CUDA, then Apple's MPS, then the CPU."""
    if isinstance(name, torch.device):
        return name
    if name not in (None, "auto"):
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


class Stream:
    """Separates a recording as it comes in, block by block. Made by `Separator.stream`.

    Every block pushed gives those target samples that have become final; all together they are as many as went in.
    """

    def __init__(
        self,
        model: ConditionedModel,
        conditions: Tensor,
        sample_rate: int,
        level: float,
        rule: PresenceRule | None = None,
        segment_seconds: int | None = None,
    ) -> None:
        self.model, self.conditions, self.sample_rate = model, conditions, sample_rate
        self.level = 1.0 if model.faithful else level / model.input_level
        self.rule = rule or PresenceRule()
        self.logits = torch.full((len(conditions),), -torch.inf)
        self.mixture_energy, self.target_energy = 0.0, torch.zeros(len(conditions), dtype=torch.float64)
        margin = model.context / model.sample_rate + RESAMPLER_SECONDS
        overlap = 2 * int(np.ceil(margin))  # whole seconds lie on the grid of both rates
        segment = max(segment_seconds or model.segment_seconds, 2 * overlap)
        segment += -(segment - overlap) % model.grid_seconds
        self.fade = int((overlap - 2 * margin) * sample_rate)
        self.runner = OverlapAdd(self._segment, segment * sample_rate, overlap * sample_rate, self.fade)
        if model.faithful:
            self.runner = OverlapAdd(self._segment, sys.maxsize, 0)  # published inference sees the whole at once

    def push(self, block: Tensor) -> Tensor:
        """Adds (channels, n); returns (queries, channels, m)."""
        self.mixture_energy += float(energy(block))
        return self._joined(self.runner.push(block), block.shape[0])

    def flush(self) -> Tensor:
        """The remaining (queries, channels, m)."""
        return self._joined(self.runner.flush(), 1)

    def separate(self, blocks: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Separate a whole recording that is given in blocks (channels, n).

        Yields:
            For each block, and once at the end, the samples whose target has become final: mixture (channels, m) and
            targets (queries, channels, m) on the CPU; m may be 0.
        """
        held: list[Tensor] = []
        for block in chain(blocks, [None]):
            if block is not None:
                held.append(block)
            targets = (self.flush() if block is None else self.push(block)).detach().cpu()
            if held:
                mixture, count = torch.cat(held, dim=-1), targets.shape[-1]
                held = [mixture[:, count:]]
                yield mixture[:, :count], targets

    @property
    def presence(self) -> list[float]:
        """Probability per query that it sounds in what has been processed so far; NaN where the model does not say."""
        if not self.model.estimates_presence:
            return [float("nan")] * len(self.conditions)
        ratios = [energy_ratio_db(float(taken), self.mixture_energy) for taken in self.target_energy]
        return [self.rule(logit, ratio) for logit, ratio in zip(self.logits.tolist(), ratios, strict=True)]

    def _joined(self, pieces: Sequence[Tensor], channels: int) -> Tensor:
        nothing = torch.zeros(len(self.conditions), channels, 0)
        targets = pieces[0] if len(pieces) == 1 else torch.cat([nothing, *pieces], dim=-1)
        self.target_energy += torch.stack([energy(target) for target in targets])
        return targets

    @torch.no_grad()
    def _segment(self, mixture: Tensor) -> Tensor:
        """(channels, n) at the recording's rate -> targets (queries, channels, n)."""
        queries, length = len(self.conditions), mixture.shape[-1]
        if self.level == 0 or length == 0:
            return torch.zeros(queries, *mixture.shape)
        at_model_rate = resample(mixture / self.level, self.sample_rate, self.model.sample_rate)
        device = self.conditions.device
        targets, logits = self.model.separate(at_model_rate[None].to(device), self.conditions[None])
        self.logits = torch.maximum(self.logits, logits[0].float().amax(-1).cpu())
        result = torch.zeros(queries, *mixture.shape)
        # Target by target: the resampler, which knows one thread only, needs no more memory than a few of them.
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for back, place in zip(pool.map(self._at_own_rate, targets[0]), result, strict=True):
                torch.mul(back[:, :length], self.level, out=place[:, : back.shape[-1]])
        return result

    def _at_own_rate(self, target: Tensor) -> Tensor:
        """(channels, time) at the model's rate, on its device -> the same at the recording's rate, in memory."""
        return resample(target.float().cpu(), self.model.sample_rate, self.sample_rate)


class FileSeparation:
    """Separates a file of any length in constant memory. Made by `Separator.separate_file`.

    Iterate once: every item is a mixture (channels, n) and its targets (queries, channels, n) on the CPU, in order and
    without gaps. The residual of a target is mixture - target.

    Attributes:
        frames: samples per channel.
        level: of the recording, see `Level`.
    """

    def __init__(self, stream: Stream, reader: Reader, frames: int, level: float, watch: Watch) -> None:
        self.stream, self.reader, self.frames, self.level, self.watch = stream, reader, frames, level, watch

    @property
    def presence(self) -> list[float]:
        """Probability per query that it sounds in what has been processed so far; NaN where the model does not say."""
        return list(self.stream.presence)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the file for the second time.

        Raises:
            AudioError: the file cannot be read any more, or has another length than at the first time.
        """
        done = 0
        for mixture, targets in self.stream.separate(self._blocks()):
            if mixture.shape[-1] != targets.shape[-1]:
                raise RuntimeError(f"the separator returned {targets.shape[-1]} samples for {mixture.shape[-1]}")
            done += mixture.shape[-1]
            yield mixture, targets
        if done != self.frames:
            raise RuntimeError(f"the separator returned {done} samples for {self.frames}")

    def _blocks(self) -> Iterator[Tensor]:
        read = 0
        for block in self.watch(self.reader.blocks(), "separating", self.frames):
            read += block.shape[-1]
            yield block
        if read != self.frames:
            raise AudioError(f"{self.reader.path} changed while it was being read.")


def pass_on(blocks: Iterable[Tensor], stage: str, frames: int | None) -> Iterable[Tensor]:
    """The `Watch` that shows nothing."""
    return blocks


class Separator:
    """Takes out of a recording what a query names.

        separator = Separator.from_pretrained()
        result = separator(mixture, "dog barking", sample_rate=44100)
        result.target, result.residual

    Args:
        model: the network.
        encoder: turns queries into the network's conditions.
        name: shown to people.
        device: where to compute; `auto` when not given.
        rule: how presence is told.
        listing: what is listened for by `hear`, and how its probability is told.
    """

    def __init__(
        self,
        model: ConditionedModel,
        encoder: QueryEncoder,
        name: str = "",
        device: str | torch.device | None = None,
        rule: PresenceRule | None = None,
        listing: ListingRule | None = None,
    ) -> None:
        self.device, self.rule, self.listing = choose_device(device), rule or PresenceRule(), listing or ListingRule()
        self.model, self.encoder, self.name = model.to(self.device).eval(), encoder.eval(), name
        self.sample_rate = model.sample_rate

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "default",
        device: str | torch.device | None = None,
        faithful: bool = False,
        offline: bool | None = None,
    ) -> Separator:
        """A model by its name (`separation.list_models()`), its directory, a released checkpoint file, or a training's
        run folder or checkpoint.

        Args:
            name: which one.
            device: where to compute.
            faithful: reproduce a released system's published inference (its segments, levels and masks), channel by
                channel and on the whole recording at once, instead of this package's.
            offline: never use the network; by default the environment decides.

        Raises:
            ModelError: it is unknown, cannot be fetched, or its files are not usable.
        """
        path = find_model(str(name), offline)
        model, encoder = load_model(path)
        if faithful and not model.has_published_inference:
            raise ModelError(f"{name} was published with this package's own inference; leave faithful out.")
        model.faithful = model.faithful or faithful
        rule, listing = load_settings(path, "presence", PresenceRule), load_settings(path, "listing", ListingRule)
        return cls(model, encoder, path.name if path.is_dir() else path.stem, device, rule, listing)

    @overload
    def __call__(self, mixture: Tensor | np.ndarray, query: Query | Plain, sample_rate: int) -> Separation: ...
    @overload
    def __call__(
        self, mixture: Tensor | np.ndarray, query: list[Query | Plain], sample_rate: int
    ) -> list[Separation]: ...
    def __call__(
        self, mixture: Tensor | np.ndarray, query: Query | Plain | list[Query | Plain], sample_rate: int
    ) -> Separation | list[Separation]:
        """Separates one recording.

        Args:
            mixture: (time,) or (channels, time), floats in [-1, 1] or integers of any type.
            query: what to take out: a text (or a class's name, for models that know classes only), a class number, an
                embedding (dim,), or a `Query` of any form; a list gives a list of results in its order, sharing work.
            sample_rate: of the mixture, Hz.

        Raises:
            ValueError: the mixture, the rate or a query is not usable.
            ModelError: the model takes no such query, or what encodes it is missing.
        """
        single = not isinstance(query, list | tuple)
        queries: list[Query | Plain] = [query] if single else list(query)  # type: ignore[list-item, arg-type]
        wave, sample_rate = as_waveform(mixture), as_rate(sample_rate)
        level = self.level([wave])
        stream = self.stream(queries, sample_rate, wave.shape[0], level)
        if wave.shape[-1]:
            blocks = wave.split(SEGMENT_SECONDS * sample_rate, dim=-1)  # a stream copies what it has not used yet
            pieces = [*map(stream.push, blocks), stream.flush()]
        else:
            pieces = [torch.zeros(len(queries), *wave.shape)]
        targets = [torch.cat(of_query, dim=-1) for of_query in zip(*pieces, strict=True)]
        results = [
            Separation(target, wave - target, sample_rate, presence)
            for target, presence in zip(targets, stream.presence, strict=True)
        ]
        return results[0] if single else results

    def level(self, blocks: Iterable[Tensor]) -> float:
        """The recording's level: a first, cheap pass over its blocks (channels, n). See `Level`."""
        meter = Level()
        for block in blocks:
            meter.push(block)
        return meter.value

    def measure(self, reader: Reader, watch: Watch = pass_on) -> tuple[int, float]:
        """Read a file for the first time: (samples per channel, level).

        Raises:
            AudioError: it cannot be read.
        """
        frames = 0

        def blocks() -> Iterator[Tensor]:
            nonlocal frames
            for block in watch(reader.blocks(), "measuring", reader.frames):
                frames += block.shape[-1]
                yield block

        level = float(self.level(blocks()))
        return frames, level

    def separate_file(self, reader: Reader, queries: Sequence[Query | Plain], watch: Watch = pass_on) -> FileSeparation:
        """Separate a file of any length block by block; what the command, the page and every batch use.

            file = separator.separate_file(Reader("mix.wav"), ["dog barking"])
            for mixture, targets in file:
                target.write(targets[0])
                residual.write(mixture - targets[0])

        The file is read twice: here for its level and length, then while the result is iterated over.

        Args:
            reader: the file.
            queries: what to take out, as in `__call__`; at least one.
            watch: passes on the blocks of both passes; its stages are "measuring" and "separating".

        Raises:
            AudioError: the file cannot be read.
            ValueError: a query is empty.
            ModelError: the model takes no such query, or what encodes it is missing.
        """
        frames, level = self.measure(reader, watch)
        stream = self.stream(queries, reader.sample_rate, reader.channels, level)
        return FileSeparation(stream, reader, frames, level, watch)

    def stream(self, queries: Sequence[Query | Plain], sample_rate: int, channels: int, level: float) -> Stream:
        """A run over one recording of known level, to be fed block by block.

        Raises:
            ValueError: a query is empty, or the rate is not a positive whole number.
        """
        sample_rate = as_rate(sample_rate)
        if channels < 1:
            raise ValueError("The recording has no channels.")
        conditions = self.conditions(queries)
        return Stream(self.runner(queries), conditions, sample_rate, level, self.rule)

    def hear(
        self, mixture: Tensor | np.ndarray, sample_rate: int, at_least: float = LIKELY, most: int | None = None
    ) -> list[Heard]:
        """Lists what probably sounds in a recording, of all known sounds (`listing`), the surest first.

        Args:
            mixture: (time,) or (channels, time), as for separating.
            sample_rate: of the mixture, Hz.
            at_least: probability from which a sound is listed.
            most: sounds at most.

        Raises:
            ValueError: the mixture or the rate is not usable.
            ModelError: the model cannot tell.
        """
        wave, sample_rate = as_waveform(mixture), as_rate(sample_rate)
        listener = self.listener(sample_rate, self.level([wave]))
        for block in wave.split(SEGMENT_SECONDS * sample_rate, dim=-1):
            listener.push(block)
        return self.heard(listener, at_least, most)

    def listener(self, sample_rate: int, level: float) -> Listener:
        """What hears one recording of known level, to be fed block by block; `heard` then says what it heard.

        Raises:
            ModelError: the model cannot tell.
        """
        if not self.model.lists_sounds:
            raise ModelError(f"The model {self.name} cannot list what sounds in a recording.")
        return Listener(self.model, self.known.to(self.device), as_rate(sample_rate), level)

    def heard(self, listener: Listener, at_least: float = LIKELY, most: int | None = None) -> list[Heard]:
        """What a listener has heard when everything was pushed; see `hear`."""
        return heard(listener.flush(), self.known, self.listing, at_least, most)

    @cached_property
    def known(self) -> Tensor:
        """Conditions (sounds, dim) of what is listened for, encoded once; on the CPU."""
        return self.conditions(list(self.listing.sounds)).cpu()

    @torch.inference_mode()
    def conditions(self, queries: Sequence[Query | Plain]) -> Tensor:
        """Condition vectors (queries, dim) of queries of any form; their negatives do not count here.

        Raises:
            ValueError: there is none, one is empty, or an embedding has another size.
            ModelError: the model takes no such queries, or what encodes them is missing.
        """
        asked = [as_query(query, self.encoder) for query in queries]
        if not asked:
            raise ValueError(EMPTY)
        return conditions(asked, self.encoder, self.model.condition_dim).to(self.device)

    def encoded(self, query: Query | Plain) -> Query:
        """The query with an embedding in the place of what it is encoded from: for use on many recordings.

        Labels stay, because a released model's published inference asks for them in its own way.

        Raises:
            ValueError, ModelError: as in `conditions`.
        """
        asked = as_query(query, self.encoder)
        negative = [self.encoded(each) for each in asked.negatives()]
        vector = self.conditions([asked])[0]
        if list(asked.forms()) == ["label"]:
            return replace(asked, negative=negative)
        return Query(embedding=vector, negative=negative)

    def runner(self, queries: Sequence[Query | Plain]) -> ConditionedModel:
        """What separates: the network, with the published gate on classes and without negatives where asked for.

        Raises:
            ValueError, ModelError: a negative cannot be encoded, or the gate's tagger is missing.
        """
        asked = [as_query(query, self.encoder) for query in queries]
        negatives = [(number, each) for number, query in enumerate(asked) for each in query.negatives()]
        model = self._gated([*asked, *(as_query(each, self.encoder) for _, each in negatives)])
        if not negatives:
            return model
        excluded = torch.zeros(len(asked), len(negatives), dtype=torch.bool)
        for place, (number, _) in enumerate(negatives):
            excluded[number, place] = True
        return NegativeFilter(model, self.conditions([each for _, each in negatives]), excluded)

    def _gated(self, queries: Sequence[Query]) -> ConditionedModel:
        """The network, or the gate on classes with which its queries were published."""
        by_class = [list(query.forms()) == ["label"] for query in queries]
        gate: Any = getattr(self.model, "gate", None)
        if not (self.model.faithful and "label" in self.encoder.modalities and any(by_class) and gate):
            return self.model
        return gate(self.encoder, by_class)

    def __repr__(self) -> str:
        size: Any = sum(p.numel() for p in self.model.parameters()) / 1e6
        return f"Separator({self.name!r}, {size:.1f} M parameters, {self.sample_rate} Hz, on {self.device})"
