"""`separate`: extract the sound that a text describes from recordings.

    separate --query "dog barking" mix.wav        writes mix.dog_barking.wav
    separate --remove "dog barking" mix.wav       writes mix.not_dog_barking.wav
    separate --gain speech=+3 mix.wav             writes mix.remix.wav
    separate --query-audio bark.wav mix.wav       writes mix.bark.wav
    separate --list mix.wav                       lists the sounds that are probably in it
    separate --all mix.wav                        writes each of them, and mix.rest.wav
    separate --live --remove wind                 microphone to speaker, as it arrives

Results go to standard output (one line per file written, or JSON), everything else to standard error. A file that
fails costs one sentence and exit status 1; the other files are still processed.

Importing this module loads neither torch nor numpy nor soundfile; they are loaded for the first readable file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from separation.console.options import UsageError, parse
from separation.process import DONE, call, say

USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run `separate`; return its exit status (0 success, 1 a file failed, 2 wrong usage, 130 interrupted)."""
    return call("separate", lambda: run(argv))


def run(argv: Sequence[str] | None) -> int:
    """Parse the options and run what they ask for."""
    try:
        options, requests = parse(argv)
        from separation.console.messages import print_models, print_sounds
        from separation.console.runner import Runner  # not for --help, which is quick

        if options.list_models:
            print_models(options.json)
        elif options.sounds is not None:
            print_sounds(options.sounds, options.json, options.model)
        elif options.live:
            from separation.console import live

            return live.run(options, requests)
        else:
            with ExitStack() as stack:
                return Runner(options, requests, stack).run()
        return DONE
    except UsageError as error:
        say("separate", str(error), *["(See separate --help.)"] * sys.stderr.isatty())
        return USAGE


if __name__ == "__main__":
    sys.exit(main())
