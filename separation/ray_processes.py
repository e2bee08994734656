"""Ray's processes, for `separate-batch`: started on this machine, or a cluster's; ended with the run."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from separation.console.options import UsageError
from separation.errors import AudioError, one_sentence
from separation.process import SIGNALS, remove, silence
from separation.process import temporary_path as temporary

SOCKET_BYTES = 107 - len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
STORE_BYTES = 80 << 20  # of Ray's object store on one machine; it holds lists of paths and rows
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_agent_register_timeout_ms": "300000",  # on a busy machine its processes start slowly
    "RAY_worker_niceness": "0",  # instead of 15, which gets next to nothing beside other work
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # on Linux too, Ray then asks for no address of this machine


def start_ray(options: argparse.Namespace, tasks: int, stack: ExitStack) -> int:
    """Start Ray on this machine, or connect to a cluster, until `stack` is closed; return the number of workers."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    os.environ |= (SETTINGS if options.address else SETTINGS | LOOPBACK) | os.environ
    import ray

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = 0 if options.workers == "auto" else min(int(options.workers), tasks)
    if ray.is_initialized():
        pass
    elif options.address:
        connect(address=options.address)
        stack.callback(ray.shutdown)
    else:
        folder = temporary(Path(tempfile.gettempdir()) / "ray", short=True)
        if len(os.fsencode(folder)) > SOCKET_BYTES:
            folder = temporary(Path("/tmp", "ray"), short=True)
        stack.callback(remove, folder)
        stack.callback(stop_ray)
        processors = options.threads * (workers or min(max(1, cores // options.threads), tasks))
        connect(address="local", num_cpus=processors, include_dashboard=False, object_store_memory=STORE_BYTES,
                _temp_dir=str(folder))  # fmt: skip
        # Otherwise Ray's agents outlive a killed run by minutes, in which they report its end to what has ended too.
        with suppress(OSError), (folder / "session_latest/logs/raylet.out").open("a") as log:
            log.write("Raylet received SIGTERM\n")
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
    """Turn an error of Ray into one sentence."""
    try:
        yield
    except (UsageError, AudioError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
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
