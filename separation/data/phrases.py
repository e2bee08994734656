"""A caption's single sounds: "a dog barks while rain falls" says two things.

Rules, no parser: a caption is split at commas and at words that join what sounds together or one after another. Some
expressions hold such a word and are one sound, and a part that names no sound of its own ("loud, fast-moving water",
"a man and a woman talk", "a drill runs and stops") stays with its neighbour.
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
    "black and white", "hustle and bustle", "one after another", "one after the other", "start and stop", "off and on",
    r"as well(?!\s+as\b)", r"(?:[a-z]\.){2,}",
)  # fmt: skip
FRAME = re.compile(r"^(?:(?:the|a|some)\s+)?(?:sounds?(?:\s+mixture)?|mixture|recording|noises?)\s+of\s+", re.I)
MARK = r"(?:(?<!\d)[,;:.]|[,;:.](?!\d))+"  # not those of 2.5 and 1,000
JOINT = rf"(?:{'|'.join(JOINTS)})\s+"
SPLIT = re.compile(rf"(\s*{MARK}\s*(?:{JOINT})?|\s+{JOINT})", re.I)
LEADING = re.compile(r"^(?:and|or|then|while|as|with|also|followed\s+by|before|after)(?:\s+|$)", re.I)
BLANK, POINT = "\x00", "\x01"  # stand in for those within what is kept

# Words that say how something sounds, and not what: before a sound, behind one, how one goes on, and who is heard.
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
GOES_ON = {
    "stop", "stops", "stopped", "stopping", "start", "starts", "started", "starting", "begin", "begins", "continue",
    "continues", "fade", "fades", "fading", "slow", "slows", "slowing", "pass", "passes", "passing", "approach",
    "approaches", "approaching", "end", "ends",
}  # fmt: skip
PEOPLE = {
    "man", "men", "woman", "women", "male", "males", "female", "females", "boy", "boys", "girl", "girls", "child",
    "children", "kid", "kids", "adult", "adults", "person", "people", "baby", "babies", "lady", "ladies", "guy",
    "guys", "individual", "individuals",
}  # fmt: skip
LITTLE = {
    "a", "an", "the", "some", "very", "more", "much", "it", "they", "two", "three", "four", "several", "few",
    "many", "and", "or", "then",
}  # fmt: skip
SOUNDS_LIKE_HOW = {"fly", "housefly", "butterfly", "dragonfly"}
SIDE_BY_SIDE = re.compile(r"\s*(?:[,;]\s*)?(?:(?:and|or)\s+)?", re.I)
IN_TURN = re.compile(r"\s*(?:[,;]\s*)?(?:(?:and|or)\s+)?(?:then\s+)?", re.I)


def phrases(caption: str) -> list[str]:
    """The phrases of a caption, in its order, each once, capitalised; a caption without words gives none.

    A frame ("the sound of ...", "a recording of ...") does not belong to what sounds and is left out.
    """
    text = FRAME.sub("", " ".join(caption.split()))
    for kept in KEPT:
        text = re.sub(rf"(?<!\w){kept}(?!\w)", lambda m: m[0].replace(" ", BLANK).replace(".", POINT), text, flags=re.I)
    found: dict[str, str] = {}
    for part in map(cleaned, together(SPLIT.split(text))):
        if re.search(r"\w", part):
            found.setdefault(part.lower(), part[0].upper() + part[1:])
    return list(found.values())


def together(pieces: Sequence[str]) -> list[str]:
    """The parts of a caption, those that name no sound joined to their neighbours as the caption does.

    Args:
        pieces: part, joint, part, joint and so on.
    """
    parts, joints = list(pieces[::2]), [*pieces[1::2], "."]
    found = parts[:1]
    for number, part in enumerate(parts[1:], 1):
        leads = bool(SIDE_BY_SIDE.fullmatch(joints[number])) and number + 1 < len(parts)
        if belongs(found[-1], joints[number - 1], part, leads):
            found[-1] += joints[number - 1] + part
        else:
            found.append(part)
    return [part.replace(BLANK, " ").replace(POINT, ".") for part in found]


def belongs(before: str, joint: str, part: str, leads: bool) -> bool:
    """Whether a part is of one phrase with what stands before it; `leads`: it may be of one with what comes next."""
    first, second = words(before), words(part)
    if not first or not second:
        return False
    if IN_TURN.fullmatch(joint) and (only(second, GOES_ON) or only(second, BEHIND)):
        return True
    if not SIDE_BY_SIDE.fullmatch(joint):
        return False
    if only(first, BEFORE) or (only(second, BEFORE) and not leads):
        return True
    heard = next((word for word in second if word not in LITTLE | BEFORE - PEOPLE), "")
    both = only(first, PEOPLE) and heard in PEOPLE
    return both or (first[-1] in PEOPLE and only(second, PEOPLE))


def words(part: str) -> list[str]:
    """A part's words in small letters."""
    return re.findall(r"[\w'-]+", part.lower())


def only(said: Sequence[str], kind: set[str]) -> bool:
    """Whether words are of a kind, and others among them only say how or are little ones."""
    how = {word for word in said if word.endswith("ly") and word not in SOUNDS_LIKE_HOW}
    named = kind if kind is PEOPLE or kind is GOES_ON else kind | how
    return bool(named & set(said)) and set(said) <= kind | BEFORE | BEHIND | LITTLE | how


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
