"""What to take out of a recording, in any form that a model may understand.

    Query("dog barking")
    Query("dog barking", negative="rain")
    Query(audio="bark.wav")                                  # a recording that shows the sound; a folder; several
    Query(label="Animal", subclasses=True)                   # an AudioSet class and those below it
    Query("dog barking", audio=["a.wav", "b.wav"], weights={"audio": 2})

Nothing is read or encoded here: `conditions.py` does that, for a model's encoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from separation.encoders.base import Example

    Plain = str | int | Tensor | np.ndarray
    """A text (or a class's name, where a model knows classes only), a class number, an embedding (dim,)."""

FORMS = ("text", "label", "audio", "image", "embedding")
EMPTY = "A query is empty; say what to take out, for example: dog barking"
WORDLESS = "A query holds no word; say what to take out, for example: dog barking"


@dataclass(frozen=True, eq=False)
class Query:
    """One thing to take out of a recording.

    Several values of one form count alike: the condition is their mean (of AudioSet classes: all of them together).
    Several forms are averaged as well, with `weights`; where the encoder's vectors have unit length, so has the mean.

    Args:
        text: a description, or several.
        label: a class by name, id or number, or several.
        audio: a file, a folder of files or a waveform with its sample rate that shows the sound, or several. A tagger
            (USS) leaves out silent frames and takes the mean over segments of 2 s, as published.
        image: a picture of what sounds, a file or an array, or several.
        embedding: a condition vector (dim,), for which no encoder is needed.
        negative: what must not be in the result: anything that is a query, or several. Each is separated as well, and
            what the target shares with them is left out: see `models.excluding`.
        weights: of the forms, 1 where not given; for example {"text": 1, "audio": 2}.
        subclasses: a label also stands for the AudioSet classes below it in the ontology, as in USS's hierarchy.

    Raises:
        ValueError: it is empty, or a weight is of no use.
    """

    text: str | Sequence[str] = ()
    label: str | int | Sequence[str | int] = ()
    audio: Example | Sequence[Example] = ()
    image: Any = ()
    embedding: Tensor | np.ndarray | None = None
    negative: Query | Plain | Sequence[Query | Plain] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    subclasses: bool = False

    def __post_init__(self) -> None:
        forms = self.forms()
        texts = [text for text in forms.get("text", ()) if isinstance(text, str)]
        if not forms or not all(text.strip() for text in texts):
            raise ValueError(EMPTY)
        if not all(map(has_word, texts)):
            raise ValueError(WORDLESS)
        for name, weight in self.weights.items():
            if name not in forms:
                raise ValueError(f"weights names {name}, but the query has only {', '.join(forms)}.")
            if not 0 < weight < math.inf:
                raise ValueError(f"The weight of {name} must be a positive number, not {weight}.")

    def forms(self) -> dict[str, list[Any]]:
        """The values of each form that is given, in the order of `FORMS`."""
        found = {name: several(getattr(self, name)) for name in FORMS}
        return {name: values for name, values in found.items() if values}

    def negatives(self) -> list[Query | Plain]:
        """What must not be in the result."""
        return several(self.negative)

    @property
    def name(self) -> str:
        """What people call it: the text, the class, or the file's name; "... without ..." where there are negatives."""
        names = [name_of(form, value) for form, values in self.forms().items() for value in values]
        without = [each.name if isinstance(each, Query) else name_of("text", each) for each in self.negatives()]
        return " without ".join(" and ".join(part) for part in (names, without) if part)


def has_word(text: str) -> bool:
    """Whether a text holds a letter or digit of any script."""
    return any(map(str.isalnum, text))


def several(value: Any) -> list[Any]:
    """A value, or several, as a list; a waveform with its rate is one value."""
    if value is None:
        return []
    if isinstance(value, tuple) and len(value) == 2 and hasattr(value[0], "shape"):
        return [value]
    return list(value) if isinstance(value, list | tuple) else [value]


def name_of(form: str, value: Any) -> str:
    """What people call one value of a query."""
    if isinstance(value, Path) or (isinstance(value, str) and form in ("audio", "image", "embedding")):
        path = Path(value).absolute()
        return path.name if form == "audio" and path.is_dir() else path.stem
    if isinstance(value, str | int):
        text = " ".join(str(value).split())
        return class_name(text) if form == "label" else text
    return {"audio": "example", "image": "picture"}.get(form, "embedding")


def class_name(label: str) -> str:
    """A class's name; AudioSet's ids are looked up, numbers stay numbers, for their meaning is the model's."""
    if label.isdecimal():
        return f"class {label}"
    if not label.startswith(("/m/", "/t/")):
        return label
    from separation.ontology import OntologyError, class_index, classes

    try:
        return classes()[class_index(label)].name
    except OntologyError:
        return label
