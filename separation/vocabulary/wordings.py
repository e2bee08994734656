"""How people ask for a sound: some 15 wordings of our own for every class, in `wordings.json`.

They were written without knowledge of the phrases of the validation list; a test holds that none of them coincides.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path


@cache
def wordings() -> dict[str, tuple[str, ...]]:
    """Map each label to its wordings, without the label itself."""
    text = Path(__file__).with_name("wordings.json").read_text(encoding="utf-8")
    return {label: tuple(words) for label, words in json.loads(text).items()}
