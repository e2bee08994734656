"""The models that the page offers, loaded on first use."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from page.jobs import Turn
from page.limits import Refusal
from separation.pretrained import Card

MAX_LOADED = 2
POLL_SECONDS = 0.1  # between two checks whether a user still waits for a model
FIRST_RATE = 0.4  # assumed seconds of work per second of recording, before anything has been measured


class Engine:
    """Models by name; the last two used stay loaded.

    Args:
        cards: the models on offer; the first one is the default.
        load: returns the `Separator` of a name.
        sounds: known sounds, offered as suggestions.
        absent: models that are not on this computer: name, description, size, licence, home, command to fetch them.
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
        self.default = next(iter(self.cards))
        self.turn = Turn()
        self._load = load
        self._models: OrderedDict[str, Future[Any]] = OrderedDict()
        self._pool = ThreadPoolExecutor(len(cards), thread_name_prefix="load")
        self._lock = threading.Lock()  # of `_models`; never held while a model is loaded
        self._rates: dict[tuple[str, int], float] = {}

    def card(self, name: str) -> Card:
        """The card of a model.

        Raises:
            Refusal: there is no such model.
        """
        if name not in self.cards:
            raise Refusal(f"There is no model of this name; there are: {', '.join(self.cards)}.")
        return self.cards[name]

    def models(self) -> list[dict[str, Any]]:
        """The cards as plain data."""
        fields = ("name", "description", "queries", "sample_rate", "size", "licence", "scores")
        return [{field: getattr(card, field) for field in fields} for card in self.cards.values()]

    def sounds_of(self, name: str) -> list[str]:
        """Sounds to suggest for a model: its classes, if it accepts nothing else.

        Raises:
            Refusal: there is no such model.
        """
        queries = self.card(name).queries
        if "label" not in queries or "text" in queries:
            return self.sounds
        from separation.vocabulary.ontology import classes

        return [each.name for each in classes()]

    def separator(self, name: str, check: Callable[[], None] = lambda: None) -> Any:
        """Return a model by name, never by path.

        It is loaded once for all who wait for it, in its own thread, so that nobody waits for somebody else's model.

        Args:
            name: of the model.
            check: called repeatedly while it is loaded; an exception ends the waiting.

        Raises:
            Refusal: there is no such model.
            ModelError: its files are not usable.
        """
        self.card(name)
        with self._lock:
            if name not in self._models:
                self._models[name] = self._pool.submit(self._load, name)
            future = self._models[name]
            self._models.move_to_end(name)
            while len(self._models) > MAX_LOADED:
                self._models.popitem(last=False)
        while not wait([future], POLL_SECONDS).done:
            check()
        if future.exception() is not None:  # the next request tries again
            with self._lock:
                if self._models.get(name) is future:
                    del self._models[name]
        return future.result()

    def warm_up(self) -> None:
        """Load the default model and its known sounds before the first request. Errors are shown at that request."""
        with contextlib.suppress(Exception):
            self.separator(self.default).list_sounds_in_blocks([], 8000, 0.0)

    def rate(self, name: str, queries: int) -> float:
        """Expected seconds of work per second of recording."""
        return self._rates.get((name, queries), FIRST_RATE * (0.7 + 0.3 * queries))

    def learn(self, name: str, queries: int, seconds: float, work: float) -> None:
        """Record the time of a finished job; very short recordings tell nothing."""
        if seconds >= 2.0:
            self._rates[name, queries] = work / seconds
