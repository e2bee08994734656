"""Sentences that name several sounds: "a man speaks followed by a toilet flush" means both.

A sentence is cut at its connectors ("followed by", "while", "and", commas). Many of these join aspects of one sound
("low hum with soft clicks"), so neighbouring parts are put together again, the least distinct first, until every part
is a sound of its own: its condition is near that of a known sound and not near that of its neighbour.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from separation.query import has_word
from separation.suggestions import described_texts, estimate_known, find_words

if TYPE_CHECKING:
    from torch import Tensor

    from separation.encoders.joint import JointEncoder

PARTICIPLE = "foll?owed|accompanied|interrupted|joined|preceded|punctuated|interspersed|mixed|combined|overlaid|layered"
STRONG = re.compile(
    rf"""\s*;\s* | \s+[-–—&+]\s+ | [\s,]+(?:
    (?:(?:and|is|are|gets?|being)\s+)*(?:\w+ly\s+)?(?:{PARTICIPLE})(?:\s+\w+)?\s+(?:by|with)
    | (?:and\s+|but\s+)?(?:then|while|whilst|meanwhile|afterwards?|later|also)(?:\s+(?:also|later|by))?
    | as\s+well\s+as | (?:along|together)\s+with | alongside | plus | in\s+addition\s+to )[\s,]+""",
    re.IGNORECASE | re.VERBOSE,
)
WEAK = re.compile(
    r"""\s*[,:.!?/|]+\s*(?:(?:and|or|but|with|as|while)\s+)? | \s+(?:
    and | or | but | with | as(?!\s+if) | when(?:ever)? | before | after | until | once | during | amid(?:st)?
    | besides | on\s+top\s+of
    | over(?=\s+(?:\w+\s+){0,2}(?:music|songs?|beats?|speech|voices?|noises?|sounds?|\w+ing)\b) )\s+""",
    re.IGNORECASE | re.VERBOSE,
)
"""Connectors that join different sounds, and those that may also join aspects of one."""
LEADING = re.compile(
    r"""^(?:(?:and|both|first(?:ly)?|finally|also|again|there\s+(?:is|are|was|were)|(?:i|we|you)\s+(?:can\s+)?hear
    |(?:(?:the|a|some)\s+)?(?:sounds?|noises?|recording|audio)\s+of)\s+)+""",
    re.IGNORECASE | re.VERBOSE,
)
TRAILING = re.compile(
    r"(?:(?:^|\s+)(?:in\s+the\s+back(?:ground)?|(?:can\s+be|is|are)\s+heard|at\s+the\s+same\s+time|again))+[\s.!?]*$",
    re.IGNORECASE,
)
MUSIC = re.compile(r"\b(?:drums?\s+(?:and|&)\s+bass|rock\s+(?:and|&)\s+roll|rhythm\s+(?:and|&)\s+blues)\b", re.I)
NEGATED = re.compile(r"(?:not?|without|except)\b", re.IGNORECASE)  # such a part asks for nothing
EDGES = " \t\n,;:.!?/|"

SAME = {False: 0.45, True: 0.6}
"""Cosine of conditions from which neighbours at weak and strong connectors are one sound."""
CLEAR = {False: 0.68, True: 0.5}
"""Cosine to the nearest known sound, plus 0.3 times `estimate_known`, from which a part is a sound."""
LONELY = 0.25  # less for a single word that names no sound ("a horse whinnies and snorts")
MOST = 12  # parts; a longer text stays whole


def cut(text: str) -> tuple[list[tuple[int, int]], list[bool]]:
    """Cut a sentence at its connectors.

    Returns:
        First and last character of each part, and for each two neighbours whether their connector is a strong one.
    """
    text = MUSIC.sub(lambda match: "_" * len(match[0]), text)
    strong = [match.span() for match in STRONG.finditer(text)]
    weak = [match.span() for match in WEAK.finditer(text)]
    weak = [(a, b) for a, b in weak if not any(a < end and begin < b for begin, end in strong)]
    parts: list[tuple[int, int]] = []
    kinds: list[bool] = []
    start = 0
    for a, b in sorted([*strong, *weak, (len(text), len(text))]):
        if has_word(trim(text[start:a])):
            parts.append((start, a))
            kinds.append((a, b) in strong)
        elif kinds:  # nothing but a filler between two connectors
            kinds[-1] |= (a, b) in strong
        start = b
    return parts, kinds[:-1]


def trim(part: str) -> str:
    """Remove what does not belong to the sound: "the sound of", "in the background", punctuation."""
    text = TRAILING.sub("", part.strip(EDGES)).strip(EDGES)
    return " ".join(LEADING.sub("", text).split())


def understand(text: str, encoder: JointEncoder, sounds: Sequence[str]) -> dict[str, Tensor]:
    """Return the sounds that a sentence names, with their conditions (dim,); none if it names one sound.

    Args:
        text: of a query. Names and wordings of known sounds are one sound.
        encoder: of the model.
        sounds: labels that the model knows.
    """
    spans, strong = cut(text)
    if not 1 < len(spans) <= MOST or " ".join(find_words(text)) in described_texts():
        return {}
    labels = encoder.embed_labels(sounds)
    vectors: dict[str, Tensor] = {}
    clear: dict[str, float] = {}
    while True:
        names = [trim(text[begin:end]) for begin, end in spans]
        if any(NEGATED.match(name) for name in names):
            return {}
        if new := [name for name in dict.fromkeys(names) if name not in vectors]:
            vectors |= dict(zip(new, encoder.encode_text(new), strict=True))
            for name in new:
                known = estimate_known(name, encoder)
                clear[name] = float((labels @ vectors[name]).max()) + 0.3 * known
                if known < 1 and len(find_words(name)) == 1:
                    clear[name] -= LONELY
        alike = [float(vectors[one] @ vectors[other]) for one, other in pairwise(names)]
        doubts = [
            max(cosine - SAME[kind], CLEAR[kind] - min(clear[one], clear[other]))
            for cosine, kind, (one, other) in zip(alike, strong, pairwise(names), strict=True)
        ]
        if not doubts or max(doubts) <= 0:
            break
        worst = doubts.index(max(doubts))
        spans[worst : worst + 2] = [(spans[worst][0], spans[worst + 1][1])]
        del strong[worst]
    kept: dict[str, Tensor] = {}
    for name in names:  # "a man speaks, then rain, then the man speaks"
        if all(float(vectors[name] @ other) <= SAME[True] for other in kept.values()):
            kept[name] = vectors[name]
    return kept if len(kept) > 1 else {}
