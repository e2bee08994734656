"""The model of one run of `separate`, and what it makes of the queries."""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from separation.console.messages import Reporter
from separation.console.options import QUERY_OPTIONS, UsageError
from separation.errors import AudioError, ModelError
from separation.outputs.names import Request

if TYPE_CHECKING:
    from separation.separator import Separator


MOST_THREADS = 4  # of each processor core: thousands would never be scheduled


class Model:
    """The model of a run with the options and requests of `parse`."""

    def __init__(self, options: argparse.Namespace, requests: Sequence[Request], reporter: Reporter) -> None:
        self.options, self.requests, self.reporter = options, requests, reporter

    @property
    def is_loaded(self) -> bool:
        """Whether the separator has been used."""
        return "separator" in vars(self)

    @cached_property
    def separator(self) -> Separator:
        """The model, loaded for the first readable file."""
        import torch

        from separation.separator import Separator

        options = self.options
        if options.threads:
            torch.set_num_threads(min(options.threads, MOST_THREADS * (os.cpu_count() or 1)))
        try:
            how = {name: getattr(options, name) for name in ("faithful", "precision", "trust")}
            device = None if options.device == "auto" else options.device
            separator = Separator.from_pretrained(options.model, device=device, offline=options.offline or None, **how)
        except ModelError as error:
            raise UsageError(str(error)) from None
        if not gc.isenabled():  # see `commands.separate`
            gc.freeze()
            gc.enable()
        self.reporter.detail(f"model {separator.name}, device {options.device}.")
        return separator

    @cached_property
    def queries(self) -> list[Any]:
        """The queries, read and encoded once for all files."""
        try:
            return [self.separator.encode(request.query) for request in self.requests]
        except NotImplementedError as error:  # a form of query that the encoder does not take
            taken, asked = {"embedding", *self.separator.encoder.modalities}, {form for form, _ in self.options.query}
            known = ", ".join(option for option, _, form, _ in QUERY_OPTIONS if form in taken)
            refused = ", ".join(option for option, _, form, _ in QUERY_OPTIONS if form in asked - taken)
            general = refused and str(error).startswith(type(self.separator.encoder).__name__)
            text = f"The model {self.separator.name} takes no {refused}; it takes {known}." if general else str(error)
            raise UsageError(text) from None
        except (AudioError, ModelError, ValueError) as error:
            raise UsageError(str(error)) from None

    @cached_property
    def hints(self) -> list[dict[str, Any]]:
        """Hints for queries that the model may not know; each is printed once."""
        hints = {hint.query: hint for request in self.requests for hint in self.separator.suggest(request.query)}
        for hint in hints.values():
            self.reporter.notice(f"{hint} --as-one takes it as one." if hint.parts else str(hint))
        return [asdict(hint) for hint in hints.values()]
