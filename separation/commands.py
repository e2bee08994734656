"""Entry points of the console scripts. Until `separation.process` is imported, a signal ends the process at once."""

import gc
import os
import signal


def end_at_once(number: int, _: object) -> None:
    """Handle a signal while there are no temporary files."""
    os._exit(128 + number)


def handle_signals_early() -> None:
    """Let signals that are not ignored or handled otherwise end the process without a traceback."""
    for number in (getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, end_at_once)


def run(program: str, module: str) -> int:
    """Import a command's module and run its `main`; return the exit status."""
    handle_signals_early()
    from importlib import import_module

    process = import_module("separation.process")
    process.begin(program)
    status: int = process.call(program, lambda: import_module(module).main())
    return status


def separate() -> int:
    """Run `separate`."""
    gc.disable()  # until the model is loaded: imports leave no garbage, and the search takes a tenth of their time
    return run("separate", "separation.cli")


def separate_batch() -> int:
    """Run `separate-batch`."""
    return run("separate-batch", "separation.batch")


def separation_data() -> int:
    """Run `separation-data`."""
    return run("separation-data", "separation.datasets.command")


def separation_convert() -> int:
    """Run `separation-convert`."""
    return run("separation-convert", "separation.convert")


def separation_train() -> int:
    """Run `separation-train`."""
    return run("separation-train", "separation.training")


def separate_mcp() -> int:
    """Run `separate-mcp`."""
    return run("separate-mcp", "separation.mcp_server")
