"""VGGSound: 200,000 videos of 10 s, each with one of 309 labels; everybody fetches the videos on their own.

Layout: www.robots.ox.ac.uk/~vgg/data/vggsound. `vggsound.csv` has no header: YouTube id, start in seconds, label, train
or test. Files are named `<id>_<start, six digits>` with any suffix, anywhere below the folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from separation.data.lists import read_cells
from separation.data.manifest import Entry
from separation.datasets.base import FileIndex, clean_text, preparer
from separation.errors import DataError

LIST = "vggsound.csv"


@preparer(
    name="vggsound",
    title="VGGSound",
    home="https://www.robots.ox.ac.uk/~vgg/data/vggsound/",
    get="Download vggsound.csv into a folder; fetch the 10 s of each video yourself, named <id>_<start>.mp4.",
    licence="list CC BY 4.0; the videos belong to their makers",
    splits="its own train and test; no validation",
    needs=(LIST,),
    complete=False,
    counts={"test": 15446},
)
def clips(root: Path) -> Iterator[Entry]:
    """Yield every row of the list."""
    files = FileIndex(root)
    for number, row in read_cells(root / LIST):
        if len(row) != 4 or not row[1].isdecimal() or row[3] not in ("train", "test"):
            raise DataError(f"{root / LIST}, row {number}: not “YouTube id, start, label, train or test”.")
        video, start, label, split = row
        stem, about = f"{video}_{int(start):06d}", {"label": clean_text(label), "licence": "CC BY 4.0 (list)"}
        yield split, files.make_clip(video, "vggsound", 10.0, [stem], **about)
