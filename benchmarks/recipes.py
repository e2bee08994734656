"""Times every recipe with conf/override/debug.yaml: seconds of processor and wall clock of the whole command.

python benchmarks/recipes.py --recipes default uss --json recipes.json
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from common import ROOT, make_parser, package_environment, run_benchmark, write_json

from separation.evaluate.tables import markdown

CONF = ROOT / "conf"
START = "from separation.commands import separation_train; separation_train()"


def time_recipe(name: str, folder: str) -> tuple[float, float]:
    """Return the seconds of processor and wall clock of `separation-train fit`.

    Raises:
        RuntimeError: the training failed; with the end of what it printed.
    """
    configs = [f"--config={CONF / 'recipe' / name}.yaml", f"--config={CONF / 'override' / 'debug.yaml'}"]
    command = [sys.executable, "-c", START, "fit", *configs]
    with open(f"{folder}/{name}.log", "w+") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=package_environment(), stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        if status:
            log.seek(0)
            raise RuntimeError(f"{name}: {log.read()[-2000:]}")
    return used.ru_utime + used.ru_stime, wall


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser, names = make_parser(__doc__), sorted(file.stem for file in (CONF / "recipe").glob("*.yaml"))
    parser.add_argument("--recipes", nargs="+", choices=names, default=names, metavar="NAME")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in (options := parser.parse_args(argv)).recipes:
            processor, wall = time_recipe(name, folder)
            rows.append({"recipe": name, "processor": processor, "wall": wall})
            print(f"{name}: {processor:.1f} s, {wall:.1f} s", file=sys.stderr, flush=True)
    cells = [(f"`{row['recipe']}`", f"{row['processor']:.1f}", f"{row['wall']:.1f}") for row in rows]
    print(markdown(("recipe", "processor, s", "wall clock, s"), cells))
    write_json(options.json, rows)


if __name__ == "__main__":
    run_benchmark(main)
