"""What a person asks for: texts, example recordings, pictures, and what to keep out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from page.limits import Limits, Refusal, queries_of, split
from separation.query import Query

FORMS = {"audio": ("example", "example recordings"), "image": ("picture", "pictures")}


@dataclass(frozen=True)
class Asked:
    """One query: what people call it, and what a Separator is asked."""

    name: str
    query: Any


def asked_of(queries: Any, without: Any, limits: Limits, find: Callable[[object], Path]) -> list[Asked]:
    """Queries as they come in: a text with commas, or a list of texts and of {"audio" or "image": file, "name": text}.

    Args:
        queries: what to take out.
        without: texts, what to keep out of every result.
        limits: see there.
        find: an upload to its path.

    Raises:
        Refusal: there is nothing usable, or too much.
    """
    parts = queries if isinstance(queries, list) else [queries]
    files = [part for part in parts if isinstance(part, dict) and set(part) & set(FORMS)]
    texts = [part for part in parts if part not in files]
    words = queries_of(texts, limits) if texts or not files else []
    if len(words) + len(files) > limits.sounds:
        raise Refusal(f"These are {len(words) + len(files)} sounds; this page takes up to {limits.sounds} at once.")
    kept_out = split(without, limits)
    asked = [Asked(word, Query(word, negative=kept_out) if kept_out else word) for word in words]
    asked += [by_file(part, kept_out, limits, find) for part in files]
    tail = f" without {' and '.join(kept_out)}" if kept_out else ""
    return [Asked(each.name + tail, each.query) for each in asked]


def by_file(part: dict[str, Any], without: list[str], limits: Limits, find: Callable[[object], Path]) -> Asked:
    """A query by an example recording or a picture."""
    form = next(name for name in FORMS if name in part)
    path = str(find(part[form]))
    name = " ".join(str(part.get("name") or FORMS[form][0]).split())[: limits.letters]
    given = Query(audio=path, negative=without) if form == "audio" else Query(image=path, negative=without)
    return Asked(name, given)


def check_forms(asked: list[Asked], taken: tuple[str, ...], model: str) -> None:
    """Raises Refusal where a model takes no query of a form."""
    for each in asked:
        if isinstance(each.query, Query):
            for form in each.query.forms():
                if form in FORMS and form not in taken:
                    raise Refusal(f"The model {model} takes no {FORMS[form][1]}.")
