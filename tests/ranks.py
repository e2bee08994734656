"""Two processes that train together over gloo: `run_group` starts them, `main` is what each of them does."""

import contextlib
import faulthandler
import os
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from lightning.fabric.utilities.distributed import _all_gather_ddp_if_available
from parts import arguments, run, small_encoder
from queries import encoder, logged, noises, queried, unet
from tiny import DIM, small_rate_model
from torch import nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from separation.data.mixing import Batch
from separation.encoders.table import RandomEncoder
from separation.training.objectives.bimodal import BiModal
from separation.training.objectives.contrastive import Contrastive
from separation.training.objectives.noise_invariant import NoiseInvariant

TESTS = Path(__file__).parent
GROUP_SECONDS, RANK_SECONDS = 480, 240  # limits of a group, and of one process that waits for the other
WORLD = 2
PHRASES = ["dog", "rain", "dog", "bell", "rain", "wind", "horn", "dog"]
# No batch statistics, and nothing random in a step: each device would draw its own noise.
OPTIONS = {
    "network": "parts.StillUNet",
    "model.text_noise": 0,
    "model.audio_share": 0,
    "model.absent_from": 0,
    "model.absent_ramp": 1,
    "data.validation_count": 5,
    "trainer.callbacks": "[{class_path: separation.training.callbacks.Last}]",
}


# The first import makes optional packages importable that do not fit the installed torch.
MAIN = "import sys, separation.training, ranks; ranks.main(*map(ranks.Path, sys.argv[1:]))"


def run_group(folder, *arguments, program=("-c", MAIN), seconds=GROUP_SECONDS):
    """Run a program in two processes; returns the folder that they wrote into, to them the variable MEETING.

    A group was once seen to hang for no reason that could be found, so a group that hangs is started a second time.

    Raises:
        AssertionError: the program failed, or hung twice; holds what it printed.
    """
    printed = ""
    for attempt in range(2):
        meeting, processes = folder / f"attempt_{attempt}", []
        meeting.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        shared = {"WORLD_SIZE": str(WORLD), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "MEETING": str(meeting)}
        shared["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
        for rank in map(str, range(WORLD)):
            with (meeting / f"output_{rank}").open("w") as file:
                command = [sys.executable, *program, *map(str, arguments)]
                environment = os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank}
                processes.append(subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT))
        end = time.monotonic() + seconds
        with contextlib.suppress(subprocess.TimeoutExpired):
            for process in processes:
                process.wait(max(0, end - time.monotonic()))
        for process in processes:
            process.kill()
        codes = [process.wait() for process in processes]
        if codes == [0] * WORLD:
            return meeting
        outputs = [(meeting / f"output_{rank}").read_text() for rank in range(WORLD)]
        printed += "\n".join([f"attempt {attempt + 1}: {codes}", *outputs])
        if min(codes) >= 0:  # an error; a process that hangs is killed
            break
    raise AssertionError(printed)


class JointLoss(nn.Module):
    """The loss of the joint space as the output of a network, so that DDP can wrap it."""

    def __init__(self):
        super().__init__()
        self.objective = Contrastive(small_encoder(0), text_noise=0.0, mask=0.0).eval()  # nothing random
        self.objective.log = lambda *arguments, **options: None

    def forward(self, part):
        generator = torch.Generator().manual_seed(1)
        batch = Batch(
            sources=torch.randn(8, 1, 4000, generator=generator)[part],
            labels=torch.tensor([0, 1, 2, 0, 1, 1, 3, 2])[part, None],
            sentences=normalize(torch.randn(8, 1, 384, generator=generator), dim=-1)[part],
            bank=normalize(torch.randn(4, 384, generator=generator), dim=-1),
            used=torch.ones(8, dtype=torch.long)[part],
        )
        return self.objective.training_step(batch, 0)


class PhraseLoss(nn.Module):
    """CNT of sounds that are the output of a linear layer."""

    def __init__(self, faithful):
        super().__init__()
        torch.manual_seed(0)
        options = {"scale": 5.0, "faithful": faithful}
        self.objective = BiModal(small_rate_model(), RandomEncoder(DIM), **options).requires_grad_(False)
        self.layer = nn.Linear(DIM, DIM)

    def forward(self, part):
        sounds = torch.randn(8, self.layer.in_features, generator=torch.Generator().manual_seed(3))[part]
        return self.objective.phrase_loss(normalize(self.layer(sounds), dim=-1), PHRASES[part])


class NoiseLoss(nn.Module):
    """Noise invariant loss whose bound lies between the means of both halves of the batch."""

    def __init__(self):
        super().__init__()
        self.objective = NoiseInvariant(unet(0, noise_heads=2), encoder(), noise_weight=5.0, gamma=0.0).eval()
        logged(self.objective)
        self.sources = noises(batch=8)
        with torch.no_grad():
            features, _, _ = self.objective.mask_targets(self.sources)
            _, noise = self.objective.model.masks_with_noise(features, self.conditions(slice(None)))
        self.means = noise.sum(1).mean((1, 2)).unflatten(0, (2, 4)).mean(1)
        self.objective.gamma = float(self.means.min() + 0.4 * (self.means.max() - self.means.min()))

    def conditions(self, part):
        return self.objective.conditions(queried(self.sources[part]))

    def forward(self, part):
        return self.objective.mean_loss(self.sources[part], self.conditions(part))


def networks():
    return {
        "joint": JointLoss(),
        "cnt": PhraseLoss(False),
        "cnt, faithful": PhraseLoss(True),
        "noise invariant": NoiseLoss(),
    }


def loss_and_gradients(network, part):
    """Loss and gradients of a part of the batch."""
    loss = network(part)
    loss.backward()
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    return loss.detach(), {name: p.grad for name, p in inner.named_parameters() if p.grad is not None}


def main(data, checkpoint):
    """Losses and gradients of half batches, two trainings and a validation, as files in MEETING."""
    faulthandler.dump_traceback_later(GROUP_SECONDS * 0.8)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=RANK_SECONDS))
    rank, folder, found = dist.get_rank(), Path(os.environ["MEETING"]), {}
    strategy = SimpleNamespace(all_gather=_all_gather_ddp_if_available)
    for name, network in networks().items():
        network.objective.trainer = SimpleNamespace(
            world_size=WORLD, global_rank=rank, global_step=0, strategy=strategy
        )
        wrapped = DistributedDataParallel(network, find_unused_parameters=True)
        loss, gradients = loss_and_gradients(wrapped, slice(4 * rank, 4 * rank + 4))
        dist.all_reduce(loss)
        found[name] = (loss / WORLD, gradients)
    if rank == 0:
        torch.save(found, folder / "found.pt")
    options = OPTIONS | {"trainer.strategy": "ddp", "trainer.devices": WORLD}
    run(*arguments("fit", data, folder / "fit", **options))
    other = options | {"model": "parts.Waveforms", "data.validation_count": 0, "trainer.max_epochs": 1}
    run(*arguments("fit", data, folder / "waveforms", **other))
    listed = {"data.validation": data / "list.csv", "data.validation_every": 1, "ckpt_path": checkpoint}
    with contextlib.redirect_stdout((folder / f"validate_{rank}").open("w")):
        run(*arguments("validate", data, folder / "validate", **options, **listed))
        sys.stdout.flush()
    dist.barrier()
    os._exit(0)  # threads of gloo may block the ordinary exit
