"""`separation-data`: datasets to manifests, checks, frames of videos, shards."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from separation.data.manifest import DataError, read_entries, write_manifest
from separation.errors import reason

HELP = """\
Makes a manifest (one row a clip, CSV or JSON lines) of a dataset that you have on disk; training reads manifests only.
Nothing is downloaded.

  separation-data list                                     every dataset, and whether its splits are its own
  separation-data show esc50                               how to get it, what its folder must hold
  separation-data prepare esc50 --root ~/ESC-50-master     writes ~/ESC-50-master/manifest.csv
  separation-data prepare vggsound --root /data/vgg -o vgg.jsonl --validation 0.05
  separation-data join esc50.csv fsd50k.csv -o both.csv    recordings that would be in two splits are left out
  separation-data check both.csv                           decodes everything, reports what is broken
  separation-data frames vgg.jsonl --out frames/           one picture per second of every video
  separation-data shard both.csv --out shards/ --shards 64 tar files to stream from (needs webdataset)

A dataset's own splits are kept. A recording that a dataset has in two splits stays in the stricter one (test before
validation before train). A manifest of your own needs the columns path, split, recording_id and labels or caption.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `separation-data`; returns its exit status (0 done, 1 something is wrong with the data)."""
    options = parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except DataError as error:
        print(f"separation-data: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"separation-data: {error.filename or 'a file'}: {reason(error)}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("separation-data: interrupted; nothing half-written is left behind.", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser("separation-data", description=HELP, formatter_class=raw)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    each = commands.add_parser("list", help="list the datasets")
    each.set_defaults(run=list_datasets)

    each = commands.add_parser("show", help="how to get a dataset and what its folder must hold")
    each.add_argument("name", metavar="NAME")
    each.set_defaults(run=show)

    each = commands.add_parser("prepare", help="write a dataset's manifest")
    each.add_argument("name", metavar="NAME", help="as `separation-data list` has it")
    each.add_argument("--root", type=Path, required=True, metavar="DIR", help="the dataset's folder")
    each.add_argument("-o", "--output", type=Path, metavar="FILE", help=".csv or .jsonl; DIR/manifest.csv by default")
    each.add_argument(
        "--validation", type=share, default=0, metavar="SHARE", help="such as 0.05 of the train recordings"
    )
    each.set_defaults(run=prepare)

    each = commands.add_parser("join", help="several manifests as one")
    each.add_argument("manifests", type=Path, nargs="+", metavar="MANIFEST")
    each.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    each.set_defaults(run=join)

    each = commands.add_parser("check", help="decode every clip, report what is broken")
    each.add_argument("manifest", type=Path, metavar="MANIFEST")
    each.add_argument("--root", type=Path, metavar="DIR", help="where its paths start from, if not from its folder")
    each.set_defaults(run=check)

    each = commands.add_parser("frames", help="a picture a second of every video")
    each.add_argument("manifest", type=Path, metavar="MANIFEST")
    each.add_argument("--out", type=Path, required=True, metavar="DIR")
    each.add_argument("-o", "--output", type=Path, metavar="FILE", help="the new manifest; replaces the old by default")
    each.set_defaults(run=frames)

    each = commands.add_parser("shard", help="tar files to stream from")
    each.add_argument("manifest", type=Path, metavar="MANIFEST")
    each.add_argument("--out", type=Path, required=True, metavar="DIR")
    each.add_argument("--split", default="train")
    each.add_argument("--shards", type=int, default=8, help="a multiple of ranks x workers (8)")
    each.add_argument("--sample-rate", type=int, default=32000, metavar="HZ")
    each.add_argument("--root", type=Path, metavar="DIR", help="where its paths start from, if not from its folder")
    each.set_defaults(run=shard)
    return top


def share(text: str) -> float:
    """A share between 0 and 1."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError("it is a share such as 0.05.")
    return value


def list_datasets(options: argparse.Namespace) -> int:
    """Prints the datasets."""
    from separation.datasets.registry import preparers

    for each in preparers().values():
        print(f"{each.name:<20}{each.title:<28}{each.splits}")
    return 0


def show(options: argparse.Namespace) -> int:
    """Prints what is known of one dataset."""
    from separation.datasets.registry import preparer

    each = preparer(options.name)
    print(f"{each.title}\n  home      {each.home}\n  get it    {each.get}\n  licence   {each.licence}")
    print(f"  splits    {each.splits}\n  needs     {', '.join(each.needs)}")
    return 0


def prepare(options: argparse.Namespace) -> int:
    """Writes a dataset's manifest."""
    from separation.datasets.registry import preparer
    from separation.datasets.run import prepare as write

    output = options.output or options.root / "manifest.csv"
    write(preparer(options.name), options.root, output, options.validation)
    print(f"wrote {output}")
    return 0


def join(options: argparse.Namespace) -> int:
    """Writes several manifests as one."""
    from separation.data.manifest import without_leaks
    from separation.datasets.run import moved

    folder = options.output.parent
    entries = [
        (split, moved(clip, path.parent, folder)) for path in options.manifests for split, clip in read_entries(path)
    ]
    resolved = without_leaks(entries)
    if resolved.dropped:
        print(
            f"left out {len(resolved.dropped)} clips: {len(resolved.recordings)} recordings are in a stricter split too"
        )
    write_manifest(options.output, resolved.kept)
    print(f"wrote {options.output}, {len(resolved.kept)} clips")
    return 0


def check(options: argparse.Namespace) -> int:
    """Decodes every clip."""
    from separation.datasets.check import check as look

    checked = look(options.manifest, options.root)
    for line in checked.broken:
        print(line)
    for name, splits in sorted(checked.leaking.items()):
        print(f"{name}: this recording is in {' and '.join(sorted(splits))}.")
    counts = f"{checked.read} clips are sound, {len(checked.broken)} broken"
    print(f"{counts}, {len(checked.leaking)} recordings in two splits")
    return 1 if checked.broken or checked.leaking else 0


def frames(options: argparse.Namespace) -> int:
    """Writes the frames of a manifest's videos, and a manifest that names them."""
    from separation.data.frames import add_frames
    from separation.datasets.run import moved

    output = options.output or options.manifest
    entries = list(read_entries(options.manifest))
    if output.parent != options.manifest.parent:
        entries = [(split, moved(clip, options.manifest.parent, output.parent)) for split, clip in entries]
    entries = add_frames(entries, output.parent, options.out, output.parent)
    write_manifest(output, entries)
    print(f"wrote {output}, {sum(bool(clip.frame) for _, clip in entries)} of {len(entries)} clips with frames")
    return 0


def shard(options: argparse.Namespace) -> int:
    """Writes a split's clips as shards."""
    from separation.data.streaming import write_shards

    listed = write_shards(
        options.manifest, options.out, options.split, options.shards, options.root, options.sample_rate
    )
    print(f"wrote {len(listed)} shards with {sum(each['clips'] for each in listed)} clips to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
