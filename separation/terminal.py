"""What `separate` says: results to standard output, everything else to standard error.

Names of files and queries are printed whatever the terminal's encoding; an output that takes nothing any more is one
sentence, not a traceback.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from separation.errors import reason


class StandardOutputError(Exception):
    """Standard output takes nothing any more; the message says why."""


@contextlib.contextmanager
def standard_output() -> Iterator[None]:
    """Turns what the system says about standard output into a sentence; a reader who left is no error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StandardOutputError(f"standard output cannot be written: {reason(error)}.") from None


def drop_standard_output() -> None:
    """Lets go of what is still to be written, so that Python does not complain about it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def put(line: str) -> None:
    """Prints to standard output whatever the name, also one that its encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    with standard_output():
        print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def say(sentence: str) -> None:
    """Prints to standard error."""
    line = f"separate: {sentence}"
    encoding = sys.stderr.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr, flush=True)


def print_json(data: dict[str, Any]) -> None:
    """Prints one line of JSON to standard output."""
    import json

    with standard_output():
        print(json.dumps(data), flush=True)


def is_terminal(stream: Any) -> bool:
    """Whether a person looks at it."""
    return bool(getattr(stream, "isatty", lambda: False)())
