"""The evaluations of bi-modal weak supervision (arXiv 2404.01740): mixtures of two from MUSIC, VGGSound and AudioCaps.

Rows follow the data sets in its repository (github.com/microsoft/BiModalAudioSeparation): clips of 131,070 samples at
16 kHz, halved and added, and each of the two is asked for. Clips of MUSIC are cut around the middle of the video's
length, those of VGGSound around 4.5 s, those of AudioCaps around their own middle, with zeros around shorter ones.
Scored by BSS Eval version 3, mean over both sources.

Its scripts draw the pairs without a seed (`preprocessing/*/create_test_*.py`), so figures are comparable only on the
authors' own lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from separation.data.fixed_mixtures import Mixing, Row
from separation.data.lists import read_cells, read_json
from separation.errors import DataError
from separation.evaluate.protocols.base import ListFile, Protocol, make_row

RATE, LENGTH = 16000, 131070
TILED = Mixing(RATE, LENGTH / RATE, repeat=True, peak=None, scale=0.5)
CENTRED = Mixing(RATE, LENGTH / RATE, peak=None, scale=0.5, centre=True)
SOURCE = "Its scripts are in preprocessing/ of github.com/microsoft/BiModalAudioSeparation (MIT)."
VGGSOUND_MIDDLE = 4.5  # s


def ask_for_both(number: int, clips: Sequence[tuple[str, str, str]]) -> list[Row]:
    """Make two rows of a pair of (path, query, start)."""
    rows = []
    for place, ((path, query, start), (other, _, other_start)) in enumerate((clips, clips[::-1]), 1):
        starts = {"target_start": start, "interference1_start": other_start}
        rows.append(make_row(f"{number}-{place}", query, path, [other], **starts))
    return rows


def build_by_label(root: Path, pairs: Path, clips: Path) -> list[Row]:
    """Build rows of a list of pairs of names and a list of the clips.

    The clips of MUSIC are (/label/file, frames, seconds), those of VGGSound (file, label); a label may contain commas.
    """
    known: dict[str, tuple[str, str, str]] = {}
    for _, (name, *cells) in read_cells(clips, 2):
        by_folder = name.startswith("/")
        label = name.split("/")[1] if by_folder else ",".join(cells)
        middle = int(float(cells[-1])) // 2 + 0.5 if by_folder else VGGSOUND_MIDDLE
        # Half a sample is added because starts are truncated to samples.
        start = f"{max(0.0, int(middle * RATE) - LENGTH // 2 + 0.5) / RATE:.8f}"
        known.setdefault(name, (name.lstrip("/"), f"The sound of {label.replace('_', ' ')}", start))
    rows = []
    for number, (line, cells) in enumerate(read_cells(pairs, 2)):
        names = [cell.replace(" ", "") for cell in cells[:2]]
        if unknown := [name for name in names if name not in known]:
            raise DataError(f"{pairs}, row {line}: {unknown[0]} is not in {clips}.")
        rows += ask_for_both(number, [known[name] for name in names])
    return rows


def build_audiocaps(root: Path, pairs: Path, captions: Path) -> list[Row]:
    """Build rows of a list of pairs of ids, and the JSON object with `file_id` and `caption` of each id."""
    known, rows = read_json(captions), []
    for number, (line, ids) in enumerate(read_cells(pairs, 2)):
        try:
            clips = [(f"{known[each]['file_id']}.wav", str(known[each]["caption"]), "") for each in ids[:2]]
        except (KeyError, TypeError):
            raise DataError(f"{captions}: no file_id and caption of the clips in {pairs}, row {line}.") from None
        rows += ask_for_both(number, clips)
    return rows


PROTOCOLS = tuple(
    Protocol(
        name=f"bimodal/{name}",
        version=1,
        about=f"{about}, mixtures of two of 8.2 s at 16 kHz, both asked for",
        source=SOURCE,
        root=f"SEPARATION_{name.upper()}_ROOT",
        build=build_audiocaps if name == "audiocaps" else build_by_label,
        mixing=CENTRED if name == "audiocaps" else TILED,
        lists=tuple(ListFile((f"{name}/annotations/{file}", f"annotations/{file}", file)) for file in files),
        folders=("", "audio"),
        metrics=("bss3_sdr", "bss3_sdri", "bss3_sir", "bss3_sar", "sdri", "si_sdri"),
    )
    for name, about, files in (
        ("music", "MUSIC, solo instruments", ("test_sep_2.csv", "test.csv")),
        ("vggsound", "VGGSound, clips of different labels", ("test_sep_2.csv", "test.csv")),
        ("audiocaps", "AudioCaps, a test and a validation clip", ("test_sep2_ids.csv", "parsed_all_caps.json")),
    )
)
