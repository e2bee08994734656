"""VoiceBank-DEMAND: sentences read by 28 and 2 speakers, clean and with noise.

Layout: datashare.ed.ac.uk/handle/10283/2791. `clean_trainset_28spk_wav`, `noisy_trainset_28spk_wav`,
`clean_testset_wav` and `noisy_testset_wav`, with equal file names such as `p232_001.wav`: speaker and sentence. The
speaker is the recording here, so that a validation split has other speakers. The manifest lists clean speech; the noisy
files are mixtures for evaluation, and a sentence without one of the two is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.manifest import Clip, Entry
from separation.datasets.base import preparer

PARTS = {"train": "trainset_28spk_wav", "test": "testset_wav"}


@preparer(
    name="voicebank-demand",
    title="VoiceBank-DEMAND",
    home="https://datashare.ed.ac.uk/handle/10283/2791",
    get="Download the clean and noisy 28-speaker train sets and the test sets and unpack them into one folder.",
    licence="CC BY 4.0",
    splits="its own train and test, by speaker; no validation",
    needs=tuple(f"{kind}_{part}" for part in PARTS.values() for kind in ("clean", "noisy")),
    counts={"train": 11572, "test": 824},
)
def clips(root: Path) -> Iterator[Entry]:
    """Yield the clean files; if one of the two is missing, a path that does not exist."""
    for split, part in PARTS.items():
        names = {path.name for kind in ("clean", "noisy") for path in (root / f"{kind}_{part}").glob("*.wav")}
        for name in sorted(names):
            noisy = f"noisy_{part}/{name}"
            path = f"clean_{part}/{name}" if (root / noisy).exists() else noisy  # the one that is missing
            recording = f"voicebank:{name.split('_')[0]}"
            yield split, Clip(path, "speech", "A person speaks.", recording, "voicebank", 0.0, "CC BY 4.0")
