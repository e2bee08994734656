"""The 527 AudioSet classes in the order that published taggers use, and the tree above them.

Names and ids come with the package (`data/audioset_classes.csv`, from AudioSet, Google, CC BY 4.0). The tree is under
CC BY-SA 4.0 and does not: `read_tree` takes the published `ontology.json` (github.com/audioset/ontology).
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from separation.download import cache_folder
from separation.errors import ModelError


class OntologyError(ModelError, ValueError):
    """A class is unknown, or an ontology file is not one; the message is one plain sentence."""


@dataclass(frozen=True)
class SoundClass:
    """One AudioSet class: its place in a tagger's output, its machine id, and its name."""

    index: int
    mid: str
    name: str


@cache
def classes() -> tuple[SoundClass, ...]:
    """All 527 classes, by index."""
    text = files("separation").joinpath("data/audioset_classes.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return tuple(SoundClass(i, row["mid"], row["name"]) for i, row in enumerate(rows))


@cache
def _by_name() -> dict[str, int]:
    """Lower-case names, ids and numbers to indexes; a synonym of a comma list only where no other class has it."""
    names: dict[str, int] = {}
    parts: dict[str, set[int]] = {}
    for each in classes():
        names |= {each.name.lower(): each.index, each.mid: each.index, str(each.index): each.index}
        for part in each.name.lower().split(", "):
            parts.setdefault(part, set()).add(each.index)
    return {part: owners.pop() for part, owners in parts.items() if len(owners) == 1} | names


def class_index(label: str | int) -> int:
    """The index (0 to 526) of a class given by name ("Dog"), id ("/m/0bt9lr"), synonym ("man speaking") or index.

    Raises:
        OntologyError: no class is called so; the message names the closest ones.
    """
    key = " ".join(str(label).split()).lower()
    index = _by_name().get(key)
    if index is None:
        raise OntologyError(f"{label!r} is no AudioSet class{_closest(key)}.")
    return index


def _sharing_words(key: str) -> list[str]:
    """Names of classes that share a word with a text, "bark" with "barking" too; most words, then shortest first."""

    def shared(name: str) -> int:
        return sum(any(_same_stem(word, other) for other in re.findall(r"\w+", name)) for word in wanted)

    wanted = re.findall(r"\w+", key)
    counts = {name: shared(name) for name in _by_name()}
    return sorted((name for name, count in counts.items() if count), key=lambda name: (-counts[name], len(name)))


def _same_stem(one: str, other: str) -> bool:
    """Whether one word, of three letters or more, begins the other."""
    short, long = sorted((one, other), key=len)
    return len(short) > 2 and long.startswith(short)


def _closest(key: str) -> str:
    """A clause that names the classes with the most similar names."""
    from difflib import get_close_matches

    names = _sharing_words(key) or get_close_matches(key, list(_by_name()), 5, 0.6)
    found = {_by_name()[name]: None for name in names}
    return f"; close to it: {', '.join(classes()[i].name for i in list(found)[:3])}" if found else ""


@dataclass
class Node:
    """A node of the tree; `index` is None where a tagger has no such class. Roots have level 1."""

    mid: str
    name: str
    index: int | None
    level: int
    child_mids: frozenset[str]
    children: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """This node and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def class_indexes(self) -> list[int]:
        """Indexes of the classes in this subtree, its own first."""
        return [node.index for node in self.walk() if node.index is not None]


def read_tree(path: str | Path) -> list[Node]:
    """The roots of the tree in an `ontology.json`.

    A class with several parents lives under one: nodes are placed in the file's order, each under the first node, depth
    first, that names it as a child. USS numbers its hierarchy so.

    Raises:
        OntologyError: the file is missing or is no ontology.
    """
    indexes = {each.mid: each.index for each in classes()}
    roots: list[Node] = []
    for mid, name, children in _entries(Path(path)):
        parent = next((node for root in roots for node in root.walk() if mid in node.child_mids), None)
        node = Node(mid, name, indexes.get(mid), parent.level + 1 if parent else 1, frozenset(children))
        (parent.children if parent else roots).append(node)
    return roots


def subtree(label: str | int, path: str | Path | None = None) -> list[int]:
    """Indexes of a class and of all classes below it, its own first, as USS's hierarchy has them.

    The label may also name a node that is no class itself ("Human sounds").

    Args:
        label: name, id or index.
        path: the ontology; by default AUDIOSET_ONTOLOGY, or `ontology.json` in the folder for fetched files.

    Raises:
        OntologyError: there is no such node, no class below it, or no ontology at hand.
    """
    roots = read_tree(ontology_file() if path is None else path)
    key = " ".join(str(label).split()).lower()
    nodes = [node for root in roots for node in root.walk()]
    found = next((node for node in nodes if key in (node.mid, node.name.lower())), None)
    if found is None:
        index = class_index(label)
        found = next((node for node in nodes if node.index == index), None)
    if found is None:
        raise OntologyError(f"{label!r} stands nowhere in this ontology.")
    if not found.class_indexes():
        raise OntologyError(f"{label!r} has no class below it that a tagger knows.")
    return found.class_indexes()


def ontology_file() -> Path:
    """Where the published ontology lies.

    Raises:
        OntologyError: nowhere.
    """
    named = os.environ.get("AUDIOSET_ONTOLOGY")
    path = Path(named).expanduser() if named else cache_folder() / "ontology.json"
    if not path.is_file():
        raise OntologyError(
            f"The classes below a class stand in AudioSet's ontology, and {path} is not there: get ontology.json from "
            "github.com/audioset/ontology and put it there, or name it in AUDIOSET_ONTOLOGY."
        )
    return path


def _entries(path: Path) -> list[tuple[str, str, list[str]]]:
    """(id, name, children's ids) of every node of an ontology file, in its order."""
    try:
        nodes: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return [(node["id"], node["name"], list(node["child_ids"])) for node in nodes]
    except FileNotFoundError:
        raise OntologyError(f"{path} is not there; get ontology.json from github.com/audioset/ontology.") from None
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError):
        raise OntologyError(
            f"{path} is no AudioSet ontology (a JSON list of nodes with id, name, child_ids)."
        ) from None


def levels(roots: list[Node]) -> dict[int, list[Node]]:
    """The nodes of every level, 1 for the roots, each level in depth-first order."""
    found: dict[int, list[Node]] = {}
    for root in roots:
        for node in root.walk():
            found.setdefault(node.level, []).append(node)
    return found
