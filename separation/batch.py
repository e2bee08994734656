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
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from separation import collection
from separation.cli_options import LIVE_OPTIONS, Parser, UsageError, build_parser, check_model, parse, parse_array
from separation.collection import STATE, Store, clean
from separation.errors import AudioError, DataError, one_sentence
from separation.outputs import Request, slug
from separation.process import DONE, FAILED, SIGNALS, call, make_folder, remove, say, silence, temporary_folder
from separation.process import temporary_path as temporary

PROGRAM, USAGE = "separate-batch", 2
ABOUT = f"{STATE}/options.json"
CALLS = 2  # of an actor at once: one computes, the other reads and writes
ATTEMPTS = 3  # at a recording whose worker is killed
TASKS = 10_000  # at most; each is one recording, or several of a large collection
SOCKET_BYTES = 107 - len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
STORE_BYTES = 80 << 20  # of Ray's object store on one machine; it holds lists of paths and rows
UNUSED = {
    "output", "overwrite", "skip_existing", "json", "jobs", "recursive", "list_models", "sounds", "live", *LIVE_OPTIONS
}  # fmt: skip
SAMPLES = (  # options that the outputs depend on
    "model", "faithful", "precision", "format", "subtype", "bitrate", "clip", "sound_only", "plot", "track", "span",
    "list", "all", "array",
)  # fmt: skip
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_agent_register_timeout_ms": "300000",  # on a busy machine its processes start slowly
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # on Linux too, Ray then asks for no address of this machine

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
    except (AudioError, DataError) as error:
        say(PROGRAM, str(error))
        return FAILED


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
        from separation.cli_progress import describe_run

        began, quiet = time.monotonic(), self.options.quiet
        scratch = self.stack.enter_context(temporary_folder())
        notice: Callable[[str], None] = (lambda _: None) if quiet else (lambda text: say(PROGRAM, f"note: {text}"))
        sources = collection.find_sources(self.source, self.out, scratch, notice)
        names, about = self.out.list_names(), self.describe_options()
        present, rows = {clean(name) for name in names}, collection.read_results(self.out, names)
        old = self.out.read(ABOUT)
        if names and not old:
            raise UsageError(f"{self.options.files[1]} is not empty and holds no earlier run; name another folder.")
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

    def describe_options(self) -> dict[str, str]:
        """Return what the outputs depend on, to be kept beside them."""
        names = [
            "model",
            "faithful",
            "precision",
            "format",
            "subtype",
            "bitrate",
            "clip",
            "sound_only",
            "plot",
            "track",
            "span",
            "list",
            "all",
        ]
        what = {name: getattr(self.options, name) for name in names}
        asked = [(each.name, str(each.query), each.target, each.residual, each.gain) for each in self.requests]
        source = self.source if "://" in self.source else os.path.abspath(self.source)
        return {"source": source, "sounds": json.dumps(asked), "options": repr(what)}

    def list_parts(self) -> list[str]:
        """Return the parts of the outputs' names, with repetitions."""
        if self.options.all:
            from separation.sounds import known_sounds

            return [slug(name) for name in dict.fromkeys(known_sounds())]
        return [part for each in self.requests for part in (slug(each.name), f"not_{slug(each.name)}")] or ["sounds"]

    def separate(self, todo: list[dict[str, Any]], journals: set[str]) -> Iterator[dict[str, Any]]:
        """Yield the row of each recording when it is finished; add the names of the journals to `journals`."""
        tag, count = f"{time.time():.0f}-{os.urandom(4).hex()}", min(TASKS, len(todo))
        tasks = [
            {"journal": f"{STATE}/journal-{tag}-{first}.jsonl", "files": json.dumps(todo[first::count])}
            for first in range(count)
        ]
        journals |= {task["journal"] for task in tasks}
        staging = None
        if self.out.folder:  # outputs are completed on the disk on which they appear
            make_folder(self.out.folder / STATE)
            staging = temporary(self.out.folder / STATE / "staging")
            self.stack.callback(remove, staging)
        with ray_errors():
            workers = self.start_ray(len(tasks))
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
                yield json.loads(each["row"])

    def start_ray(self, tasks: int) -> int:
        """Start Ray on this machine, or connect to a cluster; return the number of workers."""
        options = self.options
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        os.environ |= (SETTINGS if options.address else SETTINGS | LOOPBACK) | os.environ
        import ray

        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        workers = 0 if options.workers == "auto" else min(int(options.workers), tasks)
        if ray.is_initialized():
            pass
        elif options.address:
            connect(address=options.address)
            self.stack.callback(ray.shutdown)
        else:
            folder = temporary(Path(tempfile.gettempdir()) / "ray", short=True)
            if len(os.fsencode(folder)) > SOCKET_BYTES:
                folder = temporary(Path("/tmp", "ray"), short=True)
            self.stack.callback(remove, folder)
            self.stack.callback(stop_ray)
            processors = options.threads * (workers or min(max(1, cores // options.threads), tasks))
            connect(address="local", num_cpus=processors, include_dashboard=False, object_store_memory=STORE_BYTES,
                    _temp_dir=str(folder))  # fmt: skip
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray has taken them
                signal.signal(number, handler)
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        room = there.get("GPU", 0) / options.gpus if options.gpus else there.get("CPU", 0) / options.threads
        if room < 1:
            needed = f"{options.gpus:g} GPUs" if options.gpus else f"{options.threads} processors"
            raise UsageError(f"Each worker needs {needed}, but there are not so many.")
        return workers or min(int(room), tasks)


def connect(**options: Any) -> None:
    """Run `ray.init`, which prints nothing; try again if a busy machine has not started Ray's processes in time."""
    import ray

    for last in (False, False, True):
        try:
            with silence():
                ray.init(logging_level=logging.CRITICAL, log_to_driver=False, **options)
            return
        except Exception:
            stop_ray()
            if last:
                raise


@contextmanager
def ray_errors() -> Iterator[None]:
    """Turn an error of Ray, or of a worker, into one sentence."""
    try:
        yield
    except (UsageError, AudioError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UsageError):
                raise UsageError(str(cause).strip().splitlines()[-1].removeprefix("separation.cli_options.")) from None
            cause = getattr(cause, "cause", None) or cause.__cause__
        lines = [line for line in str(error).strip().splitlines() if line.strip()] or [""]
        raise AudioError(f"The run ended early: {type(error).__name__}: {one_sentence(lines[-1])}") from None


def stop_ray() -> None:
    """End Ray and wait until its processes have ended."""
    import psutil  # Ray brings it
    import ray

    processes = psutil.Process().children(recursive=True)
    ray.shutdown()
    _, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()


class Later(Future[Any]):
    """The result of work that is done when it is first asked for."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self.work = work

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            try:
                self.set_result(self.work())
            except Exception as error:
                self.set_exception(error)
        return super().result(timeout)


class Deferred(Executor):
    """Does work when its result is asked for, by the thread that asks."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        return Later(lambda: work(*arguments, **options))


class Worker:
    """An actor that holds the model and separates recordings.

    Args:
        options, requests: as `cli_options.parse` returns them.
        out: folder or address of the outputs.
        staging: where outputs are completed; None: in this machine's temporary folder.
        folder: the working folder of the command.
    """

    def __init__(
        self, options: argparse.Namespace, requests: list[Request], out: str, staging: Path | None, folder: str
    ) -> None:
        from separation.cli_model import Model
        from separation.cli_print import Reporter

        with suppress(OSError):  # paths in the options; another machine of a cluster may lack the folder
            os.chdir(folder)
        self.options, self.requests, self.store = options, requests, Store(out)
        self.staging = staging or temporary(Path(tempfile.gettempdir()) / "staging")
        self.model = Model(options, requests, Reporter(options, False))
        self.computing, self.turn, self.slots = threading.Lock(), threading.Lock(), threading.Semaphore(CALLS)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Process the recordings of a task which are not finished; return the rows of all."""
        [journal], [files] = batch["journal"], batch["files"]
        entries = collection.read_journal(self.store, journal)
        for source in json.loads(files):
            entry = entries.setdefault(source["path"], {"path": source["path"], "attempts": 0, "row": None})
            if not entry["row"]:
                with self.reserve(alone=entry["attempts"] > 0):
                    entry["attempts"] += 1
                    if entry["attempts"] <= ATTEMPTS:
                        collection.write_journal(self.store, journal, entries)
                    entry["row"] = self.process(source, entry["attempts"])
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
        from separation.records import Record

        folder = self.staging / os.urandom(8).hex()
        label, record, notes = source["path"], Record(source["path"]), []  # type: ignore[var-annotated]
        try:
            if attempts > ATTEMPTS:
                why = "a crash, or no memory"
                raise AudioError(f"{label} ended its worker {ATTEMPTS} times ({why}), so it is left out.")
            (folder / "in").mkdir(parents=True)
            path = Path(source["address"])
            if "://" in source["address"]:
                path = folder / "in" / PurePosixPath(source["address"]).name
                collection.fetch(source["address"], path)
            record, notes = self.separate(source, path, folder / "out")
            texts = [(str(folder / "out") + "/", ""), (str(path), label)]
            plain = json.dumps(asdict(record), ensure_ascii=False)
            for old, new in texts:
                plain = plain.replace(
                    json.dumps(old, ensure_ascii=False)[1:-1], json.dumps(new, ensure_ascii=False)[1:-1]
                )
            found = json.loads(clean(plain))
            if not record.error:
                for each in [*record.outputs, *record.plots]:
                    self.store.publish(Path(each), Path(each).relative_to(folder / "out").as_posix())
        except UsageError:  # the model takes no such query
            raise
        except Exception as error:
            known = isinstance(error, AudioError)
            record.error = str(error) if known else f"{label} could not be processed: {one_sentence(error)}"
            found = json.loads(clean(json.dumps(asdict(Record(label, error=record.error)), ensure_ascii=False)))
        finally:
            remove(folder)
        found["warnings"] += notes
        return collection.make_row(source, found, attempts)

    def separate(self, source: dict[str, Any], path: Path, folder: Path) -> tuple[Any, list[str]]:
        """Separate a local file into a folder, as `separate` does; return its record and notes."""
        from separation.cli_batch import Batch
        from separation.cli_files import Input
        from separation.cli_print import Reporter
        from separation.outputs import Namer

        notes: list[str] = []

        class Collector(Reporter):
            def notice(self, sentence: str, kind: str = "") -> None:
                notes.append(sentence)

            def report(self, record: Any) -> None:
                """Print nothing."""

        with ExitStack() as stack:
            batch = Batch(self.options, self.requests, stack)
            batch.model, batch.reporter, batch.folder = self.model, Collector(self.options, False), folder
            batch.namer = Namer([path], True, batch.reporter.notice, first=source["number"])
            batch.workers, batch.beside = Deferred(), 1
            entry = Input(path, source["path"], path.stem, error=source["error"], folder=Path(source["folder"]))
            job = batch.prepare(entry)
            stack.push(job.stack)
            if job.measured:
                with suppress(Exception):  # the error is kept
                    job.measured.result()
            with self.computing:
                batch.compute(job)
            batch.conclude(job)
        return job.record, notes
