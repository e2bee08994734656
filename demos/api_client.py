"""Separate a recording through the page's HTTP API.

    python demos/app.py                                                                   # in one terminal
    python demos/api_client.py http://127.0.0.1:7860 demos/mix.wav "dog barking, rain"    # in another

This writes dog_barking.wav, not_dog_barking.wav, ... It needs only `gradio_client`, not this package.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from gradio_client import Client, handle_file


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Separate a recording through the page's HTTP API.")
    parser.add_argument("url", help="address of the page")
    parser.add_argument("recording")
    parser.add_argument("queries", help="sounds to separate, with commas between them")
    parser.add_argument("-o", "--output", type=Path, default=Path("."), help="folder for the results")
    parser.add_argument("--model", default="", help="a model name from /models")
    options = parser.parse_args()
    try:
        separate(options)
    except Exception as error:  # gradio_client passes on those of several libraries
        text = " ".join(str(error).split()) or type(error).__name__
        sys.exit(f"{options.url} or {options.recording} cannot be used: {text}")


def separate(options: argparse.Namespace) -> None:
    """Upload the recording, show the progress, and save the results."""
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        client = Client(options.url, verbose=False, download_files=downloads)
        job = client.submit(handle_file(options.recording), [options.queries], options.model, api_name="/separate")
        for update in job:
            if update["state"] == "waiting":
                print(f"\r{update['ahead']} before this one", end="", file=sys.stderr)
            elif update["state"] == "working":
                print(f"\r{update['fraction']:4.0%} {update['stage']:<12}", end="", file=sys.stderr)
        print(file=sys.stderr)
        for sound in job.result()["sounds"]:
            print(f"{sound['query']}: presence {sound['presence']} - {sound['verdict']}")
            for kind in ("target", "residual"):
                shutil.copyfile(sound[kind], options.output / sound["names"][kind])


if __name__ == "__main__":
    main()
