"""The models that the page offers, loaded when they are first asked for."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any

from page.jobs import Turn
from page.limits import Refusal
from separation.pretrained import Card

KEEP = 2
STEP = 0.1
"""Seconds between two looks at whether somebody still waits for a model."""

GUESS = 0.4
"""Seconds of work for a second of recording, before anything has been measured."""


class Engine:
    """Models by name; the last two that were used stay loaded.

    Args:
        cards: the models that may be asked for, the first one is the page's default.
        load: a name to a `Separator`.
        sounds: what the models are known to separate, offered as suggestions.
        absent: models that are known but not on this computer: name, description, size, licence, and the command
            that fetches them.
    """

    def __init__(
        self,
        cards: Sequence[Card],
        load: Callable[[str], Any],
        sounds: Sequence[str] = (),
        absent: Sequence[dict[str, str]] = (),
    ) -> None:
        self.cards = {card.name: card for card in cards}
        self.sounds, self.absent = list(sounds), list(absent)
        self.turn = Turn()
        self._load = load
        self._loaded: OrderedDict[str, Any] = OrderedDict()
        self._loading: dict[str, Future[Any]] = {}
        self._guard = threading.Lock()  # of the two above; never held while a model is loaded
        self._rates: dict[tuple[str, int], float] = {}

    def sounds_of(self, name: str) -> list[str]:
        """What to suggest for a model: the names of the classes that it knows, where it takes nothing else.

        Raises:
            Refusal: there is no such model.
        """
        queries = self.card(name).queries
        if "label" not in queries or "text" in queries:
            return self.sounds
        from separation.ontology import classes

        return [each.name for each in classes()]

    def card(self, name: str) -> Card:
        """The model's card.

        Raises:
            Refusal: there is no such model.
        """
        if name not in self.cards:
            raise Refusal(f"There is no model of this name; there are: {', '.join(self.cards)}.")
        return self.cards[name]

    @property
    def default(self) -> str:
        """The name of the model that is used when nobody chooses."""
        return next(iter(self.cards))

    def models(self) -> list[dict[str, Any]]:
        """The cards as plain data."""
        fields = ("name", "description", "queries", "sample_rate", "size", "licence", "scores")
        return [{field: getattr(card, field) for field in fields} for card in self.cards.values()]

    def separator(self, name: str, check: Callable[[], None] = lambda: None) -> Any:
        """The model of a name; never of a path, whoever asks.

        A model is loaded once for all who wait for it, in a thread of its own, so that nobody waits for another one.

        Args:
            name: which one.
            check: called again and again while it is loaded; what it raises ends the waiting.

        Raises:
            Refusal: there is none.
            ModelError: its files are not usable.
        """
        self.card(name)
        with self._guard:
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return self._loaded[name]
            if name not in self._loading:
                self._loading[name] = Future()
                threading.Thread(target=self._fill, args=(name, self._loading[name]), daemon=True).start()
            future = self._loading[name]
        while not wait([future], STEP).done:
            check()
        return future.result()

    def _fill(self, name: str, future: Future[Any]) -> None:
        """Loads a model and keeps it, in the place of the one that was not used for longest."""
        try:
            made = self._load(name)
        except BaseException as error:  # those who wait say it, and the next one tries again
            with self._guard:
                del self._loading[name]
            future.set_exception(error)
            return
        with self._guard:
            del self._loading[name]
            self._loaded[name] = made
            while len(self._loaded) > KEEP:
                self._loaded.popitem(last=False)
        future.set_result(made)

    def warm(self) -> None:
        """Loads the default model and lets it hear a moment of silence, so that the first person need not wait for it.

        Who asks for it hears of errors.
        """
        with contextlib.suppress(Exception):
            self.separator(self.default).list_sounds([], 8000, 0.0)

    def rate(self, name: str, queries: int) -> float:
        """Seconds of work for a second of recording, from the last time or a guess."""
        return self._rates.get((name, queries), GUESS * (0.7 + 0.3 * queries))

    def learn(self, name: str, queries: int, seconds: float, work: float) -> None:
        """Keeps how long the work took; very short recordings say nothing."""
        if seconds >= 2.0:
            self._rates[name, queries] = work / seconds
