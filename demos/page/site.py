"""The page's web server: a few functions as a Gradio API, a few files, and the page itself.

Gradio gives the queue, the streams of progress and the API that `gradio_client` speaks; the page in `static/` is a
client of the same API. Set `GRADIO_TEMP_DIR` to the store's root before this module is imported.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from gradio.data_classes import FileData
from gradio.route_utils import GradioMultiPartParser, MultiPartException

from page import pictures
from page.asking import asked_of, check_forms
from page.engine import Engine
from page.examples import EXAMPLES, render
from page.guard import Guard
from page.hear import hear
from page.jobs import Cancelled, Desk, Progress, Ticket
from page.limits import Limits, Refusal
from page.store import GONE, Store
from page.work import Result, Work, archive, draw_sound, file_names, inspect, remix, summary
from separation.pretrained import ModelError

STATIC = Path(__file__).with_name("static")
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
SERVED = re.compile(r"(mixture|\d\.(target|residual)|remix\.[0-9a-f]{16})\.(wav|png)")
TICK = 0.2
SEGMENT = 24.0


class Site:
    """Everything that the server's routes share.

    Args:
        engine, limits, store: see there.
        local: whether the page answers to names of this computer only.
    """

    def __init__(self, engine: Engine, limits: Limits, store: Store, local: bool = True) -> None:
        self.engine, self.limits, self.store = engine, limits, store
        self.desk = Desk(limits.active, limits.waiting)
        self.results: dict[str, Result] = {}
        # Before Gradio's own routes, of which the guard lets only a few be reached.
        self.server = gr.Server(title="Separate", docs_url=None, redoc_url=None, openapi_url=None)
        self.server.add_middleware(Guard, local=local)
        self._add_functions()
        self._add_routes()

    def launch(self, host: str, port: int | None, share: bool = False, browser: bool = False) -> str:
        """Begins to answer; returns the page's address.

        Raises:
            StartError: it cannot.
        """
        if port is not None and is_taken(port):
            raise StartError(f"Another program already answers at port {port}: --port takes another one.")
        try:
            _, url, _ = self.server.launch(
                server_name=host, server_port=port, share=share, inbrowser=browser,
                prevent_thread_lock=True, quiet=True, run_history=False, ssr_mode=False, mcp_server=False,
                enable_monitoring=False, max_file_size=self.limits.megabytes * 1_000_000,
                # Gradio asks itself once more within 3 s, which a busy machine does not keep; it has answered by then.
                _frontend=False,
            )  # fmt: skip
        except OSError:
            where = "7860 to 7959" if port is None else port
            raise StartError(f"The page could not be started at {host}, port {where}: the address cannot be used, or "
                             "this computer is too busy just now.") from None  # fmt: skip
        except Exception as error:  # Gradio's own advice may be to open the page to everybody
            raise StartError(f"The page could not be started: {type(error).__name__}.") from None
        return str(url)

    def close(self) -> None:
        """Stops all work and removes all files."""
        self.desk.close()
        self.store.close()

    # --- The API -----------------------------------------------------------------------------

    def _add_functions(self) -> None:
        names = ("models", "sounds", "inspect", "listen", "separate", "remix", "picture", "archive")
        for name in names:
            self.server.api(polite(getattr(self, name)), name=name, concurrency_limit=None)

    def models(self) -> list[dict]:
        """The models: name, description, queries (the forms it takes), sample_rate, size, licence and scores."""
        return self.engine.models()

    def sounds(self, model: str = "") -> list[str]:
        """Sounds that a model was trained on. One that takes texts may be asked for any other description as well."""
        return self.engine.sounds_of(model or self.engine.default)

    def inspect(self, recording: FileData) -> dict:
        """Whether a recording can be separated, before it is: seconds (null when unknown), sample_rate, channels."""
        reader = inspect(self.store.recording(recording), self.limits)
        seconds = None if reader.frames is None else reader.frames / reader.sample_rate
        return {"seconds": seconds, "sample_rate": reader.sample_rate, "channels": reader.channels}

    def listen(self, recording: FileData, model: str = "") -> dict:
        """Known sounds that may be in a recording, the likeliest first: label, probability, times (from, to; seconds).

        Only the first minutes are listened to; "seconds" says how much that was. Empty where the model cannot tell.
        """
        return hear(self.engine, self.limits, self.store.recording(recording), model or self.engine.default)

    async def separate(
        self, recording: FileData, queries: list, model: str = "", without: str = ""
    ) -> AsyncIterator[dict]:
        """Takes sounds out of a recording.

        queries: what to take out, one text with commas, or a list of texts and, for models that take them, of
        {"audio": file, "name": text} for an example recording and {"image": file, "name": text} for a picture;
        model: empty for the default one; without: what to keep out of every result, one text with commas. First
        come dictionaries of progress: job, state ("waiting" or "working"), ahead, stage, fraction, left (seconds).
        The last one has state "done": sounds with query, presence (0 to 1), heard, target and residual (float32 wav
        files, target + residual = recording), and the mixture. Cancelling the call stops the work.
        """
        source, model = self.store.recording(recording), model or self.engine.default
        asked = asked_of(queries, without, self.limits, self.store.recording)
        check_forms(asked, self.engine.card(model).queries, model)
        self._forget_old()
        folder = self.store.new()
        ticket = Ticket(Progress(self.engine.rate(model, len(asked)), SEGMENT))
        work = Work(self.engine, self.limits, ticket, source, folder)
        finished = False
        try:
            self.desk.submit(ticket, lambda: work.run(asked, model))
            while not ticket.future.done():
                ticket.watched()
                yield self._state(ticket)
                await asyncio.sleep(TICK)
            result = ticket.future.result()
            self.results[folder.name] = result
            finished = True
            yield self._answer(result)
        finally:
            if not finished:
                ticket.stop()
                when_done(ticket, lambda: self.store.forget(folder.name))

    def _state(self, ticket: Ticket) -> dict[str, Any]:
        progress, ahead = ticket.progress, self.desk.ahead(ticket)
        left = progress.left()
        return {
            "state": "waiting" if ahead else "working",
            "job": ticket.token,
            "ahead": ahead,
            "stage": progress.stage,
            "fraction": round(progress.fraction(), 3),
            "left": None if left is None else round(left, 1),
        }

    def _answer(self, result: Result) -> dict[str, Any]:
        answer = {"state": "done", "job": result.folder.name, **summary(result)}
        answer |= {"work_seconds": round(result.work_seconds, 2), "warning": result.warning, "view": result.view}
        answer["mixture"] = file_data(result.mixture, "mixture.wav")
        for number, (sound, name) in enumerate(zip(answer["sounds"], file_names(result), strict=True)):
            sound["name"] = name
            sound["target"] = file_data(result.target(number), f"{name}.wav")
            sound["residual"] = file_data(result.residual(number), f"not_{name}.wav")
        return answer

    def remix(self, job: str, gains: list[float]) -> FileData:
        """The recording with each sound at a gain of its own: 1 as it was, 0 off, up to 4. A float32 wav file."""
        result = self.result(job)
        path = result.folder / f"remix.{secrets.token_hex(8)}.wav"
        remix(result, gains, path)
        for older in sorted(result.folder.glob("remix.*.wav"), key=lambda file: file.stat().st_mtime_ns)[:-3]:
            older.unlink(missing_ok=True)
        return file_data(path, "remix.wav")

    def picture(self, job: str, number: int) -> FileData:
        """Spectrograms of recording, target and residual of one sound (the first is 0), a PNG file."""
        return file_data(draw_sound(self.result(job), number), "picture.png")

    def archive(self, job: str) -> FileData:
        """A zip of the recording, every target and every residual."""
        return file_data(archive(self.result(job)), "separation.zip")

    def result(self, job: object) -> Result:
        """What a job came to.

        Raises:
            Refusal: there is no such job, or its files were removed.
        """
        self.store.folder(job)
        if job not in self.results:
            raise Refusal(GONE)
        return self.results[str(job)]

    def _forget_old(self) -> None:
        for token in [token for token, result in list(self.results.items()) if not result.folder.is_dir()]:
            self.results.pop(token, None)

    # --- The page ----------------------------------------------------------------------------

    def _add_routes(self) -> None:
        server = self.server
        server.get("/")(self.page)
        server.get("/page/{name}")(self.static)
        server.get("/page/example/{number}")(self.example)
        server.get("/files/{job}/{name}")(self.file)
        server.get("/picture/{job}/{number}")(self.picture_file)
        server.get("/archive/{job}")(self.archive_file)
        server.post("/stop/{token}")(self.stop)
        server.post("/forget")(self.forget)
        server.post("/gradio_api/upload")(self.upload)

    def page(self) -> HTMLResponse:
        """The page, with what it needs to know."""
        facts = {
            "models": self.engine.models(),
            "sounds": {name: self.engine.sounds_of(name) for name in self.engine.cards},
            "examples": [{"title": e.title, "queries": e.queries} for e in EXAMPLES],
            "absent": self.engine.absent,
            "limits": asdict(self.limits),
            "too_large": self.limits.too_large,
        }
        text = json.dumps(facts).replace("<", "\\u003c")
        html = (STATIC / "index.html").read_text(encoding="utf-8").replace("{{facts}}", text)
        return HTMLResponse(html, headers={"cache-control": "no-store"})

    def static(self, name: str) -> Response:
        """One of the page's own files."""
        if name == "scale.png":
            return Response(pictures.scale(), media_type="image/png")
        files = {file.name: file for file in STATIC.iterdir() if file.suffix in TYPES}
        if name not in files:
            return Response(status_code=404)
        return FileResponse(files[name], media_type=TYPES[files[name].suffix], headers={"cache-control": "no-cache"})

    def example(self, number: int) -> Response:
        """The recording of an example."""
        if not 0 <= number < len(EXAMPLES):
            return Response(status_code=404)
        return FileResponse(render(number, self.store.root), media_type="audio/wav")

    def file(self, job: str, name: str) -> Response:
        """Sound or picture of a job."""
        if not SERVED.fullmatch(name):
            return Response(status_code=404)
        return self._send(lambda: self.result(job).folder / name)

    def picture_file(self, job: str, number: int) -> Response:
        """The labelled picture of a sound."""
        return self._send(lambda: draw_sound(self.result(job), number))

    def archive_file(self, job: str) -> Response:
        """The zip of a job."""
        return self._send(lambda: archive(self.result(job)))

    def _send(self, find: Callable[[], Path]) -> Response:
        try:
            path = find()
        except Refusal as error:
            return Response(str(error), status_code=404, media_type="text/plain")
        return FileResponse(path) if path.is_file() else Response(status_code=404)

    def stop(self, token: str) -> dict[str, bool]:
        """Stops a job."""
        return {"stopped": self.desk.stop(token)}

    async def forget(self, request: Request) -> Response:
        """Removes the folders whose tokens are in the body, one a line: the page was closed."""
        for token in (await limited_body(request, 10_000)).decode("ascii", "replace").split():
            self.results.pop(token, None)
            self.store.forget(token)
        return Response(status_code=204)

    async def upload(self, request: Request) -> Response:
        """Gradio's upload, under names of our own: answers with a list of paths."""
        most = self.limits.megabytes * 1_000_000
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return JSONResponse({"detail": "This is no upload."}, 400)
        stream = request.stream()
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > most + 10_000:
            return await self._too_large(stream)
        parser = GradioMultiPartParser(
            request.headers, stream, max_files=1, max_fields=4, upload_dir=self.store.root, max_file_size=most
        )
        paths = []
        try:
            for file in (await parser.parse()).getlist("files"):
                if isinstance(file, str):
                    continue
                file.file.close()
                place = self.store.place(file.filename or "")
                Path(file.file.name).rename(place)
                paths.append(str(place))
        except MultiPartException as error:
            if "maximum allowed size" in error.message:
                return await self._too_large(stream)
            return JSONResponse({"detail": error.message}, 400)
        finally:
            for left in parser._files_to_close_on_error:  # an upload that broke off
                Path(left.name).unlink(missing_ok=True)
        return JSONResponse(paths)

    async def _too_large(self, stream: AsyncIterator[bytes]) -> Response:
        """The refusal, after the rest has come in: a client that is still sending would not see it."""
        left = 20 * self.limits.megabytes * 1_000_000
        async for chunk in stream:
            left -= len(chunk)
            if left < 0:
                break
        return JSONResponse({"detail": self.limits.too_large}, 413)


class StartError(Exception):
    """The page could not be started; one plain sentence."""


def is_taken(port: int) -> bool:
    """Whether another program answers at a port of this computer."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:  # ports below 1024: Gradio says it
            return False
        except OSError:
            return True
    return False


async def limited_body(request: Request, most: int) -> bytes:
    """The request's body, cut after `most` bytes."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) >= most:
            break
    return body[:most]


def file_data(path: Path, name: str) -> Any:
    """A file as Gradio's API describes it."""
    return {
        "path": str(path),
        "orig_name": name,
        "size": path.stat().st_size,
        "meta": {"_type": "gradio.FileData"},
    }


def when_done(ticket: Ticket, action: Callable[[], None]) -> None:
    """Calls `action` when the job has really ended."""
    ticket.future.add_done_callback(lambda _: action())


def polite(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` whose errors reach a person as one sentence; what nobody foresaw is printed on the server."""
    import functools
    import inspect as introspection

    if introspection.isasyncgenfunction(function):

        @functools.wraps(function)
        async def streaming(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            inner = function(*args, **kwargs)
            try:
                async for value in inner:
                    yield value
            except Exception as error:
                raise as_sentence(error) from None
            finally:
                await inner.aclose()

        return streaming

    @functools.wraps(function)
    def calling(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise as_sentence(error) from None

    return calling


def as_sentence(error: Exception) -> gr.Error:
    """The error as Gradio shows it."""
    if isinstance(error, Cancelled) or type(error).__name__ == "CancelledError":
        return gr.Error("Cancelled.", print_exception=False)
    if isinstance(error, (Refusal, ModelError)):
        return gr.Error(str(error), print_exception=False)
    if isinstance(error, MemoryError):
        return gr.Error("There is not enough memory for this just now.", print_exception=False)
    print(time.strftime("%H:%M:%S"), "".join(traceback.format_exception(error)), file=sys.stderr, flush=True)
    return gr.Error("Something went wrong on the server; the page itself goes on.", print_exception=False)
