"""Texts to train with: those of a label, with their sentence vectors, and the phrases of a caption."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.data.lists import read_text_lists
from separation.encoders.sentence import SentenceEncoder
from separation.vocabulary.sounds import wordings

FRAMES = (
    "{}",
    "the sound of {}",
    "{} sound",
    "sound of {}",
    "{} noise",
    "a recording of {}",
    "{} in the background",
)
LABEL_SHARE = 0.25  # how often the plain label is drawn besides
# Captions that ask for two sounds, without the ten phrasings that `benchmarks/sentences.py` scores.
UNIONS = (
    "{} followed by {}", "{} and then {}", "{} and {}", "{} while {}", "{} with {}", "{}, {}", "{} as {}",
    "{} then {}", "the sound of {} and {}", "{} with {} in the background", "{}, and {}", "first {}, later {}",
    "both {} and {}", "{} over {}", "{} plus {}", "{} & {}", "{} along with {}", "{} together with {}",
    "{} as well as {}", "{} accompanied by {}", "{} mixed with {}", "{} before {}", "{} after {}", "after {}, {}",
    "before {} comes {}", "while {}, {}", "{} during {}", "{} alongside {}", "{}; {}", "{} - {}", "{} / {}",
    "{} and also {}", "{} and later {}", "{} and finally {}", "{}, then {} again and again", "{} and, after it, {}",
    "{} with {} behind it", "{} and {} on top of it", "{}, interrupted by {}", "{} is joined by {}",
    "{} is followed by {}", "{} soon followed by {}", "{} underneath {}", "{} in front of {}", "{}, meanwhile {}",
    "{} and {} together", "{} and {} in turn", "{} and {}, one after the other", "two sounds: {} and {}",
    "I hear {} and {}", "there is {} and there is {}", "{} can be heard and so can {}", "give me {} and {}",
    "keep {} and {}", "only {} and {}", "{} in addition to {}", "{} amid {}", "{} besides {}", "{} when {}",
    "it is {} and {}", "everything but the rest: {}, {}", "{} that turns into {}", "{} drowning out {}",
)  # fmt: skip
QUALITIES = (
    "loud", "quiet", "distant", "nearby", "faint", "sudden", "constant", "brief", "muffled", "repeated", "clear",
)  # fmt: skip
COUNTS = ("two", "three", "several", "a few", "many")
UNCOUNTABLE = re.compile(r"(?:s|ing|sh|water|wind|rain|noise|music|speech|traffic|static|singing voice)$")
UNIONS_PER_LABEL = 36  # captions of two labels
WORDINGS = "wordings.json"  # in a packed corpus


def read_wordings(*paths: Path) -> dict[str, tuple[str, ...]]:
    """Wordings of labels: JSON files with a list of texts for each label, or by default the package's own.

    A text of a later file is removed from the other labels of earlier files, so that it belongs to one label only.

    Raises:
        DataError: if a file cannot be read or holds something else.
    """
    if not paths:
        return wordings()
    found: dict[str, tuple[str, ...]] = {}
    for path in paths:
        stored = read_text_lists(path, "a list of texts for each label")
        taken = {text.lower() for label, texts in stored.items() for text in (label, *texts)}
        found = {label: tuple(text for text in texts if text.lower() not in taken) for label, texts in found.items()}
        found |= {label: tuple(texts) for label, texts in stored.items()}
    return found


def texts_of(
    label: str, captions: tuple[str, ...] = (), known: Mapping[str, tuple[str, ...]] | None = None
) -> list[str]:
    """All texts for a label: the label, its wordings (by default the package's), both in templates, and captions."""
    own = (wordings() if known is None else known).get(label, ())
    framed = [frame.format(label) for frame in FRAMES]
    framed_own = [FRAMES[1 + i % (len(FRAMES) - 1)].format(text) for i, text in enumerate(own)]
    return list(dict.fromkeys([*framed, *own, *framed_own, *captions]))


def draw_mention(texts: Sequence[str], rng: np.random.Generator) -> str:
    """Draw how a sound is named within a caption: by its label, which is the first text, or by any of its texts.

    The label may have a quality or a number ("a distant siren", "two dog barks"); captions lose their full stop.
    """
    label, chance = texts[0], rng.random()
    if chance < 0.3:
        return label
    if chance < 0.45:
        return f"{rng.choice(('a', 'the', 'some'))} {rng.choice(QUALITIES)} {label}"
    if chance < 0.55 and not UNCOUNTABLE.search(label):
        return f"{rng.choice(COUNTS)} {label}s"
    text = texts[int(rng.integers(len(texts)))].rstrip(".!")
    return text[:1].lower() + text[1:]


class Texts:
    """The texts of all labels of a corpus as sentence vectors, and captions that ask for two labels at once.

    A packed corpus provides wordings and vectors; for others, 400 sentences per second are encoded.

    Args:
        corpus: provides the labels and their captions.
        unions: whether captions of two labels are needed.
        store: keep the vectors in the folder of the packed corpus.
        ahead: encode all texts now; otherwise each of them when it is first drawn, by the process that draws it.

    Attributes:
        texts: a list for each label.
        vectors: (texts, dim), of all labels one after another.
        first, counts: (labels,), place of each label's first text, and number of its texts.
        pairs: (captions, 2), the two labels of each caption.
        captions: (captions, dim).
    """

    def __init__(self, corpus: Corpus, unions: bool = False, store: bool = False, ahead: bool = True) -> None:
        folder, captions = corpus.folder, {label: set[str]() for label in corpus.labels}
        for clip in corpus.clips:
            captions[clip.label].add(clip.caption)
        known = read_wordings(*([folder / WORDINGS] if folder else []))
        self.texts = [texts_of(label, tuple(sorted(captions[label])), known) for label in corpus.labels]
        encode = partial(encode_texts, folder=folder, store=store, ahead=ahead)
        self.vectors = encode([text for texts in self.texts for text in texts])
        self.counts = torch.tensor([len(texts) for texts in self.texts])
        self.first = self.counts.cumsum(0) - self.counts
        rng, count = np.random.default_rng(0), len(self.texts)
        drawn = rng.integers(count, size=(UNIONS_PER_LABEL * count if unions else 0, 2))
        self.pairs = torch.from_numpy(drawn[drawn[:, 0] != drawn[:, 1]])
        both = [
            str(rng.choice(UNIONS)).format(*(draw_mention(self.texts[number], rng) for number in pair))
            for pair in self.pairs.tolist()
        ]
        self.captions = encode(both) if both else torch.zeros(0, 0)

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Vectors (..., dim) of texts of labels (...): the plain label a quarter of the time, else any of its texts."""
        chances = torch.rand(2, *labels.shape, generator=generator)
        number = (chances[0] * self.counts[labels]).long() * (chances[1] >= LABEL_SHARE)
        return self.vectors[self.first[labels] + number]


class LazyVectors:
    """Sentence vectors (texts, dim) that are computed when they are first asked for; indexed by numbers only."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.encoder = texts, SentenceEncoder()

    def __getitem__(self, numbers: Tensor) -> Tensor:
        vectors = self.encoder.encode_text([self.texts[number] for number in numbers.flatten().tolist()])
        return vectors.unflatten(0, numbers.shape)


def encode_texts(texts: list[str], folder: Path | None, store: bool, ahead: bool) -> Tensor | LazyVectors:
    """Sentence vectors (texts, dim), read from the folder of a packed corpus if they are there; see `Texts`."""
    key = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    file = folder / f"texts_{key}.npy" if folder else None
    if file is not None and file.is_file():
        return torch.from_numpy(np.load(file, allow_pickle=False))
    if not ahead:
        return LazyVectors(texts)
    vectors = SentenceEncoder().encode_text(texts)
    if store and file is not None:
        np.save(file, vectors.numpy())
    return vectors


# Phrases of captions: rules, no parser. A caption is split at commas and at words that join sounds. Some expressions
# contain such a word and are one sound, and a part that names no sound of its own ("loud, fast-moving water",
# "a man and a woman talk", "a drill runs and stops") stays with its neighbour.

# Longer ones first: "followed by" before "by" would be.
JOINTS = (
    r"(?:and|or)\s+(?:then|also)", r"(?:is|are|which\s+is|and\s+is)?\s*(?:soon\s+|then\s+|shortly\s+)?followed\s+by",
    r"(?:is|are)?\s*accompanied\s+by", r"(?:is|are)?\s*mixed\s+with", r"along\s+with", r"together\s+with",
    r"as\s+well\s+as", r"at\s+the\s+same\s+time\s+as", r"before", r"after", r"while", r"whilst", r"as", r"when",
    r"then", r"amidst?", r"with", r"and", r"plus",
)  # fmt: skip
FIXED_EXPRESSIONS = (
    "back and forth", "on and off", "up and down", "over and over", "again and again", "more and more", "in and out",
    "pots and pans", "bow and arrow", "drum and bass", "drums and bass", "rock and roll", "knife and fork",
    "stop and go", "to and fro", "here and there", "now and then", "such as", "as if", "as though",
    "black and white", "hustle and bustle", "one after another", "one after the other", "start and stop", "off and on",
    r"as well(?!\s+as\b)", r"(?:[a-z]\.){2,}",
)  # fmt: skip
OPENING = re.compile(r"^(?:(?:the|a|some)\s+)?(?:sounds?(?:\s+mixture)?|mixture|recording|noises?)\s+of\s+", re.I)
MARK = r"(?:(?<!\d)[,;:.]|[,;:.](?!\d))+"  # not in 2.5 and 1,000
JOINT = rf"(?:{'|'.join(JOINTS)})\s+"
SPLIT = re.compile(rf"(\s*{MARK}\s*(?:{JOINT})?|\s+{JOINT})", re.I)
LEADING = re.compile(r"^(?:and|or|then|while|as|with|also|followed\s+by|before|after)(?:\s+|$)", re.I)
BLANK, POINT = "\x00", "\x01"  # replace blanks and points within fixed expressions
SIDE_BY_SIDE = re.compile(r"\s*(?:[,;]\s*)?(?:(?:and|or)\s+)?", re.I)
IN_TURN = re.compile(r"\s*(?:[,;]\s*)?(?:(?:and|or)\s+)?(?:then\s+)?", re.I)

# Words that describe a sound without naming it: before it, behind it, how it continues; and who is heard.
BEFORE = {
    "loud", "soft", "quiet", "distant", "faint", "slow", "fast", "rapid", "quick", "high", "low", "deep", "heavy",
    "light", "continuous", "constant", "consistent", "steady", "sharp", "brief", "short", "long", "strong",
    "gentle", "harsh", "muffled", "repetitive", "repeated", "intermittent", "sudden", "hard", "dull", "dry",
    "large", "small", "big", "little", "young", "old", "middle", "aged", "adult", "other", "another", "natural",
    "rural", "urban",
}  # fmt: skip
BEHIND = {
    "far", "near", "nearby", "away", "close", "closer", "closely", "louder", "softer", "quieter", "fainter",
    "slower", "faster", "higher", "lower", "stronger", "again", "off", "on", "up", "down", "outside", "inside",
    "indoors", "outdoors", "well", "etc",
}  # fmt: skip
CONTINUATION = {
    "stop", "stops", "stopped", "stopping", "start", "starts", "started", "starting", "begin", "begins", "continue",
    "continues", "fade", "fades", "fading", "slow", "slows", "slowing", "pass", "passes", "passing", "approach",
    "approaches", "approaching", "end", "ends",
}  # fmt: skip
PEOPLE = {
    "man", "men", "woman", "women", "male", "males", "female", "females", "boy", "boys", "girl", "girls", "child",
    "children", "kid", "kids", "adult", "adults", "person", "people", "baby", "babies", "lady", "ladies", "guy",
    "guys", "individual", "individuals",
}  # fmt: skip
FUNCTION_WORDS = {
    "a", "an", "the", "some", "very", "more", "much", "it", "they", "two", "three", "four", "several", "few",
    "many", "and", "or", "then",
}  # fmt: skip
NOUNS_IN_LY = {"fly", "housefly", "butterfly", "dragonfly"}


def phrases(caption: str) -> list[str]:
    """Split a caption into its phrases, in order, each once and capitalised; a caption without words has none.

    An opening such as "the sound of" or "a recording of" is left out.
    """
    text = OPENING.sub("", " ".join(caption.split()))
    for fixed in FIXED_EXPRESSIONS:
        text = re.sub(
            rf"(?<!\w){fixed}(?!\w)", lambda m: m[0].replace(" ", BLANK).replace(".", POINT), text, flags=re.I
        )
    pieces = SPLIT.split(text)  # part, joint, part, joint, ...
    parts, joints = pieces[::2], [*pieces[1::2], "."]
    joined = parts[:1]
    for number, part in enumerate(parts[1:], 1):
        may_lead = bool(SIDE_BY_SIDE.fullmatch(joints[number])) and number + 1 < len(parts)
        if _belong_together(joined[-1], joints[number - 1], part, may_lead):
            joined[-1] += joints[number - 1] + part
        else:
            joined.append(part)
    found: dict[str, str] = {}
    for part in joined:
        part = part.replace(BLANK, " ").replace(POINT, ".").strip(" \t\"'-")
        while (shorter := LEADING.sub("", part)) != part:
            part = shorter
        if re.search(r"\w", part):
            found.setdefault(part.lower(), part[0].upper() + part[1:])
    return list(found.values())


# The published rules (Mahmud et al., 2024), which split more often and in this order.
PUBLISHED_JOINTS = (
    " and is followed by", " followed by ", " after which", " which is ", " proceeded by ", " at a close distance",
    " and ", ", ", " as ", " while ", " then ", " with ", " before ", " after ", " during ", " nearby ", " over ",
    " among ", " precedes ", " proceeded ", " which ",
)  # fmt: skip
PUBLISHED_EXCEPTIONS = (  # keep an "and" together
    "on and off", "man and woman", "and is", "bells and a horn", "clanking and clunking", "and continuously",
)  # fmt: skip


def published_phrases(caption: str) -> list[str]:
    """Split a caption by the rules that the bi-modal paper's AudioCaps phrases were made with."""
    parts = [caption]
    for joint in PUBLISHED_JOINTS:
        whole = PUBLISHED_EXCEPTIONS if joint == " and " else ()
        parts = [piece for part in parts for piece in ([part] if any(e in part for e in whole) else part.split(joint))]
    for words, case in ((("then ", "then", ","), str.capitalize), (("And ",), str.capitalize)):
        for word in words:
            parts = [part.strip().replace(word, "") for part in parts]
        parts = [case(part).strip() for part in parts if part.strip()]
    return parts


def draw_published_phrases(found: Sequence[str], count: int, rng: np.random.Generator) -> tuple[list[str], list[float]]:
    """Fill `count` slots as published: some of the phrases, or all and random ones again; and their weights.

    Phrases that are left out are not asked for; the weights of a repeated phrase add up to one.
    """
    if len(found) > count:
        return [found[i] for i in rng.choice(len(found), count, replace=False)], [1.0] * count
    numbers = [*range(len(found)), *rng.integers(len(found), size=count - len(found)).tolist()]
    return [found[i] for i in numbers], [1 / numbers.count(i) for i in numbers]


def _belong_together(before: str, joint: str, part: str, may_lead: bool) -> bool:
    """Whether a part is one phrase with what precedes it; `may_lead`: it may be one with what follows instead."""
    first, second = (re.findall(r"[\w'-]+", text.lower()) for text in (before, part))
    if not first or not second:
        return False
    if IN_TURN.fullmatch(joint) and (_consists_of(second, CONTINUATION) or _consists_of(second, BEHIND)):
        return True
    if not SIDE_BY_SIDE.fullmatch(joint):
        return False
    if _consists_of(first, BEFORE) or (_consists_of(second, BEFORE) and not may_lead):
        return True
    heard = next((word for word in second if word not in FUNCTION_WORDS | BEFORE - PEOPLE), "")
    both = _consists_of(first, PEOPLE) and heard in PEOPLE
    return both or (first[-1] in PEOPLE and _consists_of(second, PEOPLE))


def _consists_of(words: Sequence[str], kind: set[str]) -> bool:
    """Whether some of the words are of a kind, and the others only describe a sound or are function words."""
    adverbs = {word for word in words if word.endswith("ly") and word not in NOUNS_IN_LY}
    named = kind if kind is PEOPLE or kind is CONTINUATION else kind | adverbs
    return bool(named & set(words)) and set(words) <= kind | BEFORE | BEHIND | FUNCTION_WORDS | adverbs


def fill_slots(found: Sequence[str], count: int) -> tuple[list[str], list[float]]:
    """Fill exactly `count` slots with phrases, with weights under which all slots together are the caption.

    Fewer phrases are repeated in turn, with weight 1 / (number of times); too many are joined to the last one.

    Raises:
        ValueError: if there is no phrase or no slot.
    """
    if not found or count < 1:
        raise ValueError("a caption has at least one phrase, and there is at least one slot")
    kept = list(found)
    if len(kept) > count:
        rest = [kept[count - 1], *(each[0].lower() + each[1:] for each in kept[count:])]
        kept = [*kept[: count - 1], " and ".join(rest)]
    filled = [kept[i % len(kept)] for i in range(count)]
    return filled, [1 / filled.count(phrase) for phrase in filled]
