"""Hints for queries that a model probably does not know, and the sounds near a word.

A text is judged by three observations; `benchmarks/typed_queries.py` measures how well they tell known from unknown:
how much the vectors of the text in several frames ("{}", "{} sound", ...) agree, because the network places a familiar
sound at the same point in every frame; how many of its words occur in no description of a sound; and how many are not
even in the vocabulary of the sentence encoder, such as typing errors and words of other languages.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from typing import TYPE_CHECKING

from separation.vocabulary.ontology import tagger_classes
from separation.vocabulary.sounds import known_sounds, wordings

if TYPE_CHECKING:
    from torch import Tensor

    from separation.encoders.joint import JointEncoder
    from separation.encoders.sentence import SentenceEncoder

WEIGHTS, BIAS = (-1.68, -4.61, -3.04), -4.63
"""Weights of the observations in `observe`; fitted and printed by `benchmarks/typed_queries.py`."""

MAX_QUERY = 200  # characters of a query in a hint
KNOWN = 0.6  # a text below this probability gets a hint
SHORT = 5  # words of a text in which typing errors are looked for; longer ones are captions with rare words
SIMILAR = 0.35  # cosine of sentence vectors from which a sound is near a word
WORD = re.compile(r"[^\W\d_]+")
NUMBERS = {2: "two", 3: "three", 4: "four"}
ENDINGS = ("s", "es", "ed", "d", "ing", "ings", "er", "ers", "ly", "y")


@dataclass(frozen=True)
class Hint:
    """What a model makes of a text that it probably does not know.

    Attributes:
        query: the text as typed; it is also what was separated.
        known: probability that the model knows it, 0 to 1.
        correction: the text without its typing errors, if that is what they are.
        nearest: known sounds with the most similar conditions, and their cosines.
        parts: the sounds that a sentence names; the hint says then only how it was understood.
    """

    query: str
    known: float
    correction: str | None
    nearest: dict[str, float]
    parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        query = self.query if len(self.query) <= MAX_QUERY else f"{self.query[:MAX_QUERY]} ..."
        if self.parts:
            number = NUMBERS.get(len(self.parts), str(len(self.parts)))
            named = ", ".join(f"“{part}”" for part in self.parts)
            return f"“{query}” is understood as {number} sounds: {named}."
        if self.correction:  # what is near a typing error says nothing
            return f"Did you mean “{self.correction}”? “{query}” is used as typed."
        near = ", ".join(f"{name} ({cosine:.2f})" for name, cosine in self.nearest.items())
        return f"The model probably does not know “{query}”. Nearest sounds: {near}."


def find_words(text: str) -> list[str]:
    """Split a text into its words, in lower case and without accents."""
    plain = text.lower()
    if not plain.isascii():
        plain = "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    return WORD.findall(re.sub(r"['’]s\b", "", plain))


@cache
def described_words() -> Counter[str]:
    """Count the words in names and wordings of all sounds and in the tagger's classes."""
    return Counter(word for text in described_texts() for word in text.split())


@cache
def described_texts() -> frozenset[str]:
    """All names and wordings of sounds, as words joined by spaces."""
    names = [*known_sounds(), *wordings(), *(each.name for each in tagger_classes())]
    return frozenset(" ".join(find_words(text)) for text in (*names, *(t for ts in wordings().values() for t in ts)))


def word_forms(word: str) -> Iterator[str]:
    """The word, and what it may be without an English ending (barking: bark, barke; shutting: shut)."""
    yield word
    for ending in ENDINGS:
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= 3:
            yield stem
            yield stem + "e"
            if stem[-1] == stem[-2] and len(ending) > 1:
                yield stem[:-1]
            if stem[-1] == "i":
                yield stem[:-1] + "y"


def foreign_words(text: str, sentence: SentenceEncoder) -> list[str]:
    """Words of a text in no description of a sound and not in the sentence encoder's vocabulary."""
    described, vocabulary = described_words(), sentence.vocabulary
    return [
        word
        for word in find_words(text)
        if not any(form in described or (len(word) > 2 and form in vocabulary) for form in word_forms(word))
    ]


def observe(texts: Sequence[str], encoder: JointEncoder) -> Tensor:
    """The observations about each text (texts, 3), see the top of this module; the first one as log(1 - agreement)."""
    import torch

    words, described = [find_words(text) for text in texts], described_words()
    counts = torch.tensor([max(1, len(each)) for each in words])
    unusual = [sum(not any(form in described for form in word_forms(word)) for word in each) for each in words]
    foreign = [len(foreign_words(text, encoder.sentence)) for text in texts]
    spread = torch.log(1.001 - encoder.agreement(list(texts)).cpu())
    return torch.stack([spread, torch.tensor(unusual) / counts, torch.tensor(foreign) / counts], dim=1)


def estimate_known(text: str, encoder: JointEncoder) -> float:
    """Probability that the model knows a text."""
    if " ".join(find_words(text)) in described_texts():
        return 1.0
    logit = sum(w * x for w, x in zip(WEIGHTS, observe([text], encoder)[0].tolist(), strict=True)) + BIAS
    return 1 / (1 + math.exp(-logit))


def correct(text: str, errors: Sequence[str]) -> str | None:
    """Replace the words `errors` by similar words of descriptions, the more frequent the better.

    Returns None if there is no error, or none similar enough to one of them.
    """
    described, better = described_words(), {}
    for error in errors:
        candidates = [word for word in described if word[0] == error[0] and abs(len(word) - len(error)) <= 2]
        near = get_close_matches(error, candidates, 8, 0.8)
        near += [word for word in candidates if sorted(word) == sorted(error)]  # letters in the wrong order
        if not near:
            return None
        ratios = {word: SequenceMatcher(None, word, error).ratio() + 0.02 * math.log(described[word]) for word in near}
        better[error] = max(near, key=ratios.__getitem__)
    return WORD.sub(lambda match: better.get(match[0].lower(), match[0]), text) if better else None


def suggest(text: str, encoder: JointEncoder, sounds: Sequence[str]) -> Hint | None:
    """Return a hint for a text that the model probably does not know, or None.

    Args:
        text: of a query.
        encoder: of the model.
        sounds: labels that the model knows.
    """
    if encoder.own is not None and encoder.own.find(encoder.sentence.encode_text([text]).to(encoder.device))[0].any():
        return None
    known = estimate_known(text, encoder)
    short = len(find_words(text)) <= SHORT
    correction = correct(text, foreign_words(text, encoder.sentence)) if short and known < 1 else None
    if correction and estimate_known(correction, encoder) < KNOWN:
        correction = None
    if known >= KNOWN and correction is None:
        return None
    cosines = dict(zip(sounds, (encoder.embed_labels(sounds) @ encoder.encode_text([text])[0]).tolist(), strict=True))
    nearest = {name: round(cosines[name], 3) for name in sorted(cosines, key=cosines.__getitem__)[:-4:-1]}
    return Hint(text, round(known, 3), correction, nearest)


def describe_sounds(own: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return a model's own sounds, and all known ones, with their wordings."""
    return {name: list(wordings().get(name, ())) for name in (*own, *sorted({*known_sounds()} - {*own}))}


def find_sounds(word: str, sentence: SentenceEncoder, most: int = 12, own: Sequence[str] = ()) -> dict[str, list[str]]:
    """Find sounds near a word, and their wordings, of which those with the word come first.

    Sounds whose name contains the word come first, then those with a wording that contains it, then the nearest by
    meaning (cosine of sentence vectors of at least `SIMILAR`). Typing errors in it, one or more words, are corrected.
    `own` are sounds that the model was taught besides.
    """
    word = correct(word, foreign_words(word, sentence)) or word
    wanted = [set(word_forms(each)) for each in find_words(word)]

    def contains(text: str) -> bool:
        forms = {form for each in find_words(text) for form in word_forms(each)}
        return all(forms & each for each in wanted)

    by_text = {name: sorted(texts, key=lambda text: not contains(text)) for name, texts in describe_sounds(own).items()}
    cosines = (sentence.encode_text(list(by_text)) @ sentence.encode_text([word])[0]).tolist()
    near = []
    for name, cosine in zip(by_text, cosines, strict=True):
        matches = 2 if contains(name) else int(any(map(contains, by_text[name])))
        if matches or cosine >= SIMILAR:
            near.append((matches, cosine, name))
    return {name: by_text[name] for *_, name in sorted(near, reverse=True)[:most]}
