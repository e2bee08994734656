"""Start and end of every command: standard streams, signals, temporary files, exit status.

SIGINT, SIGTERM and SIGHUP end the process within half a second. No exception is raised, because the interrupted code
could catch it or turn it into another error: the handler itself removes temporary files. If the main thread is inside
a long call, during which Python runs no handlers, another thread does this.
"""

from __future__ import annotations

import io
import os
import re
import select
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, wraps
from pathlib import Path
from typing import Any, NoReturn

from separation.commands import end_at_once
from separation.errors import AudioError, DataError, ModelError, one_sentence, reason

DONE, FAILED, INTERRUPTED = 0, 1, 130  # exit statuses
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
GRACE = 0.2  # seconds that the main thread has for a signal before another thread acts
# Control characters (terminal escapes), marks that reverse the order of text, and surrogates (bytes that are no text).
UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LEFTOVER = re.compile(r"\.separate-([0-9a-f]{8})-(\d+)-(?:[0-9a-f]{12}|[0-9a-f]{4})\.part")

TEMPORARY: set[Path] = set()  # files and folders that are removed if a signal ends the process
CREATED: list[Path] = []  # folders that are removed as well if they are empty
_tidied: set[str] = set()  # folders without leftovers
stop_note = ""  # what the message about a signal says besides
_program = "separation"
_messages = 2  # descriptor of standard error
_status: int | None = None  # exit status after a signal; None: 128 + its number
_commits = threading.RLock()  # held while files are renamed
_ending = threading.Lock()

# Standard streams


class StandardOutputError(Exception):
    """Standard output cannot be written. The text is the reason, empty if its reader has closed it."""


@contextmanager
def standard_output() -> Iterator[None]:
    """Turn an OSError into StandardOutputError."""
    try:
        yield
    except BrokenPipeError:
        raise StandardOutputError from None
    except OSError as error:
        raise StandardOutputError(f"standard output cannot be written: {reason(error)}.") from None


class Output(io.TextIOWrapper):
    """Standard output that raises StandardOutputError, so that its errors differ from those of other files."""

    def write(self, text: str) -> int:
        with standard_output():
            return super().write(text)

    def flush(self) -> None:
        with standard_output():
            super().flush()


class Messages(io.TextIOWrapper):
    """Standard error that ignores messages that cannot be written."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def printable(text: str) -> str:
    """Escape control characters, such as terminal escapes."""
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def say(program: str, *lines: str) -> None:
    """Print lines to standard error after the name of the program."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    text = "\n".join(map(printable, lines)).encode(encoding, "backslashreplace").decode(encoding)
    with suppress(OSError, ValueError, AttributeError):
        print(f"{program}: {text}", file=sys.stderr, flush=True)


def open_streams() -> None:
    """Open closed standard streams on the null device, so that no file gets their numbers; see `Output`, `Messages`.

    `sys.stdout` stays None if it was closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    if sys.stderr is None:
        sys.stderr = Messages(open(os.devnull, "wb"), "utf-8")  # noqa: SIM115
    for name, kind in (("stdout", Output), ("stderr", Messages)):
        old = getattr(sys, name)
        if type(old) is io.TextIOWrapper:
            how: Any = {"line_buffering": old.line_buffering, "write_through": old.write_through}
            setattr(sys, name, kind(old.buffer, old.encoding, "backslashreplace", **how))


@contextmanager
def silence() -> Iterator[None]:
    """Discard what libraries and new processes write to standard error; the message of a signal is still printed."""
    global _messages
    sys.stderr.flush()
    _messages, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    try:
        yield
    finally:
        os.dup2(_messages, 2)
        os.close(_messages)
        _messages = 2


# Commands


def begin(program: str) -> None:
    """Prepare standard streams and signals of a process that runs only this program."""
    global _program
    _program = program
    open_streams()
    take_signals()


def call(program: str, main: Callable[[], int | None]) -> int:
    """Run a command's `main` and return its exit status; print errors that end it as one sentence."""
    global _program
    _program = program
    if sys.stdout is None:
        say(program, "standard output is closed.")
        return FAILED
    try:
        os.getcwd()
    except OSError:  # MKL would end the process with its own message
        say(program, "the working folder does not exist any more.")
        return FAILED
    try:
        try:
            return main() or DONE
        finally:
            with standard_output():
                sys.stdout.flush()
    except KeyboardInterrupt:
        say(program, "interrupted; no incomplete files are left.")
        return INTERRUPTED
    except StandardOutputError as error:
        if str(error):
            say(program, str(error))
        with suppress(OSError, ValueError):  # otherwise Python reports unwritten output at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (AudioError, DataError, ModelError) as error:
        say(program, one_sentence(error))
    except MemoryError:
        say(program, "there is not enough memory.")
    except OSError as error:
        say(program, f"{error.filename or 'the system'}: {reason(error)}.")
    return FAILED


def as_command(program: str) -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """Return a decorator by which a command's `main` is run by `call`, so that it returns the exit status."""
    return lambda main: wraps(main)(lambda *arguments: call(program, lambda: main(*arguments)))


# Signals


def end_normally() -> None:
    """Let signals end this process with exit status 0 from now on."""
    global _status
    _status = DONE


def take_signals() -> None:
    """Let signals end this process, except those that are ignored (nohup) or have another handler."""
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, end_at_once):
            signal.signal(number, _handle)
    if os.name == "posix":
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=_watch, args=(reading,), name="signals", daemon=True).start()
        sys.meta_path.insert(0, TorchPreloader())
        os.register_at_fork(after_in_child=give_back_signals)


class TorchPreloader:
    """Import hook that loads torch's largest library first, because Python sees no signal while an import loads it.

    Loading takes a third of a second, or seconds from a slow disk.
    """

    def find_spec(self, name: str, *_: Any) -> None:
        """Load the library if the module is torch; other finders do the import."""
        if name != "torch":
            return
        sys.meta_path.remove(self)
        with suppress(OSError, AttributeError, TypeError, ValueError):
            import ctypes
            from importlib.util import find_spec

            [folder] = find_spec(name).submodule_search_locations  # type: ignore[union-attr, misc]
            load = ctypes.CDLL(None).dlopen  # a call through ctypes releases Python's lock
            load.argtypes, load.restype = [ctypes.c_char_p, ctypes.c_int], ctypes.c_void_p
            load(os.fsencode(f"{folder}/lib/libtorch_cpu.so"), os.RTLD_NOW)


def give_back_signals() -> None:
    """Restore Python's signal handlers."""
    for number in SIGNALS:
        if signal.getsignal(number) is _handle:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    writing = signal.set_wakeup_fd(-1)
    if writing >= 0:
        os.close(writing)  # ends the thread


def _handle(number: int, _: Any) -> None:
    for each in SIGNALS:  # a second signal changes nothing
        if signal.getsignal(each) is _handle:
            signal.signal(each, signal.SIG_IGN)
    end(number)


def _watch(reading: int) -> None:
    while byte := os.read(reading, 1):
        if byte[0] in SIGNALS:
            time.sleep(GRACE)
            end(byte[0])


def end(number: int) -> NoReturn:
    """Remove temporary files and end the process at once with the exit status of a signal."""
    _ending.acquire()
    _commits.acquire(timeout=5.0)
    for path in list(TEMPORARY):
        remove(path)
    remove_empty(CREATED)
    cause = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    clear = "\r\033[K" if os.isatty(_messages) else ""  # a progress bar
    with suppress(OSError, ValueError):
        if os.name != "posix" or select.select([], [_messages], [], 0)[1]:  # writing to a full pipe would block
            os.write(_messages, f"{clear}{_program}: {cause}; no incomplete files are left.{stop_note}\n".encode())
    os._exit(128 + number if _status is None else _status)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay signals until the end of the block, which should be short."""
    before: dict[int, Any] = {}
    caught: list[int] = []
    try:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, lambda number, _: caught.append(number))
        with _commits:
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in caught[:1]:
            signal.raise_signal(number)


# Temporary files


def temporary_path(path: Path, short: bool = False) -> Path:
    """Return a hidden path beside `path`, for a file to be renamed to `path`; see `remove`.

    Its name contains the process id. Files that ended processes left in the folder are removed. A `short` name leaves
    room for the sockets in a folder; there may be one of a process.
    """
    remove_leftovers(path.parent)
    temporary = path.with_name(f".separate-{_machine()}-{os.getpid()}-{os.urandom(2 if short else 6).hex()}.part")
    TEMPORARY.add(temporary)
    return temporary


def make_folder(path: Path) -> list[Path]:
    """Create a folder and those above it; return the new ones, see `remove_empty`."""
    missing = [each for each in (*reversed(path.parents), path) if not each.exists()]
    CREATED.extend(missing)
    path.mkdir(parents=True, exist_ok=True)
    return missing


def remove_empty(folders: list[Path]) -> None:
    """Remove folders that `make_folder` has created, as far as they are empty, and forget all."""
    while folders:
        folder = folders.pop()
        with suppress(OSError):
            folder.rmdir()
        with suppress(ValueError):
            CREATED.remove(folder)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `path` and give it that name at the end; after an error nothing has changed."""
    path = Path(os.path.realpath(path))
    part, earlier = temporary_path(path), path.with_name(f".{os.getpid()}.old.{path.name}")
    created = make_folder(path.parent)
    try:
        part.mkdir()
        yield part
        with uninterrupted():
            if path.exists():
                path.rename(earlier)
            part.rename(path)
    finally:
        if earlier.exists() and not path.exists():
            earlier.rename(path)
        remove(part)
        remove(earlier)
        remove_empty(created)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty temporary folder, which is removed at the end of the block."""
    import tempfile

    try:
        folder = temporary_path(Path(tempfile.gettempdir()) / "folder")
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise AudioError(f"No temporary folder can be used: {reason(error)}; name one with TMPDIR.") from None
    try:
        yield folder
    finally:
        remove(folder)


def remove(path: Path) -> None:
    """Remove a temporary file or folder if it exists."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            import shutil

            for _ in range(9):  # other threads may be writing into it
                shutil.rmtree(path, ignore_errors=True)
                if not path.exists():
                    break
        else:
            path.unlink(missing_ok=True)
    TEMPORARY.discard(path)


@cache
def _machine() -> str:
    """Return eight digits for the machine or container, within which process ids are unique."""
    name = os.uname().nodename if hasattr(os, "uname") else ""
    with suppress(OSError):
        name += os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(name.encode()):08x}"


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that killed processes have left in a folder; does so once for each folder."""
    if os.path.abspath(folder) in _tidied:
        return
    _tidied.add(os.path.abspath(folder))
    with suppress(OSError):
        for entry in os.scandir(folder) if os.name == "posix" else ():
            found = LEFTOVER.fullmatch(entry.name)
            if found and found[1] == _machine() and int(found[2]) != os.getpid():
                try:
                    os.kill(int(found[2]), 0)
                except ProcessLookupError:
                    remove(Path(entry.path))
                except OSError:  # another user's
                    continue
