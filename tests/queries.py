"""Small stand-ins for the objectives with query encoders: a U-Net with hardly any channels, batches of noise."""

import torch

from separation.data.queried import QueriedBatch
from separation.encoders.table import RandomEncoder
from separation.models.clipsep_unet import CLIPSepUNet

DIM = 16
TIME = 8000  # samples at 16 kHz: 32 frames


def unet(seed=0, **arguments):
    """CLIPSep's network at the smallest; its masks depend on the query."""
    torch.manual_seed(seed)
    return CLIPSepUNet(**({"condition_dim": DIM, "channels": 4, "layers": 5, "width": 2} | arguments))


def noises(batch=2, sources=2, time=TIME, seed=0):
    """Noise of another colour for every source (batch, sources, time)."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(batch, sources, time, generator=generator)
    spectrum = torch.fft.rfft(white)
    rise = torch.linspace(0, 1, spectrum.shape[-1])
    colours = torch.stack([rise if i % 2 else 1 - rise for i in range(sources)])
    return 0.2 * torch.fft.irfft(spectrum * colours**4, time)


def queried(sources, asked=2, pictures=None):
    """A batch that asks for `name 0` and so on."""
    rows = [[f"name {i}" for i in range(asked)] for _ in range(len(sources))]
    return QueriedBatch(sources, rows, [[f"label {i}" for i in range(asked)] for _ in rows], pictures or [])


def encoder(dim=DIM):
    return RandomEncoder(dim)


def logged(module):
    """Keeps what an objective logs outside a trainer."""
    terms = {}
    module.log = lambda name, value, **options: terms.update({name: value.item()})
    return terms
