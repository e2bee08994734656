"""Lists the sounds in a recording and when they occur, in one pass over the mixture, without separating it.

The query-independent part of the network runs once; one more sound costs next to nothing. What is kept of each segment
are maxima and the spans of frames in which a sound is probable, so an hour needs hardly more memory than a minute, and
the list does not depend on how the recording is cut into blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from separation.errors import NotFiniteError
from separation.inference.direction import Direction
from separation.inference.levels import leading_silence
from separation.inference.overlap_add import Segmenter
from separation.inference.stream import margin_seconds, network_input
from separation.models.base import ConditionedModel
from separation.presence import PresenceRule
from separation.storage.tensors import own_defaults
from separation.vocabulary.sounds import Sound, known_sounds, wordings

LIST_THRESHOLD = 0.2
"""Probability of a correct entry from which a label is listed; `benchmarks/listing.py` prints what this gives."""

LIST_PRESENCE = 0.5
"""Presence from which a sound is listed; every span reaches it."""

SAME_COSINE, CLASS_COSINE = 0.7, 0.5
"""Cosine of the conditions of two labels, and of a class without a label and what is listed, from which they count as
one."""

RIVAL_COSINE, RIVAL_OVERLAP_COSINE = 0.1, 0.3
"""Cosine of the conditions of two sounds from which the certainty of one, and its spans, count against the other."""

CONTEXT_TERMS = 6  # see `context_terms`
LEAST_CERTAINTY = -4.5  # of labels that are looked at in context
CONTEXT_RATE, CONTEXT_FRAMES = 10, 36000  # Hz, less in recordings of more than an hour, so that memory stays constant
CONTEXT_SECONDS = 5.0  # a sound that is heard for longer is not more certain
CLASS_TAG = 1.0
"""Tagger logit from which a class without a label is listed."""

TAG_FLOOR = -6.0  # of the tagger's logits; also the value of sounds without a class
SPAN_EDGE = 0.2  # a span extends as far as this probability
SHORTEST_SPAN, SHORTEST_GAP = 0.25, 0.5  # seconds
TYPICAL_RATIO_DB = -10.0  # of a sound to its mixture, for rules of presence that ask for it; nothing is separated here
SEGMENT_SECONDS = 24


@dataclass(frozen=True)
class DetectedSound:
    """A sound that probably occurs in a recording.

    Attributes:
        label: what it is; a query for it gives the same probability.
        probability: presence, 0 to 1.
        times: spans (from, to) in seconds.
        direction: where it comes from over these spans, if that was asked for.
        directions: the same of each span; None for those that were not looked at.
    """

    label: str
    probability: float
    times: tuple[tuple[float, float], ...]
    direction: Direction | None = None
    directions: tuple[Direction | None, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return label, probability and direction, and the spans twice: as pairs, and with the direction of each."""
        parts = self.directions or [None] * len(self.times)
        where = [direction and direction.as_json() for direction in (self.direction, *parts)]
        spans = [
            {"from": begin, "to": end, "direction": part}
            for (begin, end), part in zip(self.times, where[1:], strict=True)
        ]
        facts = {"label": self.label, "probability": round(self.probability, 4), "times": self.times}
        return facts | {"direction": where[0], "spans": spans}


@dataclass(frozen=True)
class ListingRule:
    """Decides which sounds are listed.

    Unlike presence, which asks whether a given sound occurs, it has to choose among all sounds, of which rare ones are
    less likely. The sigmoid of the sum of the terms is the probability of a correct entry by the sound's own evidence;
    that of the weighted `context_terms` is the one that counts, because what is heard in place of a similar sound is
    explained by it. `python -m separation.calibrate` fits both.

    Attributes:
        slope: factor of the largest presence logit.
        bias: constant.
        tag: factor of the largest logit of the tagger for the sound's classes.
        share: factor of the largest logarithm of a label's share among all labels at a time.
        context: factors of `context_terms` and a constant; empty: a sound's own evidence decides.
        sounds: labels that are looked for; with a tagger its classes without a label are looked for as well.
    """

    slope: float = 1.0
    bias: float = 0.0
    tag: float = 0.0
    share: float = 0.0
    context: tuple[float, ...] = ()
    sounds: tuple[str, ...] = field(default_factory=lambda: tuple(wordings()))

    def certainty(self, terms: Tensor) -> Tensor:
        """Convert terms of sounds (..., 3), see `listing_terms`, to logits of a correct entry (...)."""
        return terms @ torch.tensor([self.slope, self.tag, self.share]) + self.bias

    def candidates(self, tagger: bool) -> list[Sound]:
        """Return the labels, followed with a tagger by its classes without a label."""
        table = known_sounds()
        labels = [table.get(name) or Sound(name, (), frozenset()) for name in self.sounds]
        named = {name for sound in labels for name in (sound.name, *sound.classes)}
        unnamed = [sound for sound in table.values() if sound.name not in wordings() and sound.name not in named]
        return labels + unnamed if tagger else labels


class Detector:
    """Detects sounds in a recording.

    Args:
        model: a network that `lists_sounds`.
        conditions: of the sounds (sounds, dim), on the device to compute on.
        rule: how presence is computed.
        labels: number of the first sounds that are labels, among which `share` is computed; None: all.

    Attributes:
        logits: largest presence logit (sounds,).
        share: largest logarithm of a sound's share of the exponentiated logits of all labels in a frame (sounds,).
        presence: largest probability (sounds,).
        tags: largest logits of the tagger (classes,); None without a tagger.
        silence: seconds before the first sound.
        seconds: length of the recording.
    """

    def __init__(
        self, model: ConditionedModel, conditions: Tensor, rule: PresenceRule, labels: int | None = None
    ) -> None:
        self.model, self.conditions, self.rule = model, conditions, rule
        self.labels = len(conditions) if labels is None else labels
        self.logits = torch.full((len(conditions),), -math.inf)
        self.share, self.presence = self.logits.clone(), torch.zeros(len(conditions))
        self.tags: Tensor | None = None
        self.silence, self.seconds, self.frames = 0.0, 0.0, 0
        self.rate = model.sample_rate // model.stride  # frames per second
        self.runs: dict[int, list[tuple[int, int, float]]] = {}  # sound -> first frame, last frame + 1, peak

    @own_defaults()
    @torch.inference_mode()
    def run(self, blocks: Iterable[Tensor], sample_rate: int, level: float) -> Detector:
        """Detect in a recording of a level (see `levels.measure_level`) that is given in blocks (channels, time)."""
        margin, first = math.ceil(margin_seconds(self.model, sample_rate)), 0
        segmenter = Segmenter(SEGMENT_SECONDS * sample_rate, 2 * margin * sample_rate)
        samples = silent = 0
        for block in blocks:
            samples += block.shape[-1]
            if silent + block.shape[-1] == samples:  # nothing has sounded; segments start where it does, as in a Stream
                silence = leading_silence(block, sample_rate, level, silent)
                silent, block = silent + silence, block[:, silence:]
            for segment in segmenter.push(block):
                self.add(segment, sample_rate, level, first, SEGMENT_SECONDS - margin)
                first = margin
        self.silence, self.seconds = silent / sample_rate, samples / sample_rate
        last = segmenter.flush()
        if last is not None:
            self.add(last, sample_rate, level, first, None)
        return self

    def add(self, segment: Tensor, sample_rate: int, level: float, first: int, end: int | None) -> None:
        """Add the seconds from `first` to `end`, or to the last, of a segment (channels, time)."""
        if level == 0:
            return
        ends = (first == 0, end is None)
        _, wave = network_input(self.model, segment, sample_rate, level / self.model.input_level, ends)
        with self.model.autocast(self.conditions.device):
            logits, tags = self.model.score_presence(wave[None].to(self.conditions.device), self.conditions[None])
        if not torch.isfinite(logits).all() or (tags is not None and not torch.isfinite(tags).all()):
            raise NotFiniteError("presence")
        inner = logits[0, :, first * self.rate : end and end * self.rate].float().cpu()
        self.logits = torch.maximum(self.logits, inner.amax(1))
        self.share = torch.maximum(self.share, (inner - inner[: self.labels].logsumexp(0)).amax(1))
        if tags is not None:
            largest = tags[0, 2 * first : end and 2 * end].float().amax(0).cpu()  # patch k is centred on k / 2 seconds
            self.tags = largest if self.tags is None else torch.maximum(self.tags, largest)
        probability = self.rule(inner, self.conditions.cpu(), TYPICAL_RATIO_DB)
        self.presence = torch.maximum(self.presence, probability.amax(1))
        edges = torch.diff(F.pad((probability >= SPAN_EDGE).int(), (1, 1)))
        starts, stops = (edges == 1).nonzero().tolist(), (edges == -1).nonzero()[:, 1].tolist()
        for (sound, start), stop in zip(starts, stops, strict=True):
            peak, runs = float(probability[sound, start:stop].max()), self.runs.setdefault(sound, [])
            if start == 0 and runs and runs[-1][1] == self.frames:  # continues from the previous segment
                begin, _, before = runs.pop()
                runs.append((begin, self.frames + stop, max(before, peak)))
            elif peak >= LIST_PRESENCE or stop == inner.shape[1]:
                runs.append((self.frames + start, self.frames + stop, peak))
        self.frames += inner.shape[1]

    def spans(self, sound: int) -> tuple[tuple[float, float], ...]:
        """Spans (from, to) in seconds in which a sound occurs; the longest one even if it is short."""
        joined: list[list[float]] = []
        for start, stop, peak in self.runs.get(sound, ()):
            begin, end = (min(self.silence + frame / self.rate, self.seconds) for frame in (start, stop))
            if peak >= LIST_PRESENCE and joined and begin - joined[-1][1] < SHORTEST_GAP:
                joined[-1][1] = end
            elif peak >= LIST_PRESENCE:
                joined.append([begin, end])
        shortest = min(SHORTEST_SPAN, max((end - begin for begin, end in joined), default=0.0))
        return tuple((begin, end) for begin, end in joined if end - begin >= shortest)


def listing_terms(found: Detector, sounds: list[Sound]) -> Tensor:
    """Largest presence logit, logit of the tagger and share of each sound (sounds, 3), see `ListingRule`."""
    tags = torch.full((len(sounds),), TAG_FLOOR)
    if found.tags is not None:
        for number, sound in enumerate(sounds):
            if sound.classes:
                tags[number] = found.tags[list(sound.classes)].max().clamp_min(TAG_FLOOR)
    return torch.stack([found.logits, tags, found.share], dim=1)


def context_terms(found: Detector, certainty: Tensor) -> tuple[Tensor, Tensor]:
    """What is known about each label that may occur from the others, see `ListingRule`.

    Args:
        found: what was detected.
        certainty: of the labels (labels,), from `ListingRule.certainty`.

    Returns:
        Numbers of the labels that have spans and are not very uncertain (n,), the most certain first, and their terms
        (n, 6): certainty; logit of presence; probability of similar sounds that are more certain, and of those that
        are less certain, each by its cosine; largest share of its spans within those of a more certain similar sound;
        seconds in which it is heard.
    """
    order = certainty.argsort(descending=True, stable=True)
    order = order[(found.presence[order] >= LIST_PRESENCE) & (certainty[order] >= LEAST_CERTAINTY)]
    conditions, likely = found.conditions[order].cpu(), torch.sigmoid(certainty[order])
    cosine = conditions @ conditions.T
    similar = (cosine - RIVAL_COSINE).clamp_min(0)
    rate = min(CONTEXT_RATE, CONTEXT_FRAMES / max(found.seconds, 1.0))
    heard = torch.zeros(len(order), math.ceil(found.seconds * rate) + 1)
    for row, number in zip(heard, order.tolist(), strict=True):
        for begin, end in found.spans(number):
            row[round(begin * rate) : round(end * rate) + 1] = 1
    inside = heard @ heard.T / heard.sum(1, keepdim=True).clamp_min(1)
    inside = torch.where(cosine >= RIVAL_OVERLAP_COSINE, inside, 0.0).tril(-1)
    seconds = (heard.sum(1) / rate).clamp_max(CONTEXT_SECONDS)
    own = [certainty[order], torch.logit(found.presence[order], 1e-6)]
    around = [similar.tril(-1) @ likely, similar.triu(1) @ likely, inside.amax(1) if len(order) else seconds]
    return order, torch.stack([*own, *around, seconds], dim=1)


def select_sounds(
    found: Detector, sounds: list[Sound], rule: ListingRule, at_least: float, most: int | None = None
) -> list[DetectedSound]:
    """Select what is listed: first labels, the most certain first, then classes that name something else.

    Of sounds that count as one, the most certain is listed; of a sound and one that includes it, the narrower.

    Args:
        found: what was detected.
        sounds: its sounds, see `ListingRule.candidates`.
        rule: decides what is listed.
        at_least: least probability of a correct entry.
        most: largest number of sounds.
    """
    labels, terms = len(rule.sounds), listing_terms(found, sounds)
    tags, certainty = terms[labels:, 1], rule.certainty(terms[:labels])
    order, context = context_terms(found, certainty)
    logits = context @ torch.tensor(rule.context[:-1]) + rule.context[-1] if rule.context else certainty[order]
    ranks = logits.argsort(descending=True, stable=True)
    chosen = order[ranks[torch.sigmoid(logits[ranks]) >= at_least]]
    classes = tags.argsort(descending=True, stable=True)
    classes = labels + classes[(tags[classes] >= CLASS_TAG) & (found.presence[labels + classes] >= LIST_PRESENCE)]
    cosine = (found.conditions @ found.conditions.T).cpu()
    listed: list[int] = []
    for number in [*chosen.tolist(), *classes.tolist()]:
        name, same = sounds[number].name, SAME_COSINE if number < labels else CLASS_COSINE
        if not any(sounds[other].is_named_by(name) or cosine[other, number] >= same for other in listed):
            listed = [other for other in listed if not sounds[number].is_named_by(sounds[other].name)] + [number]
    return [DetectedSound(sounds[n].name, float(found.presence[n]), found.spans(n)) for n in listed[:most]]
