"""The page: take sounds out of a recording by name, in a browser, on this computer.

    python demos/app.py          then open http://127.0.0.1:7860

It needs the `demo` extra (`pip install "separation[demo]"`). It answers to this computer only and makes no outgoing
connection, unless `--share` asks for a link. Everything it keeps lies in one temporary folder that goes when it ends.
docs/page.md has the HTTP API.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))

from page.engine import Engine
from page.limits import Limits
from page.store import Store

if TYPE_CHECKING:
    from separation.pretrained import Card


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    limits = Limits()
    parser = argparse.ArgumentParser(description="A page to take sounds out of recordings by name.")
    parser.add_argument("--host", default="127.0.0.1", help="address to answer at (default: this computer only)")
    parser.add_argument("--port", type=port, help="port (default: the first free one from 7860)")
    offered = "offer this one too: a model directory, or a released or a training's checkpoint file"
    parser.add_argument("--model", action="append", default=[], metavar="MODEL", help=offered)
    parser.add_argument("--device", help="cpu, cuda or mps (default: the best there is)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument("--share", action="store_true", help="ask Gradio for a public link for 72 hours")
    parser.add_argument("--max-minutes", type=float, default=limits.minutes, help="longest recording (%(default)g)")
    parser.add_argument("--max-megabytes", type=int, default=limits.megabytes, help="largest upload (%(default)s)")
    return parser.parse_args(arguments)


def own_model(given: str) -> tuple[str, tuple[Card, str]]:
    """What `--model` names: (name, (card, path)). A released one is fetched.

    Raises:
        ModelError: it is no model.
    """
    from separation import list_models
    from separation.pretrained import find_model, read_card

    path = find_model(given)
    card = next((card for card in list_models() if card.name == given), None) or read_card(path)
    return card.name, (card, str(path))


def absent_model(card: Card) -> dict[str, str]:
    """A model that is not on this computer, and the commands that bring it here."""
    from separation.released.systems import LISTED

    command, home, system = f"separate --model {card.name} --query rain mix.wav", "", LISTED.get(card.name)
    if system and system.file is None:  # nobody published an address that a program could use
        command, home = f"python demos/app.py --model {system.filename}", system.home
    facts = {name: getattr(card, name) for name in ("name", "description", "size", "licence")}
    return facts | {"home": home, "command": command}


def make_engine(models: list[str], device: str | None) -> Engine:
    """All models of the registry, those given by directory or file before them.

    Raises:
        ModelError: one of those given is no model, or there is no model at all.
    """
    from separation import ModelError, Separator, list_models
    from separation.wordings import wordings

    own = dict(map(own_model, models))
    known = [card for card in list_models() if card.on_disk]
    known.sort(key=lambda card: card.name != "default")
    entries = own | {card.name: (card, card.name) for card in known if card.name not in own}
    if not entries:
        raise ModelError("There is no model on this computer; --model MODEL offers one of your own.")
    cards = [card for card, _ in entries.values()]
    absent = [absent_model(card) for card in list_models() if card.name not in entries]
    return Engine(cards, lambda name: Separator.from_pretrained(entries[name][1], device), list(wordings()), absent)


def port(text: str) -> int:
    """A port's number.

    Raises:
        ValueError: it is none.
    """
    if not 1 <= int(text) <= 65535:
        raise ValueError
    return int(text)


def serve(engine: Engine, options: argparse.Namespace, limits: Limits) -> int:
    """Answers until somebody ends it; returns the exit status."""
    store = Store(keep_minutes=limits.keep_minutes)
    # Read when Gradio is imported: no statistics, no look-ups, and its files where ours are.
    os.environ.update(
        GRADIO_TEMP_DIR=str(store.root), GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", DO_NOT_TRACK="1"
    )
    from page.guard import is_loopback, stay_local
    from page.site import Site, StartError

    local = is_loopback(options.host)
    site = Site(engine, limits, store, local=local and not options.share)
    if not options.share:
        stay_local()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        url = site.launch(options.host, options.port, options.share, options.open)
        print(f"The page is at {url} (Ctrl-C ends it).", flush=True)
        # Not before: loading a model keeps a busy machine from answering in time.
        threading.Thread(target=engine.warm, daemon=True).start()
        ended.wait()
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        site.close()
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the page; returns the exit status."""
    from separation import ModelError

    options = parse(arguments)
    try:
        engine = make_engine(options.model, options.device)
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    return serve(engine, options, Limits(minutes=options.max_minutes, megabytes=options.max_megabytes))


if __name__ == "__main__":
    sys.exit(main())
