"""Sentences that name several sounds: "a man speaks followed by a toilet flush" means both.

A sentence is cut at its connectors ("followed by", "while", "and", commas). Whatever else it says between the names of
two known sounds joins them too ("a dog gives way to rain"), unless it is a place, a compound or a negation, and if the
two added are what the whole means and no third sound is nearer to it. Many connectors join aspects of one sound ("low
hum with soft clicks"), so neighbouring parts are put together again, the least distinct first, until every part is a
sound of its own: its condition is near that of a known sound and not near that of its neighbour.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from separation.inference.suggestions import WORD, described_texts, estimate_known, find_words, word_forms
from separation.query import has_word

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
    r"""^(?:(?:and|both|not\s+(?:only|just|merely)|first(?:ly)?|finally|also|again|there\s+(?:is|are|was|were)|(?:i|we|you)\s+(?:can\s+)?hear
    |(?:(?:the|a|some)\s+)?(?:sounds?|noises?|recording|audio)\s+of)\s+)+""",
    re.IGNORECASE | re.VERBOSE,
)
TRAILING = re.compile(
    r"(?:(?:^|\s+)(?:in\s+the\s+back(?:ground)?|(?:can\s+be|is|are)\s+heard|at\s+the\s+same\s+time|again))+[\s.!?]*$",
    re.IGNORECASE,
)
MUSIC = re.compile(r"\b(?:drums?\s+(?:and|&)\s+bass|rock\s+(?:and|&)\s+roll|rhythm\s+(?:and|&)\s+blues)\b", re.I)
NEGATED = re.compile(
    r"\b(?:not?(?!\s+(?:only|just|merely)\b)|without|except|instead|rather|minus|never)\b", re.IGNORECASE
)  # such a part asks for nothing
EDGES = " \t\n,;:.!?/|"

SAME = {False: 0.45, True: 0.6}
"""Cosine of conditions from which neighbours at weak and strong connectors are one sound."""
CLEAR = {False: 0.68, True: 0.5}
"""Cosine to the nearest known sound, plus 0.3 times `estimate_known`, from which a part is a sound."""
BOTH, THIRD, NAMED = 0.6, 0.05, 1.0
"""Of names with other words between them: least cosine of the whole to the two added, largest lead of a third sound's
cosine to the whole, least clearness of each."""
LONELY = 0.25  # less for a single word that names no sound ("a horse whinnies and snorts")
MOST = 12  # parts or names; a longer text stays whole
LONGEST, LONGEST_TEXT = 6, 2000  # words of a name, and characters of a text that is cut
ARTICLE = "an?|the|some|its|his|her|their"
IN = "in(?!\\s+(?:between|front|addition)\\b)|on|at|over|past|through|inside|outside|across"
OF = "of|from|by|to|for|like|into|onto|under|down|up|along|out|off|about"
BESIDE = "near(?:by)?|beside|beneath|underneath|below|above|behind|beyond|among|between|around|against|opposite|versus"
JOINED = re.compile(
    rf"""(?:\W | \b(?:{ARTICLE} | s | and | or | is | are | was | were | be | being | been)\b)*
    | (?:['’-] | (?<=['’]s)\s) .* | .*['’]s\s.*  # "fan-tailed bird", "a dog's claws clicking", "a lion tamer's whip"
    | \s+(?:is\s+|are\s+)?(?:{IN}|{OF})\b.*  # "honk from a rubber ball"
    | .*\s(?:{IN})\s+(?:{ARTICLE})\s+(?:[\w-]+\s+){{0,2}}  # "a cat hisses at a strange dog"
    | \s+(?!(?:{BESIDE})\b)[\w-]*[^s\W]\s+(?:(?:{ARTICLE})\s+)?  # a word that is no verb: "library book stamp"
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""What is between names of one description ("water running in a sink")."""
CHANGE = re.compile(
    rf"(?:.*\b(?:goes|going|went|chang|fad|jump|mov|pass|shift|switch|transition|turn)\w*\s+)?from\s+(?:(?:{ARTICLE})\s+)?",
    re.IGNORECASE | re.DOTALL,
)
TO = re.compile(rf"\s+to\s+(?:(?:{ARTICLE})\s+)?", re.IGNORECASE)
"""What is before the first name and behind it if a sentence is about a change ("it goes from wind to rain")."""
Span = tuple[int, int]


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


def shorten(text: str) -> tuple[str, ...]:
    """The words of a text, each in its shortest form without an English ending."""
    return tuple(min(word_forms(word), key=lambda form: (len(form), form)) for word in find_words(text))


@cache
def known_names(sounds: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """Names and wordings of all sounds, as `shorten` returns them."""
    return frozenset(map(shorten, (*described_texts(), *sounds)))


def find_names(text: str, sounds: Sequence[str]) -> list[Span]:
    """Find names of known sounds, at most `MOST`: first and last character, those of one description together."""
    words, known = list(WORD.finditer(text)), known_names(tuple(sounds))
    found: list[Span] = []
    start = 0
    while start < len(words):
        longest = 0 if re.fullmatch(ARTICLE, words[start][0], re.IGNORECASE) else LONGEST
        sizes = range(min(longest, len(words) - start), 0, -1)
        ends = {size: words[start + size - 1].end() for size in sizes}
        size = next((n for n in sizes if shorten(text[words[start].start() : ends[n]]) in known), 0)
        if size:
            begin, end = words[start].start(), words[start + size - 1].end()
            change = (
                len(found) == 1 and TO.fullmatch(text, found[0][1], begin) and CHANGE.fullmatch(text, 0, found[0][0])
            )
            if found and not change and JOINED.fullmatch(text, found[-1][1], begin):
                begin = found.pop()[0]
            found.append((begin, end))
        start += max(size, 1)
    return found if len(found) <= MOST else []


def put_together(spans: list[Span], doubt: Callable[[Span, Span], float]) -> list[Span]:
    """Join neighbouring spans, the most doubtful pair first, until the doubts about all pairs are at most 0."""
    while len(spans) > 1:
        doubts = [doubt(one, other) for one, other in pairwise(spans)]
        worst = doubts.index(max(doubts))
        if doubts[worst] <= 0:
            break
        spans[worst : worst + 2] = [(spans[worst][0], spans[worst + 1][1])]
    return spans


class Judge:
    """Conditions of the parts of a sentence, and doubts that neighbours among them are two sounds.

    Args:
        text: of the query.
        cuts: for the last character of each part before a connector, whether it is a strong one.
        encoder: of the model.
        sounds: labels that the model knows.
    """

    def __init__(self, text: str, cuts: dict[int, bool], encoder: JointEncoder, sounds: Sequence[str]) -> None:
        self.text, self.cuts, self.encoder, self.sounds = text, cuts, encoder, set(map(shorten, sounds))
        self.labels = encoder.embed_labels(sounds)
        self.known: dict[str, tuple[Tensor, float, float]] = {}

    def read(self, *spans: Span) -> list[tuple[Tensor, float, float]]:
        """The condition (dim,) of each span, the cosine to its nearest known sound, and how clear it is (`CLEAR`)."""
        names = [trim(self.text[begin:end]) for begin, end in spans]
        new = [name for name in dict.fromkeys(names) if name not in self.known]
        vectors: Iterable[Tensor] = self.encoder.encode_text(new) if new else ()
        for name, vector in zip(new, vectors, strict=True):
            known = 1.0 if shorten(name) in self.sounds else estimate_known(name, self.encoder)
            nearest = float((self.labels @ vector).max())
            lonely = known < 1 and len(find_words(name)) == 1
            self.known[name] = (vector, nearest, nearest + 0.3 * known - LONELY * lonely)
        return [self.known[name] for name in names]

    def aspects(self, one: Span, other: Span) -> float:
        """Doubt that parts beside a connector are two sounds."""
        strong = self.cuts[one[1]]
        (first, _, clear), (second, _, also) = self.read(one, other)
        return max(float(first @ second) - SAME[strong], CLEAR[strong] - min(clear, also))

    def one_sound(self, one: Span, other: Span) -> float:
        """Doubt that names with other words between them are two sounds: the whole should mean both."""
        if NEGATED.search(self.text[one[1] : other[0]]) or any(one[1] <= end < other[0] for end in self.cuts):
            return 1.0  # what is at connectors was judged before
        (first, _, clear), (second, _, also), (both, nearest, _) = self.read(one, other, (one[0], other[1]))
        added = float(both @ (first + second) / (first + second).norm())
        lead = nearest - max(float(both @ first), float(both @ second))
        return max(float(first @ second) - SAME[False], NAMED - min(clear, also), BOTH - added, lead - THIRD)

    def widen(self, names: list[Span], begin: int, end: int) -> list[Span]:
        """Names with the words before the first and behind the last one, if these are clear too; one name is all."""
        if len(names) < 2:
            return [(begin, end)]
        first, last = (begin, names[0][1]), (names[-1][0], end)
        if not CHANGE.fullmatch(self.text, begin, names[0][0]) and self.read(first)[0][2] >= NAMED:
            names[0] = first
        if self.read(last)[0][2] >= NAMED:
            names[-1] = last
        return names


def split_sentence(text: str, encoder: JointEncoder, sounds: Sequence[str]) -> dict[str, Tensor]:
    """Return the sounds that a sentence names, with their conditions (dim,); none if it names one sound.

    Args:
        text: of a query. Names and wordings of known sounds are one sound.
        encoder: of the model.
        sounds: labels that the model knows.
    """
    if len(text) > LONGEST_TEXT:  # the time to cut it grows with its square
        return {}
    (spans, strong), words = cut(text), find_words(text)
    if (len(spans) < 2 and len(words) < 3) or len(spans) > MOST or " ".join(words) in described_texts():
        return {}
    if len(spans) < 2 and len(find_names(text, sounds)) < 2:
        return {}
    if any(NEGATED.match(trim(text[begin:end])) for begin, end in spans):
        return {}
    judge = Judge(text, dict(zip((end for _, end in spans), strong, strict=False)), encoder, sounds)
    judge.read(*spans)
    parts: list[Span] = []
    for begin, end in put_together(spans, judge.aspects):
        inner = [(begin + first, begin + last) for first, last in find_names(text[begin:end], sounds)]
        parts += judge.widen(put_together(inner, judge.one_sound), begin, end)
    kept: dict[str, Tensor] = {}
    for begin, end in parts:  # "a man speaks, then rain, then the man speaks"
        [(vector, *_)] = judge.read((begin, end))
        if all(float(vector @ other) <= SAME[True] for other in kept.values()):
            kept[trim(text[begin:end])] = vector
    return dict(zip(kept, encoder.encode_query(list(kept)), strict=True)) if len(kept) > 1 else {}
