"""A caption's single sounds: "a dog barks while rain falls" says two things.

Rules, no parser: a caption is split at commas and at words that join what sounds together or one after another. Some
expressions hold such a word and are one sound.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Longer ones first: "followed by" before "by" would be.
JOINTS = (
    r"(?:and|or)\s+(?:then|also)", r"(?:is|are|which\s+is|and\s+is)?\s*(?:soon\s+|then\s+|shortly\s+)?followed\s+by",
    r"(?:is|are)?\s*accompanied\s+by", r"(?:is|are)?\s*mixed\s+with", r"along\s+with", r"together\s+with",
    r"as\s+well\s+as", r"at\s+the\s+same\s+time\s+as", r"before", r"after", r"while", r"whilst", r"as", r"when",
    r"then", r"amidst?", r"with", r"and", r"plus",
)  # fmt: skip
KEPT = (
    "back and forth", "on and off", "up and down", "over and over", "again and again", "more and more", "in and out",
    "pots and pans", "bow and arrow", "drum and bass", "drums and bass", "rock and roll", "knife and fork",
    "stop and go", "to and fro", "here and there", "now and then", "such as", "as if", "as though",
    "black and white", "hustle and bustle", "one after another", "one after the other", "start and stop",
)  # fmt: skip
FRAME = re.compile(r"^(?:(?:the|a|some)\s+)?(?:sounds?(?:\s+mixture)?|mixture|recording|noises?)\s+of\s+", re.I)
SPLIT = re.compile(rf"\s*[,;:.]+\s*|\s+(?:{'|'.join(JOINTS)})\s+", re.I)
LEADING = re.compile(r"^(?:and|or|then|while|as|with|also|followed\s+by|before|after)(?:\s+|$)", re.I)
PLACEHOLDER = "\x00"


def phrases(caption: str) -> list[str]:
    """The phrases of a caption, in its order, each once, capitalised; a caption without words gives none.

    A frame ("the sound of ...", "a recording of ...") does not belong to what sounds and is left out.
    """
    text = FRAME.sub("", " ".join(caption.split()))
    for kept in KEPT:
        text = re.sub(rf"\b{kept}\b", lambda m: m[0].replace(" ", PLACEHOLDER), text, flags=re.I)
    parts = [part.replace(PLACEHOLDER, " ") for part in SPLIT.split(text)]
    found: dict[str, str] = {}
    for part in map(cleaned, parts):
        if re.search(r"\w", part):
            found.setdefault(part.lower(), part[0].upper() + part[1:])
    return list(found.values())


def cleaned(part: str) -> str:
    """Without joints that were left at its head, and without quotes and blanks around it."""
    part = part.strip(" \t\"'-")
    while (shorter := LEADING.sub("", part)) != part:
        part = shorter
    return part


def slots(found: Sequence[str], count: int) -> tuple[list[str], list[float]]:
    """Exactly `count` phrases with weights: whatever the number, the weighted phrases together are the caption.

    Fewer are repeated in turn, each with 1 / (how often it stands there); what is too many is joined to the last.

    Raises:
        ValueError: there is no phrase.
    """
    if not found or count < 1:
        raise ValueError("a caption has at least one phrase, and there is at least one slot")
    kept = list(found)
    if len(kept) > count:
        rest = [kept[count - 1], *(each[0].lower() + each[1:] for each in kept[count:])]
        kept = [*kept[: count - 1], " and ".join(rest)]
    filled = [kept[i % len(kept)] for i in range(count)]
    return filled, [1 / filled.count(phrase) for phrase in filled]
