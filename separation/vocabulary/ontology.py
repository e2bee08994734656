"""The 527 AudioSet classes in the order of published taggers, and the tree above them.

Names and ids are part of the package (`audioset_classes.csv`, from AudioSet, Google, CC BY 4.0). The tree is under
CC BY-SA 4.0 and is not: `read_tree` reads the published `ontology.json` (github.com/audioset/ontology).
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from separation.errors import ModelError, expand_home
from separation.storage.folders import cache_folder


class OntologyError(ModelError, ValueError):
    """An unknown class, or an ontology file that is missing or not valid."""


@dataclass(frozen=True)
class SoundClass:
    """An AudioSet class: its index in a tagger's output, its machine id, and its name."""

    index: int
    mid: str
    name: str


@cache
def classes() -> tuple[SoundClass, ...]:
    """All 527 classes, by index."""
    with Path(__file__).with_name("audioset_classes.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return tuple(SoundClass(i, row["mid"], row["name"]) for i, row in enumerate(rows))


@cache
def tagger_classes() -> tuple[SoundClass, ...]:
    """The 521 of them that YAMNet knows, in the order of its output."""
    missing = {"/m/05zppz", "/m/02zsn", "/m/04gy_2", "/t/dd00003", "/t/dd00004", "/t/dd00032"}
    return tuple(each for each in classes() if each.mid not in missing)


@cache
def class_names() -> dict[str, int]:
    """Map lower-case names, ids and indices to indices, and synonyms (parts of a name) that only one class has."""
    names: dict[str, int] = {}
    synonyms: dict[str, set[int]] = {}
    for each in classes():
        names |= {each.name.lower(): each.index, each.mid: each.index, str(each.index): each.index}
        for part in each.name.lower().split(", "):
            synonyms.setdefault(part, set()).add(each.index)
    return {part: owners.pop() for part, owners in synonyms.items() if len(owners) == 1} | names


def class_index(label: str | int) -> int:
    """Return the index (0 to 526) of a class given by name ("Dog"), id ("/m/0bt9lr"), synonym or index.

    Raises OntologyError for others, which names similar classes.
    """
    key = " ".join(str(label).split()).lower()
    if key in class_names():
        return class_names()[key]
    # Names that share words with the text, most words first, then shortest; "bark" and "barking" count as one word.
    counts = {name: 0 for name in class_names()}
    for name in counts:
        for word in re.findall(r"\w+", key):
            pairs = [sorted((word, other), key=len) for other in re.findall(r"\w+", name)]
            counts[name] += any(len(short) > 2 and long.startswith(short) for short, long in pairs)
    names = sorted((name for name in counts if counts[name]), key=lambda name: (-counts[name], len(name)))
    names = names or get_close_matches(key, list(class_names()), 5, 0.6)
    close = list(dict.fromkeys(classes()[class_names()[name]].name for name in names))[:3]
    raise OntologyError(f"{label!r} is no AudioSet class{'; close to it: ' + ', '.join(close) if close else ''}.")


@dataclass
class Node:
    """A node of the tree. `index` is None if it is not one of the 527 classes."""

    mid: str
    name: str
    index: int | None
    child_mids: frozenset[str]
    children: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def class_indexes(self) -> list[int]:
        """Indices of the classes in this subtree, its own first."""
        return [node.index for node in self.walk() if node.index is not None]


def read_tree(path: str | Path | None = None) -> list[Node]:
    """Read the roots of the tree in an `ontology.json`.

    A class with several parents is placed under one of them, as in USS: nodes are placed in the file's order, each
    under the first node, depth first, that lists it as a child.

    Args:
        path: the file; by default AUDIOSET_ONTOLOGY, or `ontology.json` in the cache folder.

    Raises:
        OntologyError: the file is missing or not an ontology.
    """
    path = expand_home(path or os.environ.get("AUDIOSET_ONTOLOGY") or cache_folder() / "ontology.json")
    try:
        nodes = json.loads(path.read_text(encoding="utf-8"))
        entries = [(node["id"], node["name"], frozenset(node["child_ids"])) for node in nodes]
    except FileNotFoundError:
        raise OntologyError(
            f"AudioSet's ontology is missing, {path} is not there: get ontology.json from github.com/audioset/ontology "
            "and put it there, or name it in AUDIOSET_ONTOLOGY."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise OntologyError(
            f"{path} is not an AudioSet ontology (a JSON list of nodes with id, name, child_ids)."
        ) from None
    indexes = {each.mid: each.index for each in classes()}
    roots: list[Node] = []
    for mid, name, child_mids in entries:
        parent = next((node for root in roots for node in root.walk() if mid in node.child_mids), None)
        (parent.children if parent else roots).append(Node(mid, name, indexes.get(mid), child_mids))
    return roots


def subtree(label: str | int, path: str | Path | None = None) -> list[int]:
    """Return the indices of a class and of all classes below it, its own first, as in USS's hierarchy.

    `label` is a name, id or index of a class, or name or id of any other node ("Human sounds"); `path` as in
    `read_tree`. Raises OntologyError if there is no such node, or no class below it.
    """
    nodes = [node for root in read_tree(path) for node in root.walk()]
    key = " ".join(str(label).split()).lower()
    found = next((node for node in nodes if key in (node.mid, node.name.lower())), None)
    if found is None:
        index = class_index(label)
        found = next((node for node in nodes if node.index == index), None)
    if found is None:
        raise OntologyError(f"{label!r} is not part of this ontology.")
    if not found.class_indexes():
        raise OntologyError(f"{label!r} has no class below it that a tagger knows.")
    return found.class_indexes()
