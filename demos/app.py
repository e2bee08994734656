"""The page: extract sounds from a recording by name, in a browser, on this computer.

    python demos/app.py          then open http://127.0.0.1:7860

It needs the extra `demo` (`pip install "separation[demo]"`). It answers to this computer only and makes no outgoing
connection, unless `--share` asks for a link. All its files are in one temporary folder that is removed at its end.
docs/page.md describes the HTTP API.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import webbrowser
from pathlib import Path

from separation import process

if __name__ == "__main__":
    process.begin("app.py")  # before the slow imports
sys.path.insert(0, str(Path(__file__).resolve().parent))

from page.engine import Engine
from page.limits import Limits
from page.store import Store

from separation.pretrained import Card, ModelError, find_model, list_models, read_card


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    limits = Limits()
    parser = argparse.ArgumentParser(description="A page to extract sounds from recordings by name.")
    parser.add_argument("--host", default="127.0.0.1", help="address to answer at (default: this computer only)")
    parser.add_argument("--port", type=parse_port, help="port (default: the first free one from 7860)")
    offered = "offer this model too: a model directory, or a checkpoint file of a released system or of a training"
    parser.add_argument("--model", action="append", default=[], metavar="MODEL", help=offered)
    parser.add_argument("--device", help="cpu, cuda or mps (default: the fastest available)")
    parser.add_argument("--open", action="store_true", help="open the page in your browser")
    parser.add_argument("--share", action="store_true", help="ask Gradio for a public link for 72 hours")
    parser.add_argument("--max-minutes", type=float, default=limits.minutes, help="longest recording (%(default)g)")
    parser.add_argument("--max-megabytes", type=int, default=limits.megabytes, help="largest upload (%(default)s)")
    return parser.parse_args(arguments)


def parse_port(text: str) -> int:
    """Parse a port number; a ValueError tells argparse that it is none."""
    if not 1 <= int(text) <= 65535:
        raise ValueError
    return int(text)


def make_engine(models: list[str], device: str | None) -> Engine:
    """Offer the models given by name or path, then all registered models that are on this computer.

    Raises:
        ModelError: one of those given is not a model, or there is no model at all.
    """
    from separation import Separator
    from separation.vocabulary.sounds import wordings

    registered = {card.name: card for card in list_models()}
    offered: dict[str, tuple[Card, str]] = {}
    for given in models:
        path = find_model(given)
        card = registered.get(given) or read_card(path)
        offered[card.name] = card, str(path)
    for card in sorted(registered.values(), key=lambda card: card.name != "default"):
        if card.on_disk:
            offered.setdefault(card.name, (card, card.name))
    if not offered:
        raise ModelError("There is no model on this computer; add one with --model MODEL.")
    absent = [describe_absent(card) for card in registered.values() if card.name not in offered]
    cards = [card for card, _ in offered.values()]
    return Engine(cards, lambda name: Separator.from_pretrained(offered[name][1], device), list(wordings()), absent)


def describe_absent(card: Card) -> dict[str, str]:
    """Describe a registered model that is not on this computer, with the command that brings it here."""
    from separation.released.systems import LISTED

    command, home, system = f"separate --model {card.name} --query rain mix.wav", "", LISTED.get(card.name)
    if system and system.file is None:  # no download address was published
        command, home = f"python demos/app.py --model {system.checkpoint_name}", system.home
    facts = {name: getattr(card, name) for name in ("name", "description", "size", "licence")}
    return facts | {"home": home, "command": command}


def serve(engine: Engine, options: argparse.Namespace, limits: Limits) -> int:
    """Answer requests until a signal ends the process (see `process.begin`); return the exit status if that fails."""
    process.end_normally()
    store = Store(keep_minutes=limits.keep_minutes)
    if not options.share:  # a proxy would be asked for this computer's own address
        for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
            del os.environ[name]
    # Gradio reads these at import: no statistics, no look-ups, and its files in our folder.
    os.environ.update(
        GRADIO_TEMP_DIR=str(store.root), GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", DO_NOT_TRACK="1"
    )
    from page.guard import forbid_connections, is_loopback
    from page.site import Site, StartError

    site = Site(engine, limits, store, local=is_loopback(options.host) and not options.share)
    if not options.share:
        forbid_connections()
    try:
        url = site.launch(options.host, options.port, options.share)
        print(f"The page is at {url} (Ctrl-C ends it).", flush=True)
        if options.open:
            opened = webbrowser.open(url)
            print("It was opened in your browser." if opened else "No browser could be opened.", flush=True)
        # Only now: loading a model keeps a busy machine from answering in time.
        threading.Thread(target=engine.warm_up, daemon=True).start()
        threading.Event().wait()
    except StartError as error:
        print(error, file=sys.stderr)
    finally:
        site.close()
    return 1


def main(arguments: list[str] | None = None) -> int:
    """Run the page; return the exit status."""
    options = parse_arguments(arguments)
    try:
        engine = make_engine(options.model, options.device)
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    return serve(engine, options, Limits(minutes=options.max_minutes, megabytes=options.max_megabytes))


if __name__ == "__main__":
    sys.exit(main())
