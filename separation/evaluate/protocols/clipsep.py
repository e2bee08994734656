"""CLIPSep's two noisy test sets (arXiv 2212.07065), from the lists in its repository (github.com/sony/CLIPSep).

Each target is mixed with a clip of another list, drawn by Python's generator seeded with the row number. Both are cut
to 65,535 samples at 16 kHz around their middle frame and halved, so the input SDR varies. Scored by BSS Eval v4 on one
window; the two sources are the target and the interference, the second estimate is the residual.
"""

from __future__ import annotations

import random
from pathlib import Path

from separation.data.fixed_mixtures import Mixing, Row
from separation.data.lists import read_cells
from separation.evaluate.protocols.base import ListFile, Protocol, make_row

RATE, LENGTH = 16000, 65535
HALVED = Mixing(sample_rate=RATE, seconds=LENGTH / RATE, repeat=True, peak=None, scale=0.5)
SOURCE = "The lists are in clipsep/data of github.com/sony/CLIPSep (MIT), whose README says how the clips are prepared."
MUSIC, CLEAN, CLEAN_NO_MUSIC, NO_MUSIC = (
    ListFile((name, f"clipsep_eval/{name}", f"data/{path}"), sha256)
    for name, path, sha256 in (
        ("MUSIC_solo_test.csv", "MUSIC/solo/test.csv",
         "be52322a38815826c2e6f9885efebc52e175a3aaef0520eda38b2c76b609555f"),
        ("vggsound_test-good.csv", "vggsound/test-good.csv",
         "ac82d3b5e79009625e26def890a34f20f944e7350c2c89d9e4a5164dc282201b"),
        ("vggsound_test-good-no-music.csv", "vggsound/test-good-no-music.csv",
         "ba2558323367b8516cee484560a63659557b81c4f3ff3f9e31597bbeff7d1986"),
        ("vggsound_test-no-music.csv", "vggsound/test-no-music.csv",
         "f70c93e7f614649aea2f9779869acbe7b486bf7f7fb3a4ed2e9c092f1060e514"),
    )
)  # fmt: skip


def start_seconds(frames: str) -> str:
    """Return where the cut begins in a video of so many frames, one a second; plus half a sample, for truncation."""
    middle = int((int(frames) // 2 - 0.5) * RATE)
    return f"{(middle - LENGTH // 2 + 0.5) / RATE:.8f}"


def build(root: Path, targets: Path, others: Path) -> list[Row]:
    """Build rows from two lists of (recording, folder of frames, number of frames, label)."""
    rows, candidates = [], [cells for _, cells in read_cells(others, 4)]
    for number, (_, (path, _, frames, label, *_)) in enumerate(read_cells(targets, 4)):
        other = candidates[random.Random(number).randint(0, len(candidates) - 1)]
        starts = {"target_start": start_seconds(frames), "interference1_start": start_seconds(other[2])}
        rows.append(make_row(number, label.replace("_", " "), path, [other[0]], **starts))
    return rows


PROTOCOLS = tuple(
    Protocol(
        name=f"clipsep/{name}",
        version=1,
        about=f"{about} that hold no music, 16 kHz, 4.1 s",
        source=SOURCE,
        root="SEPARATION_CLIPSEP_ROOT",
        build=build,
        mixing=HALVED,
        lists=lists,
        folders=("", "clipsep"),
        sha256=sha256,
        count=count,
        metrics=("bss_sdr", "bss_sir", "bss_sar", "sdri", "si_sdri"),
    )
    for name, count, lists, about, sha256 in (
        ("music+", 46, (MUSIC, CLEAN_NO_MUSIC), "MUSIC solo test clips against hand-picked VGGSound clips",
         "e2a4749444fbe56968e73848b10e31d11eb4b3feb4b33c333ac6647fdea80c0d"),
        ("vggsound-clean+", 100, (CLEAN, NO_MUSIC), "hand-picked VGGSound test clips against others",
         "89f10600c749b51af4b5123c2c1f3c4b95c57c2434ddf468333f5836d4715f38"),
    )
)  # fmt: skip
