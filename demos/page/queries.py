"""Parses what a user asks for: texts, example recordings, pictures, and sounds to exclude."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from page.limits import Limits, Refusal, without_path
from separation.audio import AudioError
from separation.inference.changes import Span
from separation.pretrained import ModelError
from separation.query import Query, find_excluded

FORMS = {"audio": ("example", "example recordings"), "image": ("picture", "pictures")}


@dataclass(frozen=True)
class Asked:
    """A query for `Separator` and the name under which the page shows it."""

    name: str
    query: str | Query


def parse_queries(queries: Any, exclude: Any, limits: Limits, find: Callable[[object], Path]) -> list[Asked]:
    """Parse queries as the API receives them.

    Args:
        queries: a text with commas, or a list of texts and of {"audio" or "image": file, "name": text}; order is kept.
        exclude: texts of sounds that are kept out of every result.
        limits: of the page.
        find: returns the path of an uploaded file.

    Raises:
        Refusal: there is no usable query, or there are too many.
    """
    excluded = split_texts(exclude, limits)
    forms: dict[object, tuple[str, dict[str, Any]]] = {}  # a text is kept once, whatever its case
    for part in queries if isinstance(queries, list) else [queries]:
        form = next((form for form in FORMS if form in part), None) if isinstance(part, dict) else None
        if form is not None:
            name = " ".join(str(part.get("name") or FORMS[form][0]).split())[: limits.letters]
            forms[len(forms)] = name, {form: str(find(part[form]))}
        for text in split_texts(part, limits) if form is None else ():
            forms.setdefault(text.casefold(), (text, {"text": text}))
    if both := find_excluded((text for text, form in forms.values() if "text" in form), excluded):
        raise Refusal(f"“{both[0]}” is asked for and excluded at once; leave it out of one of the two.")
    if not forms:
        raise Refusal("Say which sounds, for example: dog barking.")
    if (most := max(len(forms), len(excluded))) > limits.sounds:
        raise Refusal(f"These are {most} sounds; this page takes up to {limits.sounds} at once.")
    tail = f" without {' and '.join(excluded)}" if excluded else ""
    try:
        return [
            Asked(name + tail, name if "text" in form and not excluded else Query(negative=excluded, **form))
            for name, form in forms.values()
        ]
    except ValueError as error:
        raise Refusal(explain(error)) from None


def split_texts(texts: Any, limits: Limits) -> list[str]:
    """Split texts at commas and line ends; each query is kept once.

    Raises:
        Refusal: they are not texts, or one is too long.
    """
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refusal("Queries must be texts: one, or a list of them.")
    words = [" ".join(part.split()) for text in texts for part in re.split(r"[,;\n\r]", text)]
    queries = list({word.casefold(): word for word in reversed(words) if word}.values())[::-1]
    if any(len(query) > limits.letters for query in queries):
        raise Refusal(f"A description is longer than {limits.letters} letters; a few words are enough.")
    return queries


def parse_span(start: object, end: object) -> Span | None:
    """Parse the part of a recording to process, times as in `--from` and `--to`; empty for its start and its end.

    Raises:
        Refusal: it is not a span of time.
    """
    begin, stop = (str(time or "").strip() or None for time in (start, end))
    try:
        return Span.parse((begin, stop)) if begin or stop else None
    except ValueError as error:
        raise Refusal(explain(error)) from None


def check_forms(asked: list[Asked], accepted: tuple[str, ...], model: str) -> None:
    """Raise Refusal if the model does not accept the form of a query."""
    for each in asked:
        for form in each.query.forms() if isinstance(each.query, Query) else ():
            if form in FORMS and form not in accepted:
                raise Refusal(f"The model {model} takes no {FORMS[form][1]}.")


def read_example(query: str | Query, limits: Limits) -> str | Query:
    """Return the query with the samples of its example recording instead of the file.

    Raises:
        Refusal: the example is not a recording, or is outside the limits.
    """
    if not isinstance(query, Query) or not query.audio:
        return query
    path, limits = Path(str(query.audio)), replace(limits, minutes=limits.example_minutes)
    reader = limits.open(path)
    blocks, left = [], limits.frames(reader.sample_rate)
    try:
        for block in reader.blocks():
            blocks.append(block)
            left -= block.shape[-1]
            if left < 0:
                raise Refusal(limits.too_long)
    except AudioError as error:
        raise Refusal(without_path(error, path)) from None
    return replace(query, audio=(torch.cat(blocks, dim=-1), reader.sample_rate))


def explain(error: Exception, folder: Path | None = None) -> str:
    """Return why a query cannot be used.

    Messages of this package are written for users; those of other packages are not, and are replaced.

    Args:
        error: a ModelError, ValueError or OSError.
        folder: the page's files; paths in it are left out of the message.
    """
    text = " ".join(str(error).split())
    if folder is not None:
        text = re.sub(rf"{re.escape(str(folder))}\S*", "this file", text)
    frames = list(traceback.walk_tb(error.__traceback__))
    own = bool(frames) and str(frames[-1][0].f_globals.get("__name__", "")).startswith("separation.")
    if not text or not (own or isinstance(error, ModelError)):
        return f"This query cannot be used: a file or word in it is not usable ({type(error).__name__})."
    return text[0].upper() + text[1:].rstrip(".") + "."
