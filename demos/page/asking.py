"""What a person asks for: texts, example recordings, pictures, and what to keep out."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from page.limits import Limits, Refusal, queries_of, split
from separation.pretrained import ModelError
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
    asked = [Asked(word, query_of(kept_out, text=word) if kept_out else word) for word in words]
    asked += [by_file(part, kept_out, limits, find) for part in files]
    tail = f" without {' and '.join(kept_out)}" if kept_out else ""
    return [Asked(each.name + tail, each.query) for each in asked]


def by_file(part: dict[str, Any], without: list[str], limits: Limits, find: Callable[[object], Path]) -> Asked:
    """A query by an example recording or a picture."""
    form = next(name for name in FORMS if name in part)
    path = str(find(part[form]))
    name = " ".join(str(part.get("name") or FORMS[form][0]).split())[: limits.letters]
    return Asked(name, query_of(without, **{form: path}))


def query_of(without: list[str], **forms: Any) -> Query:
    """A query of these forms, with what to keep out.

    Raises:
        Refusal: it says nothing.
    """
    try:
        return Query(negative=without, **forms)
    except ValueError as error:
        raise Refusal(reason(error)) from None


def reason(error: Exception, path: Path | None = None) -> str:
    """Why something cannot be asked for: this package's own words, where the error has them.

    Args:
        error: a ModelError, ValueError or OSError.
        path: what to leave out of the sentence, with all that lies in it: the folder of the page's files.
    """
    text = " ".join(str(error).split())
    if path is not None:
        text = re.sub(rf"{re.escape(str(path))}\S*", "this file", text)
    if not text or not (isinstance(error, ModelError) or is_ours(error)):
        return f"This cannot be asked for: a file or word of the query is not usable ({type(error).__name__})."
    return text[0].upper() + text[1:].rstrip(".") + "."


def is_ours(error: Exception) -> bool:
    """Whether code of this package raised it; what other packages say is not meant for people at a page."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and str(frames[-1][0].f_globals.get("__name__", "")).startswith("separation.")


def check_forms(asked: list[Asked], taken: tuple[str, ...], model: str) -> None:
    """Raises Refusal where a model takes no query of a form."""
    for each in asked:
        if isinstance(each.query, Query):
            for form in each.query.forms():
                if form in FORMS and form not in taken:
                    raise Refusal(f"The model {model} takes no {FORMS[form][1]}.")
