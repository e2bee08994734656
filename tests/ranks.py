"""Processes of a test that meet through gloo: started, waited for, and killed when they come to no end.

Each runs a program of its own, `meet`s the others, does its work and `leave`s.
"""

import faulthandler
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist

TESTS = Path(__file__).parent
# Seconds that a group may take, and seconds that one of its processes waits for the others.
GROUP, EACH = 240, 90


def together(program, folder, *arguments, world=2, attempts=2, seconds=GROUP):
    """Runs `python *program *arguments` in `world` processes at once.

    One such meeting was seen to hang for more than an hour and could not be made to do so again; a group that hangs is
    therefore started anew, once. What hangs or fails every time is an error that holds what the processes have said,
    the places where they hang among it.
    """
    said = []
    for attempt in range(attempts):
        codes, words = _group(program, folder / f"meeting_{attempt}", arguments, world, seconds)
        if codes == [0] * world:
            return
        said += [f"attempt {attempt + 1}: {codes}", *words]
        if not any(code < 0 for code in codes):  # an error, no hang
            break
    raise AssertionError("\n".join(said))


def _group(program, meeting, arguments, world, seconds):
    """Exit codes (negative: killed) and standard errors of one group."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    meeting.mkdir()
    errors = [open(meeting / f"errors_{rank}", "w+") for rank in range(world)]  # noqa: SIM115
    processes = [
        subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": path, "RANK": f"{rank}", "WORLD_SIZE": f"{world}", "MEETING": str(meeting)},
            stderr=errors[rank],
        )
        for rank in range(world)
    ]
    end = time.monotonic() + seconds
    try:
        for process in processes:
            process.wait(max(0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    for process in processes:
        process.kill()
    codes = [process.wait() for process in processes]
    words = []
    for file in errors:
        file.seek(0)
        words.append(file.read())
        file.close()
    return codes, words


def meet():
    """Joins the group; returns this process's rank and the number of them."""
    faulthandler.dump_traceback_later(GROUP * 0.8)
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = f"file://{os.environ['MEETING']}/store"
    dist.init_process_group("gloo", store, timeout=timedelta(seconds=EACH), rank=rank, world_size=world)
    return rank, world


def leave():
    """Ends this process once all are here, past the interpreter's clearing up, where gloo's threads may lock it."""
    dist.barrier()
    dist.destroy_process_group()
    sys.stderr.flush()
    os._exit(0)


def trainer(rank, world):
    """As much of a trainer as an objective needs to share tensors with the other processes."""
    from lightning.fabric.utilities.distributed import _all_gather_ddp_if_available

    strategy = SimpleNamespace(all_gather=_all_gather_ddp_if_available)
    return SimpleNamespace(world_size=world, global_rank=rank, global_step=0, strategy=strategy)
