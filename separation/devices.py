"""Selection of the device to compute on."""

from __future__ import annotations

import torch


def find_device(name: str | torch.device | None) -> torch.device:
    """Return a device by name. None and "auto" select CUDA, MPS or the CPU, "gpu" CUDA or MPS, in this order.

    Raises:
        ValueError: if there is no such device.
    """
    built = "CUDA" if torch.version.cuda else "CPU only"
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name in (None, "auto"):
        name = next(each for each, there in available.items() if there)
    if name == "gpu":
        name = next((each for each in ("cuda", "mps") if available[each]), None)
        if name is None:
            raise ValueError(f"No GPU is available here; torch was built for {built}.")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"Unknown device {name!r}. Use auto, cpu, gpu, cuda or mps.") from None
    if not available.get(device.type, True):
        raise ValueError(f"{device.type} is not available here; torch was built for {built}.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"{device} is not available here; there are {torch.cuda.device_count()} CUDA devices.")
    return device
