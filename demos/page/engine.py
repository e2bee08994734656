"""The models that the page offers, loaded when they are first asked for."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from page.jobs import Turn
from page.limits import Refusal

KEEP = 2
GUESS = 0.4
"""Seconds of work for a second of recording, before anything has been measured."""


class Described(Protocol):
    """What the page shows of a model: a card of `separation.list_models`."""

    name: str
    description: str
    queries: tuple[str, ...]
    sample_rate: int
    size: str
    licence: str
    scores: str


class Engine:
    """Models by name; the last two that were used stay loaded.

    Args:
        cards: the models that may be asked for, the first one is the page's default.
        load: a name to a `Separator`.
        sounds: what the models are known to separate, offered as suggestions.
    """

    def __init__(self, cards: Sequence[Described], load: Callable[[str], Any], sounds: Sequence[str] = ()) -> None:
        self.cards = {card.name: card for card in cards}
        self.sounds = list(sounds)
        self.turn = Turn()
        self._load = load
        self._loaded: OrderedDict[str, Any] = OrderedDict()
        self._guard = threading.Lock()
        self._rates: dict[tuple[str, int], float] = {}

    @property
    def default(self) -> str:
        """The name of the model that is used when nobody chooses."""
        return next(iter(self.cards))

    def models(self) -> list[dict[str, Any]]:
        """The cards as plain data."""
        fields = ("name", "description", "queries", "sample_rate", "size", "licence", "scores")
        return [{field: getattr(card, field) for field in fields} for card in self.cards.values()]

    def separator(self, name: str) -> Any:
        """The model of a name; never of a path, whoever asks.

        Raises:
            Refusal: there is none.
            ModelError: its files are not usable.
        """
        if name not in self.cards:
            raise Refusal(f"There is no model of this name; there are: {', '.join(self.cards)}.")
        with self._guard:
            if name not in self._loaded:
                self._loaded[name] = self._load(name)
            self._loaded.move_to_end(name)
            while len(self._loaded) > KEEP:
                self._loaded.popitem(last=False)
            return self._loaded[name]

    def warm(self) -> None:
        """Loads the default model, so that the first person need not wait for it; who asks for it hears of errors."""
        with contextlib.suppress(Exception):
            self.separator(self.default)

    def rate(self, name: str, queries: int) -> float:
        """Seconds of work for a second of recording, from the last time or a guess."""
        return self._rates.get((name, queries), GUESS * (0.7 + 0.3 * queries))

    def learn(self, name: str, queries: int, seconds: float, work: float) -> None:
        """Keeps how long the work took; very short recordings say nothing."""
        if seconds >= 2.0:
            self._rates[name, queries] = work / seconds
