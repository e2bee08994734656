"""What the default separator is trained by: the error of a mask on bands."""

from __future__ import annotations

from torch import Tensor


class MaskError:
    """Energy of the error of a band mask, exact and without ever leaving the bands.

    A mask M (bands) is interpolated to the bins by B (bins, bands), so for a mixture spectrum X and a target S

        sum_f |S - (B M)_f X|^2 = |S|^2 - 2 Re sum_b M_b r_b + sum_b |M_b|^2 g_b + 2 Re sum_b M_b conj(M_(b+1)) h_b

    with r = B^T (X conj(S)), g_b = sum_f B_fb^2 |X_f|^2 and h_b = sum_f B_fb B_f,b+1 |X_f|^2: at most two neighbouring
    bands reach a bin. r, g and h carry no gradient; what does is 6 times smaller than the spectra.

    Args:
        mixture: complex spectrum (batch, bins, frames).
        sources: complex spectra (batch, sources, bins, frames).
        to_bins: B (bins, bands).
    """

    def __init__(self, mixture: Tensor, sources: Tensor, to_bins: Tensor) -> None:
        power = mixture.abs().square()
        product = mixture[:, None] * sources.conj()
        transposed = to_bins.T.contiguous()
        self.cross_real = transposed @ product.real  # (batch, sources, bands, frames)
        self.cross_imaginary = transposed @ product.imag
        self.own = (transposed.square() @ power)[:, None]  # (batch, 1, bands, frames)
        self.shared = ((transposed[:-1] * transposed[1:]) @ power)[:, None]
        self.energy = sources.abs().square().sum((2, 3))  # (batch, sources)
        self.mixture_energy = power.sum((1, 2))[:, None]

    def output_energy(self, mask: Tensor) -> Tensor:
        """Energy of the masked mixture: mask (batch, sources, 2, bands, frames) -> (batch, sources)."""
        real, imaginary = mask.unbind(2)
        own = ((real.square() + imaginary.square()) * self.own).sum((2, 3))
        neighbours = real[:, :, :-1] * real[:, :, 1:] + imaginary[:, :, :-1] * imaginary[:, :, 1:]
        return own + 2 * (neighbours * self.shared).sum((2, 3))

    def error_energy(self, mask: Tensor) -> Tensor:
        """Energy of target minus masked mixture: mask (batch, sources, 2, bands, frames) -> (batch, sources)."""
        real, imaginary = mask.unbind(2)
        agreement = (real * self.cross_real - imaginary * self.cross_imaginary).sum((2, 3))
        return (self.energy - 2 * agreement + self.output_energy(mask)).clamp_min(0)

    def untouched_energy(self) -> Tensor:
        """Energy of target minus mixture, (batch, sources): what the error is when nothing is done."""
        return (self.energy - 2 * self.cross_real.sum((2, 3)) + self.mixture_energy).clamp_min(0)
