"""How people ask for a sound: for every class some 15 wordings of our own, and the frames they are put in.

`wordings.json` was written without sight of the validation list's phrases; the six that coincided were taken
out, and a test keeps it so.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

FRAMES = ("{}", "the sound of {}", "{} sound", "sound of {}", "{} noise", "a recording of {}", "{} in the background")


@cache
def wordings() -> dict[str, tuple[str, ...]]:
    """Label -> wordings, the label itself not among them."""
    text = Path(__file__).with_name("wordings.json").read_text(encoding="utf-8")
    return {label: tuple(words) for label, words in json.loads(text).items()}


def texts_of(label: str, captions: tuple[str, ...] = ()) -> list[str]:
    """All texts that training may use for a label: label, framed label, wordings and captions."""
    own = wordings().get(label, ())
    framed = [frame.format(label) for frame in FRAMES]
    framed_own = [FRAMES[1 + i % (len(FRAMES) - 1)].format(text) for i, text in enumerate(own)]
    return list(dict.fromkeys([*framed, *own, *framed_own, *captions]))
