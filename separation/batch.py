"""`separate-batch`: `separate` for collections of recordings, on one machine or a cluster.

    separate-batch --query "dog barking" recordings/ out/
    separate-batch --remove wind s3://bucket/field s3://bucket/clean --address auto

Ray Data distributes the recordings over actors, each of which holds the model, and tries those of a killed actor again.
An actor separates one recording at a time while it reads the next one and writes the one before. What is finished is
noted in journals in the folder of the outputs, from which an interrupted run continues.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from separation import collection
from separation.collection import STATE, Store, clean
from separation.console.options import LIVE_OPTIONS, Parser, UsageError, build_parser, check_model, parse, parse_array
from separation.errors import AudioError, one_sentence
from separation.outputs.names import Request, slug
from separation.process import DONE, FAILED, call, make_folder, remove, say, temporary_folder
from separation.process import temporary_path as temporary
from separation.ray_processes import ray_errors, start_ray

PROGRAM, USAGE = "separate-batch", 2
ABOUT, LOCK = f"{STATE}/options.json", f"{STATE}/lock"
CALLS = 2  # of an actor at once: one computes, the other reads and writes
ATTEMPTS = 3  # at a recording whose worker is killed
TASKS = 10_000  # at most; each is one recording, or several of a large collection
UNUSED = {
    "output", "overwrite", "skip_existing", "json", "jobs", "recursive", "list_models", "sounds", "live", *LIVE_OPTIONS
}  # fmt: skip
SAMPLES = (  # options that the outputs depend on
    "model", "faithful", "precision", "format", "subtype", "bitrate", "clip", "sound_only", "plot", "track", "span",
    "list", "all", "array",
)  # fmt: skip
DESCRIPTION = """\
Separate every recording of a collection, on all cores of this machine or on a Ray cluster.

SOURCE is a folder (searched with its subfolders), a list of recordings (.csv with a column
"path", .jsonl or .txt), or an address of an object store such as s3://bucket/folder.
OUT is a folder or address. It gets the outputs, named as by separate, in the tree of
SOURCE, and results.parquet: one row for each recording, with presence, levels and errors.

Run the same command again after a stop: it continues, and tries again what has failed.
"""
EXAMPLES = """\
examples:
  separate-batch --query "dog barking" recordings/ out/
      one worker for each core; writes out/<folder>/<name>.dog_barking.wav
  separate-batch --remove wind --format flac list.csv clean/ --workers 4 --threads 2
      the recordings of a list, with four workers of two threads
  separate-batch --list s3://bucket/field s3://bucket/sounds --address auto
      lists the sounds in each recording, on the cluster that this machine belongs to
  separate-batch --query speech recordings/ out/ --gpus 1
      one worker for each GPU (0.5: two for each)
  python -c "import pandas; print(pandas.read_parquet('out/results.parquet'))"
      reads the results

exit status: 0 success, 1 a recording failed (the others are done), 2 wrong usage, 130 interrupted.
"""


def build_batch_parser() -> Parser:
    """Return the parser: that of `separate` without what has no meaning here, and with options of its own."""
    parser = build_parser()
    parser.prog, parser.usage = PROGRAM, 'separate-batch --query "dog barking" [options] SOURCE OUT'
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    for action in parser._actions:
        if action.dest in UNUSED:
            action.help = argparse.SUPPRESS
        if action.dest == "files":
            action.metavar, action.help = "PATH", "SOURCE and OUT"
        if action.dest == "threads":
            action.help, action.default = "processor threads of each worker (default: 1)", 1
    add = parser.add_argument_group("where to run").add_argument
    add("--workers", default="auto", metavar="N", help="recordings at once (default: auto, as cores or GPUs allow)")
    add("--gpus", type=float, default=0.0, metavar="N", help="GPUs of each worker, such as 1 or 0.5 (default: 0)")
    add("--address", metavar="ADDRESS", help="Ray cluster: auto or ray's host:port (default: this machine alone)")
    parser.short_help = parser.format_help()
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run `separate-batch`; return its exit status (0 success, 1 a file failed, 2 wrong usage)."""
    return call(PROGRAM, lambda: run(argv))


def run(argv: Sequence[str] | None) -> int:
    """Check the options and process what is not finished."""
    try:
        parser = build_batch_parser()
        options, requests = parse(argv, parser)
        for action in parser._actions:
            if action.dest in UNUSED and getattr(options, action.dest) != action.default:
                raise UsageError(f"{action.option_strings[-1]} has no meaning for {PROGRAM}.")
        if len(options.files) != 2:
            raise UsageError(f"Name SOURCE and OUT, not {len(options.files)} paths.")
        if options.workers != "auto" and not (options.workers.isdecimal() and int(options.workers)):
            raise UsageError(f"--workers is auto or a number from 1, not {options.workers}.")
        if not 0 <= options.gpus <= 64:
            raise UsageError(f"--gpus is a number from 0, not {options.gpus:g}.")
        if importlib.util.find_spec("ray") is None:
            raise UsageError(f'{PROGRAM} needs Ray, which is not installed: pip install "separation[ray]".')
        if options.device == "auto":
            options.device = "cuda" if options.gpus else "cpu"
        options.array = parse_array(options.array)
        check_model(options.model, "cpu")  # workers may have devices that this machine lacks
        with ExitStack() as stack:
            return Run(options, requests, stack).process()
    except UsageError as error:
        say(PROGRAM, str(error), *[f"(See {PROGRAM} --help.)"] * sys.stderr.isatty())
        return USAGE


class Run:
    """One run; closing `stack` ends Ray and removes temporary files."""

    def __init__(self, options: argparse.Namespace, requests: list[Request], stack: ExitStack) -> None:
        self.options, self.requests, self.stack = options, requests, stack
        self.source, self.address = options.files
        self.out = Store(self.address)
        if self.out.folder:
            self.address = str(self.out.folder)
        self.counts: Counter[str] = Counter()

    def process(self) -> int:
        """Process what is not finished, write the table of results and return the exit status."""
        from separation.console.progress import describe_run

        began, quiet = time.monotonic(), self.options.quiet
        scratch = self.stack.enter_context(temporary_folder())
        notice: Callable[[str], None] = (lambda _: None) if quiet else (lambda text: say(PROGRAM, f"note: {text}"))
        sources = collection.find_sources(self.source, self.out, scratch, notice)
        if not self.out.read(ABOUT) and (names := self.out.list_names()) and LOCK not in names:
            raise UsageError(f"{self.options.files[1]} is not empty and holds no earlier run; name another folder.")
        self.lock()
        names, about, old = self.out.list_names(), self.describe_options(), self.out.read(ABOUT)
        present, rows = {clean(name) for name in names}, collection.read_results(self.out, names)
        if rows and json.loads(old) != about:
            raise UsageError(f"{self.options.files[1]} holds a run with other options; name another folder.")
        self.out.write(ABOUT, json.dumps(about).encode())
        journals = {name for name in names if name.startswith(f"{STATE}/journal-")}
        todo = []
        for path, each in sources.items():
            row = rows.get(path)
            current = row is not None and not row["error"] and row["version"] == each["version"]
            if current and present.issuperset(row["outputs"]):  # type: ignore[index]
                self.counts["skipped"] += 1
            else:
                todo.append(each)
        again = {each["path"] for each in todo}
        collection.number_names(todo, [row for path, row in rows.items() if path not in again], self.list_parts())
        with tqdm(total=len(todo), unit="file", disable=True if quiet else None) as bar:
            for row in self.separate(todo, journals) if todo else ():
                rows[row["path"]] = row
                self.counts["failed" if row["error"] else "done"] += 1
                if row["error"]:
                    with bar.external_write_mode(sys.stderr):
                        say(PROGRAM, row["error"])
                bar.update()
        if todo or journals:
            collection.write_results(self.out, rows.values(), about)
            self.out.remove(journals)
        if not quiet:
            say(PROGRAM, describe_run(self.counts, len(sources), time.monotonic() - began))
        return FAILED if self.counts["failed"] else DONE

    def lock(self) -> None:
        """Keep other runs out of a folder until the stack is closed or the process ends; an object store has no locks.

        Raises:
            UsageError: another run works there.
        """
        if self.out.folder is None or importlib.util.find_spec("fcntl") is None:
            return
        import fcntl

        make_folder(self.out.folder / STATE)
        file = self.stack.enter_context((self.out.folder / LOCK).open("a"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"Another run writes to {self.options.files[1]}; wait, or name another folder.") from None
        except OSError:  # a file system without locks
            return

    def describe_options(self) -> dict[str, str]:
        """Return what the outputs depend on, to be kept beside them."""
        what = {name: getattr(self.options, name) for name in SAMPLES}
        asked = [(each.name, str(each.query), each.target, each.residual, each.gain) for each in self.requests]
        source = self.source if "://" in self.source else os.path.abspath(self.source)
        return {"source": source, "sounds": json.dumps(asked), "options": repr(what)}

    def list_parts(self) -> list[str]:
        """Return the parts of the outputs' names, with repetitions."""
        if self.options.all:
            from separation.vocabulary.sounds import known_sounds

            return [slug(name) for name in dict.fromkeys(known_sounds())]
        return [part for each in self.requests for part in (slug(each.name), f"not_{slug(each.name)}")] or ["sounds"]

    def check_queries(self) -> None:
        """Raise UsageError, before Ray starts, if the model cannot be loaded or takes no such query."""
        from separation.console.messages import Reporter
        from separation.console.model import Model

        options = argparse.Namespace(**vars(self.options) | {"device": "cpu", "verbose": False})
        model = Model(options, self.requests, Reporter(options, False))
        _ = model.separator, model.queries

    def separate(self, todo: list[dict[str, Any]], journals: set[str]) -> Iterator[dict[str, Any]]:
        """Yield the row of each recording when it is finished; add the names of the journals to `journals`."""
        self.check_queries()
        tag, count = f"{time.time():.0f}-{os.urandom(4).hex()}", min(TASKS, len(todo))
        tasks = [
            {"journal": f"{STATE}/journal-{tag}-{first}.jsonl", "files": json.dumps(todo[first::count])}
            for first in range(count)
        ]
        journals |= {task["journal"] for task in tasks}
        staging = None
        if self.out.folder:  # outputs are completed on the disk on which they appear
            staging = temporary(self.out.folder / STATE / "staging")
            self.stack.callback(remove, staging)
        with ray_errors():
            workers = start_ray(self.options, len(tasks), self.stack)
            import ray.data

            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            for name in ("ray", "ray.data"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            data = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
                Worker,
                fn_constructor_args=(self.options, self.requests, self.address, staging, os.getcwd()),
                batch_size=1,
                num_cpus=self.options.threads,
                num_gpus=self.options.gpus,
                compute=ray.data.ActorPoolStrategy(
                    size=workers,
                    max_tasks_in_flight_per_actor=CALLS,
                    max_concurrent_calls_per_actor=CALLS,
                    enable_true_multi_threading=True,
                ),
            )
            for each in data.iter_rows():
                row = json.loads(each["row"])
                if "refused" in row:
                    raise UsageError(row["refused"])
                yield row


class Worker:
    """An actor that holds the model and separates recordings.

    Args:
        options, requests: as `console.options.parse` returns them.
        out: folder or address of the outputs.
        staging: where outputs are completed; None: in this machine's temporary folder.
        folder: the working folder of the command.
    """

    def __init__(
        self, options: argparse.Namespace, requests: list[Request], out: str, staging: Path | None, folder: str
    ) -> None:
        from separation.console.messages import Reporter
        from separation.console.model import Model

        with suppress(OSError):  # paths in the options; another machine of a cluster may lack the folder
            os.chdir(folder)
        self.options, self.requests, self.store = options, requests, Store(out)
        self.staging = staging or temporary(Path(tempfile.gettempdir()) / "staging")
        self.model = Model(options, requests, Reporter(options, False))
        self.computing, self.turn, self.slots = threading.Lock(), threading.Lock(), threading.Semaphore(CALLS)
        self.beside = ThreadPoolExecutor(CALLS)  # measures and writes

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Process the recordings of a task which are not finished; return the rows of all, or a refused query."""
        [journal], [files] = batch["journal"], batch["files"]
        entries = collection.read_journal(self.store, journal)
        for source in json.loads(files):
            entry = entries.setdefault(source["path"], {"path": source["path"], "attempts": 0, "row": None})
            if not entry["row"]:
                with self.reserve(alone=entry["attempts"] > 0):
                    entry["attempts"] += 1
                    if entry["attempts"] <= ATTEMPTS:
                        collection.write_journal(self.store, journal, entries)
                    try:
                        entry["row"] = self.process(source, entry["attempts"])
                    except UsageError as error:  # Ray would hide its sentence
                        return {"row": [json.dumps({"refused": str(error)})]}
                    collection.write_journal(self.store, journal, entries)
        return {"row": [json.dumps(entry["row"]) for entry in entries.values()]}

    @contextmanager
    def reserve(self, alone: bool) -> Iterator[None]:
        """Wait for one of the actor's slots, or all: a recording that may kill the actor takes no other with it."""
        slots = CALLS if alone else 1
        with self.turn:
            for _ in range(slots):
                self.slots.acquire()
        try:
            yield
        finally:
            self.slots.release(slots)

    def process(self, source: dict[str, Any], attempts: int) -> dict[str, Any]:
        """Separate one recording, put its outputs in place and return its row."""
        from separation.outputs.records import Record

        folder = self.staging / os.urandom(8).hex()
        label, record, notes = source["path"], Record(source["path"]), []  # type: ignore[var-annotated]
        try:
            if attempts > ATTEMPTS:
                times = f"{ATTEMPTS} times (a crash, or no memory)"
                raise AudioError(f"{label} ended its worker {times}, so it is left out.")
            (folder / "in").mkdir(parents=True)
            path = Path(source["address"])
            if "://" in source["address"]:
                path = folder / "in" / PurePosixPath(source["address"]).name
                collection.fetch(source["address"], path)
            record, notes = self.separate(source, path, folder / "out")
            found = replace_texts(asdict(record), [(f"{folder / 'out'}/", ""), (str(path), label)])
            if not record.error:
                for each in [*record.outputs, *record.plots]:
                    self.store.publish(Path(each), Path(each).relative_to(folder / "out").as_posix())
        except UsageError:  # the model takes no such query
            raise
        except Exception as error:
            known = isinstance(error, AudioError)
            record.error = str(error) if known else f"{label} could not be processed: {one_sentence(error)}"
            found = replace_texts(asdict(Record(label, error=record.error)), [])
        finally:
            remove(folder)
        found["warnings"] += notes
        return collection.make_row(source, found, attempts)

    def separate(self, source: dict[str, Any], path: Path, folder: Path) -> tuple[Any, list[str]]:
        """Separate a local file into a folder, as `separate` does; return its record and notes."""
        from separation.console.inputs import Input
        from separation.console.messages import Reporter
        from separation.console.runner import Runner
        from separation.outputs.names import Namer

        notes: list[str] = []

        class Collector(Reporter):
            def notice(self, sentence: str, kind: str = "") -> None:
                notes.append(sentence)

            def report(self, record: Any) -> None:
                """Print nothing."""

        with ExitStack() as stack:
            runner = Runner(self.options, self.requests, stack)
            runner.model, runner.reporter, runner.folder = self.model, Collector(self.options, False), folder
            runner.namer = Namer([path], True, runner.reporter.notice, first=source["number"])
            runner.workers, runner.beside = self.beside, 1
            entry = Input(path, source["path"], path.stem, error=source["error"], folder=Path(source["folder"]))
            job = runner.prepare(entry)
            stack.push(job.stack)
            if job.measured:
                with suppress(Exception):  # the error is kept
                    job.measured.result()
            with self.computing:
                runner.compute(job)
            runner.conclude(job)
        return job.record, notes


def replace_texts(record: dict[str, Any], texts: list[tuple[str, str]]) -> dict[str, Any]:
    """Return a record with parts of its texts replaced, and all of them such that UTF-8 can hold them."""
    plain = json.dumps(record, ensure_ascii=False)
    for pair in texts:
        old, new = (json.dumps(text, ensure_ascii=False)[1:-1] for text in pair)
        plain = plain.replace(old, new)
    found: dict[str, Any] = json.loads(clean(plain))
    return found
