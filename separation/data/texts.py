"""Texts to train with: those of a label, with their sentence vectors, and the phrases of a caption."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import Corpus
from separation.download import replace_when_complete
from separation.encoders.sentence import SentenceEncoder
from separation.wordings import wordings

TEMPLATES = (
    "{}",
    "the sound of {}",
    "{} sound",
    "sound of {}",
    "{} noise",
    "a recording of {}",
    "{} in the background",
)
LABEL_SHARE = 0.25  # how often the plain label is drawn besides


def texts_of(label: str, captions: tuple[str, ...] = ()) -> list[str]:
    """All texts for a label: the label, its wordings, both in templates, and captions."""
    own = wordings().get(label, ())
    framed = [template.format(label) for template in TEMPLATES]
    framed_own = [TEMPLATES[1 + i % (len(TEMPLATES) - 1)].format(text) for i, text in enumerate(own)]
    return list(dict.fromkeys([*framed, *own, *framed_own, *captions]))


class Texts:
    """The texts of each label as sentence vectors.

    Args:
        corpus: provides the labels and their captions.
        cache: folder to keep the vectors in; some 5,000 sentences take a minute.

    Attributes:
        texts: a list for each label.
        vectors: (texts, dim) for each label.
    """

    def __init__(self, corpus: Corpus, cache: Path | None = None) -> None:
        captions: dict[str, set[str]] = {label: set() for label in corpus.labels}
        for clip in corpus.clips:
            captions[clip.label].add(clip.caption)
        self.texts = [texts_of(label, tuple(sorted(captions[label]))) for label in corpus.labels]
        flat = [text for texts in self.texts for text in texts]
        key = hashlib.sha256("\n".join(flat).encode()).hexdigest()[:16]
        file = cache / f"texts_{key}.npy" if cache else None
        if file is not None and file.exists():
            vectors = torch.from_numpy(np.load(file, allow_pickle=False))
        else:
            vectors = SentenceEncoder().encode_text(flat)
            if file is not None:
                with replace_when_complete(file) as partial:
                    np.save(partial, vectors.numpy())
        self.vectors: list[Tensor] = list(vectors.split([len(texts) for texts in self.texts]))

    def draw(self, label: int, rng: np.random.Generator) -> Tensor:
        """Draw the vector (dim,) of a text: the plain label a quarter of the time, otherwise any of its texts."""
        vectors = self.vectors[label]
        return vectors[0 if rng.random() < LABEL_SHARE else int(rng.integers(len(vectors)))]

    def draw_bank(self, rng: np.random.Generator) -> Tensor:
        """Draw a text of every label: (labels, dim)."""
        return torch.stack([self.draw(label, rng) for label in range(len(self.vectors))])


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
