"""The command `separation-data`: datasets to manifests, checks, frames of videos, shards."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from separation.data.manifest import leaks, read_entries, relocate, write_manifest
from separation.errors import DataError
from separation.process import as_command

HELP = """\
Writes the manifest (one row a clip, CSV or JSON lines) of a dataset on disk; training reads manifests only.
Nothing is downloaded.

  separation-data list                                     every dataset and its splits
  separation-data show esc50                               how to get it, what its folder must contain
  separation-data prepare esc50 --root ~/ESC-50-master     writes ~/ESC-50-master/manifest.csv
  separation-data prepare folder my_sounds                 your own clips: a subfolder for each sound
  separation-data prepare vggsound --root /data/vgg -o vgg.jsonl --validation 0.05
  separation-data join esc50.csv fsd50k.csv -o both.csv    leaves out recordings that would be in two splits
  separation-data check both.csv                           decodes every clip, reports broken ones
  separation-data pack both.csv -o corpus/                 decodes all clips once, for fast random access
  separation-data render instruments --soundfont FluidR3_GM.sf2 -o instruments/    labelled recordings of 90 instruments
  separation-data render speech -o speech/                 and of speech and singing, by programs that are installed
  separation-data frames vgg.jsonl --out frames/           one picture a second of every video
  separation-data shard both.csv --out shards/ --shards 64 tar files to stream from (needs webdataset)

The splits of a dataset are kept. A recording that a dataset has in two splits stays in the stricter one (test before
validation before train). Your own manifests need the columns path, split, recording_id and labels or caption.
"""


@as_command("separation-data")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run `separation-data`; return its exit status: 0, or 1 if something is wrong with the data."""
    options = build_parser().parse_args(arguments)
    status: int = options.run(options)
    return status


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("separation-data", description=HELP, formatter_class=as_written)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[..., int], about: str, manifest: bool = False) -> Callable[..., Any]:
        command = commands.add_parser(name, help=about)
        command.set_defaults(run=run)
        if manifest:
            command.add_argument("manifest", type=Path, metavar="MANIFEST")
        return command.add_argument

    add("list", list_datasets, "list the datasets")
    add("show", show, "how to get a dataset and what its folder must contain")("name", metavar="NAME")

    option = add("prepare", prepare, "write the manifest of a dataset")
    option("name", metavar="NAME", help="as in `separation-data list`, or folder: your own clips")
    option("directory", type=Path, nargs="?", metavar="DIR", help="the same as --root DIR")
    option("--root", type=Path, metavar="DIR", help="folder of the dataset")
    option("--labels", type=Path, metavar="FILE", help="folder: CSV with file, label (caption, split) [DIR/labels.csv]")
    option("-o", "--output", type=Path, metavar="FILE", help=".csv or .jsonl; default: DIR/manifest.csv")
    option("--validation", type=share, default=0, metavar="SHARE", help="such as 0.05 of the train recordings")

    option = add("join", join, "join several manifests")
    option("manifests", type=Path, nargs="+", metavar="MANIFEST")
    option("-o", "--output", type=Path, required=True, metavar="FILE")
    root = {"type": Path, "metavar": "DIR", "help": "where the paths start (default: the manifest's folder)"}
    option = add("check", check, "decode every clip, report broken ones", True)
    option("--root", **root)

    option = add("pack", pack, "decode all clips into a folder that a training reads in place of the manifest", True)
    option("-o", "--output", type=Path, required=True, metavar="CORPUS")
    option("--root", **root)
    option("--rate", type=int, default=32000, metavar="HZ")
    about = "JSON: a list of wordings for each label (default: our own); of several files, the last that has a text"
    option("--wordings", type=Path, nargs="+", default=[], metavar="FILE", help=about)
    option("--foley", type=int, default=0, metavar="N", help="procedural clips of each sound in addition (0)")
    option("--overwrite", action="store_true", help="replace an existing corpus")

    option = add("render", render, "render recordings of instruments or of speech, with manifest and wordings")
    option("kind", choices=("instruments", "speech"))
    option("-o", "--output", type=Path, required=True, metavar="DIR")
    option("--soundfont", type=Path, metavar="FILE", help="instruments: a General MIDI sound font (.sf2)")
    option("--count", type=int, metavar="N", help="phrases of each instrument (8) or sentences of each voice (30)")
    option("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (0)")
    option("--overwrite", action="store_true", help="replace an earlier rendering")

    option = add("frames", frames, "extract one picture a second of every video", True)
    option("--out", type=Path, required=True, metavar="DIR")
    option("-o", "--output", type=Path, metavar="FILE", help="the new manifest; default: replace the old one")

    option = add("shard", shard, "write tar files to stream from", True)
    option("--out", type=Path, required=True, metavar="DIR")
    option("--split", default="train")
    option("--shards", type=int, default=8, help="a multiple of ranks x workers (8)")
    option("--sample-rate", type=int, default=32000, metavar="HZ")
    option("--frames", action="store_true", help="write the pictures of the clips as well (column frame)")
    option("--root", **root)
    return parser


def share(text: str) -> float:
    """Convert the value of --validation."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("not a share such as 0.05.")
    return value


def list_datasets(options: argparse.Namespace) -> int:
    """Print the datasets."""
    from separation.datasets.prepare import preparers

    for each in preparers().values():
        print(f"{each.name:<20}{each.title:<28}{each.splits}")
    print(f"{'folder':<20}{'your own clips':<28}every fifth recording of a sound is held out")
    return 0


def show(options: argparse.Namespace) -> int:
    """Print the description of a dataset."""
    from separation.datasets.prepare import find_preparer

    each = find_preparer(options.name)
    print(f"{each.title}\n  home      {each.home}\n  get it    {each.get}\n  licence   {each.licence}")
    print(f"  splits    {each.splits}\n  needs     {', '.join(each.needs)}")
    return 0


def prepare(options: argparse.Namespace) -> int:
    """Write the manifest of a dataset, or of a folder of the user's own clips."""
    from separation.datasets.folder import prepare_folder
    from separation.datasets.prepare import find_preparer
    from separation.datasets.prepare import prepare as write

    root = options.root or options.directory
    if root is None or (options.root and options.directory):
        raise DataError("prepare takes one folder: separation-data prepare NAME DIR.")
    output = options.output or root / "manifest.csv"
    if options.name == "folder":
        if options.validation:
            raise DataError("folder holds out every fifth recording of a sound; --validation is for datasets.")
        prepare_folder(root, output, options.labels)
    else:
        if options.labels:
            raise DataError("--labels is for prepare folder: a dataset has lists of its own.")
        write(find_preparer(options.name), root, output, options.validation)
    print(f"wrote {output}")
    return 0


def join(options: argparse.Namespace) -> int:
    """Join several manifests."""
    from separation.data.manifest import resolve_leaks

    folder = options.output.parent
    entries = [
        (split, relocate(clip, path.parent, folder)) for path in options.manifests for split, clip in read_entries(path)
    ]
    kept, dropped = resolve_leaks(entries)
    if dropped:
        recordings = len({clip.recording for _, clip in dropped})
        print(f"left out {len(dropped)} clips: {recordings} recordings are in a stricter split too")
    write_manifest(options.output, kept)
    print(f"wrote {options.output}, {len(kept)} clips")
    return 0


def check(options: argparse.Namespace) -> int:
    """Decode every clip and report broken clips and recordings in two splits."""
    from separation.data.corpus import read_part

    root, entries, broken = options.root or options.manifest.parent, list(read_entries(options.manifest)), 0
    for _, clip in entries:
        try:
            read_part(root / clip.path, clip.start, clip.seconds)
        except DataError as error:
            broken += 1
            print(error)
    leaking = leaks(entries)
    for name, splits in sorted(leaking.items()):
        print(f"{name}: this recording is in {' and '.join(sorted(splits))}.")
    print(f"{len(entries) - broken} clips are sound, {broken} broken, {len(leaking)} recordings in two splits")
    return 1 if broken or leaking else 0


def pack(options: argparse.Namespace) -> int:
    """Write a packed corpus."""
    from separation.data.packing import pack as write

    corpus = write(
        options.manifest, options.output, options.root, options.rate, options.wordings, options.foley, options.overwrite
    )
    hours = sum(corpus.lengths) / options.rate / 3600
    print(f"wrote {options.output}: {hours:.2f} h, {len(corpus)} clips and {len(corpus.labels)} labels to train on")
    return 0


def render(options: argparse.Namespace) -> int:
    """Render recordings."""
    from separation.data.render import instruments, speech, write_recordings

    if (options.kind == "instruments") != (options.soundfont is not None):
        raise DataError("render instruments needs --soundfont FILE, and render speech has none.")
    if options.kind == "instruments":
        steps = instruments.plan(options.soundfont, 8 if options.count is None else options.count, options.seed)
    else:
        steps = speech.plan(30 if options.count is None else options.count, options.seed)
    entries = write_recordings(steps, options.output, options.overwrite)
    hours = sum(clip.seconds for _, clip in entries) / 3600
    held_out, labels = sum(split != "train" for split, _ in entries), len({clip.label for _, clip in entries})
    print(f"wrote {options.output}: {hours:.2f} h, {len(entries)} recordings of {labels} labels, {held_out} held out")
    return 0


def frames(options: argparse.Namespace) -> int:
    """Extract the frames of a manifest's videos and write a manifest that names them."""
    from separation.data.frames import add_frames

    output = options.output or options.manifest
    entries = list(read_entries(options.manifest))
    if output.parent != options.manifest.parent:
        entries = [(split, relocate(clip, options.manifest.parent, output.parent)) for split, clip in entries]
    entries = add_frames(entries, output.parent, options.out, output.parent)
    write_manifest(output, entries)
    print(f"wrote {output}, {sum(bool(clip.frame) for _, clip in entries)} of {len(entries)} clips with frames")
    return 0


def shard(options: argparse.Namespace) -> int:
    """Write the clips of a split as shards."""
    from separation.data.streaming import write_shards

    place, rate = (options.manifest, options.out, options.split, options.shards, options.root), options.sample_rate
    listed = write_shards(*place, rate, frames=options.frames)
    print(f"wrote {len(listed)} shards with {sum(each.clips for each in listed)} clips to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
