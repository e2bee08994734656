"""The sounds that a model can list, its labels and the classes of its tagger, joined by the table `sounds.csv`; and how
people ask for them, in `wordings.json`.

A row of the table names a sound, the AudioSet classes that mean the same, and the sounds that include it ("dog bark":
classes Bark, Bow-wow and Yip; it is included in "dog"). Each of the tagger's classes is in exactly one row; those of
the last row, which has no name, describe rooms, silence or signals and are never listed.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from separation.vocabulary.ontology import tagger_classes


@dataclass(frozen=True)
class Sound:
    """A sound that can be listed.

    Attributes:
        name: a label of the model, or a short name for a class.
        classes: indices in the tagger's output of the classes that mean the same.
        broader: names of all sounds that include it.
    """

    name: str
    classes: tuple[int, ...]
    broader: frozenset[str]

    def is_named_by(self, other: str) -> bool:
        """Whether `other` names this sound: it is the same or includes it."""
        return other == self.name or other in self.broader


@cache
def known_sounds() -> dict[str, Sound]:
    """All sounds of the table by name."""
    text = files("separation.vocabulary").joinpath("sounds.csv").read_text(encoding="utf-8")
    rows = {row["sound"]: row for row in csv.DictReader(text.splitlines()) if row["sound"]}
    number = {each.name: i for i, each in enumerate(tagger_classes())}

    def including(name: str) -> set[str]:
        direct = set(filter(None, rows[name]["broader"].split("; ")))
        return direct.union(*map(including, direct))

    sounds = {}
    for name, row in rows.items():
        classes = tuple(sorted(number[each] for each in row["classes"].split("; ") if each))
        sounds[name] = Sound(name, classes, frozenset(including(name)))
    return sounds


@cache
def wordings() -> dict[str, tuple[str, ...]]:
    """Map each label to some 15 wordings of our own, without the label itself.

    They were written without knowledge of the phrases of the validation list; a test holds that none of them coincides.
    """
    text = files("separation.vocabulary").joinpath("wordings.json").read_text(encoding="utf-8")
    return {label: tuple(words) for label, words in json.loads(text).items()}
