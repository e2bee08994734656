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

sys.path.insert(0, str(Path(__file__).resolve().parent))

from page.engine import Engine
from page.limits import Limits
from page.store import Store


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    limits = Limits()
    parser = argparse.ArgumentParser(description="A page to take sounds out of recordings by name.")
    parser.add_argument("--host", default="127.0.0.1", help="address to answer at (default: this computer only)")
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    parser.add_argument("--model", action="append", default=[], metavar="DIR", help="offer this model directory too")
    parser.add_argument("--device", help="cpu, cuda or mps (default: the best there is)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument("--share", action="store_true", help="ask Gradio for a public link for 72 hours")
    parser.add_argument("--max-minutes", type=float, default=limits.minutes, help="longest recording (%(default)g)")
    parser.add_argument("--max-megabytes", type=int, default=limits.megabytes, help="largest upload (%(default)s)")
    return parser.parse_args(arguments)


def make_engine(directories: list[str], device: str | None) -> Engine:
    """All models of the registry, those given by directory before them.

    Raises:
        ModelError: a directory is no model, or there is no model at all.
    """
    from separation import ModelError, Separator, list_models
    from separation.data.wordings import wordings
    from separation.hub import find_model, read_card

    own = {card.name: (card, str(card.directory)) for card in (read_card(find_model(path)) for path in directories)}
    known = [card for card in list_models() if card.on_disk]
    known.sort(key=lambda card: card.name != "default")
    entries = own | {card.name: (card, card.name) for card in known if card.name not in own}
    if not entries:
        raise ModelError("There is no model on this computer; --model DIR offers one of your own.")
    cards = [card for card, _ in entries.values()]
    return Engine(cards, lambda name: Separator.from_pretrained(entries[name][1], device), list(wordings()))


def serve(engine: Engine, options: argparse.Namespace, limits: Limits) -> None:
    """Answers until somebody ends it."""
    store = Store(keep_minutes=limits.keep_minutes)
    # Read when Gradio is imported: no statistics, no look-ups, and its files where ours are.
    os.environ.update(
        GRADIO_TEMP_DIR=str(store.root), GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", DO_NOT_TRACK="1"
    )
    from page.guard import is_loopback, stay_local
    from page.site import Site

    local = is_loopback(options.host)
    site = Site(engine, limits, store, local=local and not options.share)
    if not options.share:
        stay_local()
    threading.Thread(target=engine.warm, daemon=True).start()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        _, url, _ = site.server.launch(
            server_name=options.host, server_port=options.port, share=options.share, inbrowser=options.open,
            prevent_thread_lock=True, quiet=True, run_history=False, ssr_mode=False, mcp_server=False,
            enable_monitoring=False, max_file_size=limits.megabytes * 1_000_000,
        )  # fmt: skip
        print(f"The page is at {url} (Ctrl-C ends it).", flush=True)
        ended.wait()
    finally:
        site.close()


def main(arguments: list[str] | None = None) -> int:
    """Runs the page; returns the exit status."""
    from separation import ModelError

    options = parse(arguments)
    try:
        engine = make_engine(options.model, options.device)
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    serve(engine, options, Limits(minutes=options.max_minutes, megabytes=options.max_megabytes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
