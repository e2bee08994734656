"""The page's web server: the functions of the HTTP API, and a few files.

`gradio.Server` provides the queue, the streams of progress and the API that `gradio_client` speaks; the page in
`static/` is a client of the same API. Set `GRADIO_TEMP_DIR` to the store's folder before this module is imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import re
import secrets
import shutil
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from fastapi import Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from gradio import FileData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from page.engine import Engine
from page.examples import EXAMPLES, render
from page.guard import Guard
from page.jobs import Cancelled, Desk, Progress, Ticket
from page.limits import NO_SPACE, Limits, Refusal, require_disk_space
from page.queries import check_forms, parse_queries, parse_span
from page.results import RANGE, Result, archive, check_gains, draw_sound, strip
from page.store import GONE, Store
from page.work import Work, list_sounds
from separation import ModelError
from separation.audio import AudioError

STATIC = Path(__file__).with_name("static")
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
SERVED = re.compile(r"stems\.zip|\d\.picture\.png|(mixture|\d\.(target|residual)|remix\.[0-9a-f]{16})\.(wav|png)")
MAX_UPLOADS = 8  # at the same time
TICK_SECONDS = 0.2  # between two reports of progress
SEGMENT_SECONDS = 24.0


class StartError(Exception):
    """The page could not be started; the text is one sentence."""


def refuse(error: Exception) -> JSONResponse:
    """Answer a plain request with an error: there is no such file, or it could not be written."""
    return JSONResponse({"detail": as_gradio_error(error).message}, 404 if isinstance(error, Refusal) else 507)


def file_data(path: Path, name: str) -> Any:
    """A file as Gradio's API describes it."""
    meta = {"_type": "gradio.FileData"}
    return {"path": str(path), "orig_name": name, "size": path.stat().st_size, "meta": meta}


@contextlib.contextmanager
def in_one_sentence() -> Iterator[None]:
    """Errors reach the user as one sentence; unexpected ones are printed on the server."""
    try:
        yield
    except Exception as error:
        raise as_gradio_error(error) from None


def as_gradio_error(error: Exception) -> gr.Error:
    """The error as Gradio shows it."""
    if isinstance(error, Cancelled) or type(error).__name__ == "CancelledError":
        return gr.Error("Cancelled.", print_exception=False)
    if isinstance(error, Refusal | ModelError):
        return gr.Error(str(error), print_exception=False)
    reasons = [each.errno for each in (error, error.__cause__) if isinstance(each, OSError)]
    if set(reasons) & {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return gr.Error(NO_SPACE, print_exception=False)
    if isinstance(error, MemoryError):
        return gr.Error("There is not enough memory for this just now.", print_exception=False)
    print(time.strftime("%H:%M:%S"), "".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
    return gr.Error("Something went wrong on the server; the page itself goes on.", print_exception=False)


class Site:
    """The server and what its routes share; if it is `local`, it answers to names of this computer only."""

    def __init__(self, engine: Engine, limits: Limits, store: Store, local: bool = True) -> None:
        self.engine, self.limits, self.store = engine, limits, store
        self.desk = Desk(limits.active, limits.waiting)
        self.results: dict[str, Result] = {}
        self.uploading = 0
        self.server = gr.Server(title="Separate", docs_url=None, redoc_url=None, openapi_url=None)
        self.server.add_middleware(Guard, local=local)  # before Gradio's own routes, of which only a few are open
        for name in ("models", "sounds", "inspect", "listen", "separate", "remix", "picture", "archive"):
            self.server.api(getattr(self, name), name=name, concurrency_limit=None)
        self.server.get("/")(self.page)
        self.server.get("/page/{name}")(self.static)
        self.server.get("/page/example/{number}")(self.example)
        self.server.get("/files/{job}/{name}")(self.file)
        self.server.post("/stop/{token}")(self.stop)
        self.server.post("/forget")(self.forget)
        self.server.post("/gradio_api/upload")(self.upload)

    def launch(self, host: str, port: int | None, share: bool = False) -> str:
        """Start to answer; return the page's address.

        Raises:
            StartError: the server cannot start.
        """
        try:
            _, url, _ = self.server.launch(
                server_name=host, server_port=port, share=share,
                prevent_thread_lock=True, quiet=True, run_history=False, ssr_mode=False, mcp_server=False,
                enable_monitoring=False, max_file_size=self.limits.megabytes * 1_000_000,
                # Gradio requests its own address again within 3 s, which fails on a busy machine.
                _frontend=False,
            )  # fmt: skip
        except OSError:
            where = "ports 7860 to 7959 are" if port is None else f"port {port} is"
            raise StartError(
                f"The page could not be started at {host}: {where} in use (choose another one with --port), "
                "the address does not exist, or this computer is too busy."
            ) from None
        except Exception as error:  # Gradio's own advice may be to open the page to everybody
            raise StartError(f"The page could not be started: {type(error).__name__}.") from None
        return str(url)

    def close(self) -> None:
        """Stop all jobs and remove all files."""
        self.desk.close()
        self.store.close()

    # The API

    @in_one_sentence()
    def models(self) -> list[dict]:
        """The models: name, description, queries (the accepted forms), sample_rate, size, licence and scores."""
        return self.engine.models()

    @in_one_sentence()
    def sounds(self, model: str = "") -> list[str]:
        """Sounds that a model was trained on. Models that accept texts can be asked for any other description too."""
        return self.engine.sounds_of(model or self.engine.default)

    @in_one_sentence()
    def inspect(self, recording: FileData) -> dict:
        """Check a recording before it is separated: seconds (null if unknown), sample_rate, channels, video."""
        reader = self.limits.open(self.store.upload(recording))
        seconds = None if reader.frames is None else reader.frames / reader.sample_rate
        facts = {"seconds": seconds, "sample_rate": reader.sample_rate}
        return facts | {"channels": reader.channels, "video": reader.pictures}

    @in_one_sentence()
    def listen(self, recording: FileData, model: str = "") -> dict:
        """Known sounds in a recording, the most probable first: label, probability, times (from, to; seconds).

        Only the first minutes are searched; "seconds" says how much that was. Empty if the model cannot list sounds.
        """
        return list_sounds(self.engine, self.limits, self.store.upload(recording), model or self.engine.default)

    async def separate(
        self,
        recording: FileData,
        queries: list,
        model: str = "",
        without: str = "",
        remove: bool = False,
        start: str = "",
        end: str = "",
    ) -> AsyncIterator[dict]:
        """Extract sounds from a recording, or remove them.

        queries: which sounds, one text with commas, or a list of texts and, for models that accept them, of
        {"audio": file, "name": text} for an example recording and {"image": file, "name": text} for a picture;
        model: empty for the default; without: what to keep out of every result, one text with commas; remove: make one
        recording without all of them instead of extracting each; start, end: the part to process, as in --from and
        --to. First come dictionaries of progress: job, state ("waiting" or "working"), ahead, stage, fraction, left
        (seconds). The last one has state "done": sounds with query, presence (0 to 1), verdict (present, uncertain or
        absent), heard, target and residual (float32 wav files, target + residual = recording), the mixture, and
        sounding: what occurs if a sound is absent. Cancelling the call stops the work.
        """
        with in_one_sentence():
            source, model = self.store.upload(recording), model or self.engine.default
            asked = parse_queries(queries, without, self.limits, self.store.upload)
            check_forms(asked, self.engine.card(model).queries, model)
            span = parse_span(start, end)
            self.results = {token: each for token, each in self.results.items() if each.folder.is_dir()}
            folder, finished = self.store.new(), False
            ticket = Ticket(Progress(self.engine.rate(model, len(asked)), SEGMENT_SECONDS))
            name = str(recording.get("orig_name") or source.name)
            work = Work(self.engine, self.limits, ticket, source, folder, name)
            try:
                async for progress in self.follow(ticket, lambda: work.run(asked, model, remove, span)):
                    yield progress
                result = self.results[folder.name] = ticket.future.result()
                finished = True
                yield self.answer(result)
            finally:
                if not finished:
                    ticket.stop()
                    ticket.future.add_done_callback(lambda _: self.store.forget(folder.name))

    async def follow(self, ticket: Ticket, work: Callable[[], Any]) -> AsyncIterator[dict]:
        """Submit a job and yield its progress until its end."""
        self.desk.submit(ticket, work)
        while not ticket.future.done():
            ticket.seen = time.monotonic()
            progress, ahead, left = ticket.progress, self.desk.ahead(ticket), ticket.progress.left()
            facts = {"state": "waiting" if ahead else "working", "job": ticket.token, "ahead": ahead}
            facts |= {"stage": progress.stage, "fraction": round(progress.fraction(), 3)}
            yield facts | {"left": None if left is None else round(left, 1)}
            await asyncio.sleep(TICK_SECONDS)

    def answer(self, result: Result) -> dict[str, Any]:
        """The last item of `separate`."""
        answer = {"state": "done", "job": result.folder.name, **result.summary()}
        answer |= {"work_seconds": round(result.work_seconds, 2), "warning": result.warning}
        answer |= {"hints": result.hints, "view": result.view, "archive": f"{result.stem}.zip"}
        answer["mixture"] = file_data(result.mixture, f"{result.stem}.wav")
        for number, (sound, names) in enumerate(zip(answer["sounds"], result.names, strict=True)):
            sound["names"] = {"target": f"{result.stem}.removed.wav"} | names
            sound["target"] = file_data(result.target(number), sound["names"]["target"])
            sound["residual"] = file_data(result.residual(number), sound["names"]["residual"])
        return answer

    async def remix(self, job: str, gains: list[float]) -> AsyncIterator[Any]:
        """The recording with each sound at its own gain: 1 as it was, 0 removed, up to 4. A float32 wav file.

        Progress comes first, as in `separate`.
        """
        with in_one_sentence():
            result = self.result(job)
            decibels = check_gains(result, gains)
            ticket = Ticket(Progress(self.engine.rate(result.model, len(gains)), SEGMENT_SECONDS))
            work = Work(self.engine, self.limits, ticket, result.mixture, result.folder)
            path = result.folder / f"remix.{secrets.token_hex(8)}.wav"
            try:
                async for progress in self.follow(ticket, lambda: work.remix(result, decibels, path)):
                    yield progress
                ticket.future.result()
            finally:
                ticket.stop()  # nothing, if it has ended
            for older in sorted(result.folder.glob("remix.*.wav"), key=lambda file: file.stat().st_mtime_ns)[:-3]:
                older.unlink(missing_ok=True)
            yield file_data(path, result.mix_name(decibels))

    @in_one_sentence()
    def picture(self, job: str, number: int) -> FileData:
        """Spectrograms of recording, target and residual of one sound (the first is 0), a PNG file."""
        result = self.result(job)
        return file_data(draw_sound(result, number), result.names[number]["picture"])

    @in_one_sentence()
    def archive(self, job: str) -> FileData:
        """A zip of the recording, every target and every residual."""
        result = self.result(job)
        return file_data(archive(result), f"{result.stem}.zip")

    def result(self, job: object) -> Result:
        """The result of a job.

        Raises:
            Refusal: there is no such job, or its files were removed.
        """
        self.store.folder(job)
        if job not in self.results:
            raise Refusal(GONE)
        return self.results[str(job)]

    # The page and its files

    def page(self) -> HTMLResponse:
        """The page, with the facts it needs as JSON."""
        facts = {
            "models": self.engine.models(),
            "sounds": {name: self.engine.sounds_of(name) for name in self.engine.cards},
            "examples": [{"title": example.title, "queries": example.queries} for example in EXAMPLES],
            "absent": self.engine.absent,
            "limits": asdict(self.limits),
            "too_large": self.limits.too_large,
        }
        text = json.dumps(facts).replace("<", "\\u003c")
        html = (STATIC / "index.html").read_text(encoding="utf-8").replace("{{facts}}", text)
        return HTMLResponse(html, headers={"cache-control": "no-store"})

    def static(self, name: str) -> Response:
        """One of the page's own files, or the colour scale."""
        if name == "scale.png":
            column = np.linspace(-RANGE, 0.0, 256)[:, None]
            return Response(strip(column.repeat(4, axis=1), 0.0), media_type="image/png")
        files = {file.name: file for file in STATIC.iterdir() if file.suffix in TYPES}
        if name not in files:
            return Response(status_code=404)
        return FileResponse(files[name], media_type=TYPES[files[name].suffix], headers={"cache-control": "no-cache"})

    def example(self, number: int) -> Response:
        """The recording of an example."""
        if not 0 <= number < len(EXAMPLES):
            return Response(status_code=404)
        try:
            return FileResponse(render(number, self.store.root), media_type="audio/wav")
        except AudioError as error:
            return refuse(error)

    def file(self, job: str, name: str) -> Response:
        """A file of a result; the zip and labelled pictures are made on first use."""
        if not SERVED.fullmatch(name):
            return Response(status_code=404)
        try:
            result = self.result(job)
            path = result.folder / name
            if name == "stems.zip":
                path = archive(result)
            elif name.endswith(".picture.png"):
                path = draw_sound(result, int(name.partition(".")[0]))
        except (Refusal, AudioError, OSError) as error:
            return refuse(error)
        return FileResponse(path) if path.is_file() else Response(status_code=404)

    def stop(self, token: str) -> dict[str, bool]:
        """Stop a job."""
        return {"stopped": self.desk.stop(token)}

    async def forget(self, request: Request) -> Response:
        """Remove the folders whose tokens are in the body, one per line: their page was closed."""
        body = b""
        async for chunk in request.stream():
            body = (body + chunk)[:10_000]
        for token in body.decode("ascii", "replace").split():
            self.results.pop(token, None)
            self.store.forget(token)
        return Response(status_code=204)

    async def upload(self, request: Request) -> Response:
        """Gradio's upload, with file names of our own: returns a list of paths."""
        most, refusal, place = self.limits.megabytes * 1_000_000, None, None
        declared = request.headers.get("content-length", "")
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            refusal = 400, "This is not a multipart upload."
        elif not declared.isdecimal():
            refusal = 411, "An upload must declare its Content-Length."
        elif int(declared) > most + 10_000:
            refusal = 413, self.limits.too_large
        elif self.uploading >= MAX_UPLOADS:
            refusal = 503, "Too many uploads at once. Please try again in a moment."
        if refusal:
            left = 20 * most
            async for chunk in request.stream():  # a client that is still sending would not see the answer
                left -= len(chunk)
                if left < 0:
                    break
            return JSONResponse({"detail": refusal[1]}, refusal[0])
        paths: list[str] = []
        self.uploading += 1
        try:
            require_disk_space(self.store.root, 2 * int(declared))  # it is received into one file and copied to another
            async with request.form(max_files=1, max_fields=4) as form:
                for file in form.getlist("files"):
                    if not isinstance(file, str):
                        place = self.store.place(file.filename or "")
                        with open(place, "wb") as target:
                            await asyncio.to_thread(shutil.copyfileobj, file.file, target)
                        paths.append(str(place))
            return JSONResponse(paths)
        except HTTPException as error:  # not a multipart body, too many files, or too slow
            return JSONResponse({"detail": error.detail}, error.status_code)
        except ClientDisconnect:
            return Response(status_code=400)
        except (Refusal, OSError) as error:
            if place is not None:
                self.store.forget(place.parent.name)
            return refuse(error)
        finally:
            self.uploading -= 1
