"""Loudspeakers and order of channels. The order in this package is always that of wav files."""

from __future__ import annotations

from collections.abc import Sequence

SPEAKERS = "FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR".split()  # noqa: SIM905
"""FFmpeg's names of the bits of a channel mask, from the lowest; channels of wav files are in this order."""
SNDFILE = dict(enumerate(["FL", "FR", "FC", "FL", "FR", "FC", "BC", "BL", "BR", "LFE", "FLC", "FRC", "SL", "SR"], 2))
"""The same loudspeakers by libsndfile's numbers."""
MASKS = {3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
"""The usual mask by number of channels, also that of Vorbis, Opus and flac; one and two channels need none."""
SIDE_MASKS, PLAIN_MASKS = (0x607, 0x60F), (0x3, 0x4)
"""Masks that players treat like the usual ones, with loudspeakers at the side; and those of one and two channels."""
VORBIS_ORDER = {
    3: [0, 2, 1], 5: [0, 2, 1, 3, 4], 6: [0, 2, 1, 5, 3, 4], 7: [0, 2, 1, 6, 5, 3, 4], 8: [0, 2, 1, 7, 5, 6, 3, 4],
}  # fmt: skip
"""By number of channels: the position of each channel of a wav file in Vorbis and Opus."""


def describe_layout(names: Sequence[str]) -> tuple[int, list[int] | None]:
    """Return the channel mask of loudspeakers (0: unknown), and the order that sorts them (None: sorted)."""
    if not all(name in SPEAKERS for name in names) or len(set(names)) < len(names):
        return 0, None
    bits = [SPEAKERS.index(name) for name in names]
    order = sorted(range(len(bits)), key=bits.__getitem__)
    return sum(1 << bit for bit in bits), None if order == list(range(len(bits))) else order


def name_speakers(mask: int) -> str:
    """Return FFmpeg's name for the loudspeakers of a mask, such as FL+FR+FC."""
    return "+".join(name for bit, name in enumerate(SPEAKERS) if mask >> bit & 1)
