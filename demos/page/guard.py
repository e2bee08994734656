"""Security: no connection leaves this computer, and only the routes that the page needs are answered."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]

PREFIXES = ("/page/", "/files/", "/stop/", "/gradio_api/call/", "/gradio_api/queue/",
            "/gradio_api/heartbeat/", "/gradio_api/file=")  # fmt: skip
PATHS = {"/", "/favicon.ico", "/forget", "/config", "/config/", "/gradio_api/info", "/gradio_api/upload",
         "/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/startup-events"}  # fmt: skip
UPLOAD = "/gradio_api/upload"
MAX_BODY = 1_000_000  # bytes of a request that is no upload
BODY_SECONDS = 60.0  # that a client may take for the next part of a request
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


def is_loopback(host: object) -> bool:
    """Whether a host name or address is this computer."""
    text = str(host).strip("[]").lower()
    if text in ("", "localhost", "none"):
        return True
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


def forbid_connections() -> None:
    """Make this process refuse to connect to, or look up, any other computer. This cannot be undone."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            address = arguments[1]
            allowed = not isinstance(address, tuple) or is_loopback(address[0])
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            address = arguments[0]
            host = address.decode("ascii", "replace") if isinstance(address, bytes) else address
            allowed = is_loopback(host) or host == "0.0.0.0"
        else:
            return
        if not allowed:
            raise PermissionError("the page makes no outgoing connections")

    sys.addaudithook(hook)


class Guard:
    """Middleware that passes on the requests of the page itself and answers all others with an error.

    Args:
        application: the server behind it.
        local: whether only names of this computer are valid hosts, so that no web site can reach the page by pointing
            its own name at it.
    """

    def __init__(self, application: Application, local: bool = True) -> None:
        self.application, self.local = application, local

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        answered = False

        async def send_with_headers(message: Any) -> None:
            nonlocal answered
            answered = True
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        most = math.inf if scope.get("path") == UPLOAD else MAX_BODY  # the upload has a limit of its own
        size, complete = 0, False

        async def receive_within_limits() -> Any:
            nonlocal size, complete
            while True:
                try:  # behind the body comes the end of the connection, which may take as long as it likes
                    message = await asyncio.wait_for(receive(), None if complete else BODY_SECONDS)
                except asyncio.TimeoutError:
                    raise HTTPException(408) from None
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if size <= most:
                    return message
                if complete or size > 100 * most:  # a client that is still sending would not see the answer
                    raise HTTPException(413)

        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
        elif scope["type"] == "http" and (status := self.refuse(scope)) is None:
            try:
                await self.application(scope, receive_within_limits, send_with_headers)
            except Exception as error:
                senseless = isinstance(error, (LookupError, TypeError, ValueError))  # a name or value without sense
                if answered or not (senseless or type(error).__module__.startswith("gradio.")):
                    raise
                await self.answer(send, 400)
        elif scope["type"] == "http":
            await self.answer(send, status)

    @staticmethod
    async def answer(send: Any, status: int | None) -> None:
        """Send an answer without a body."""
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def refuse(self, scope: Scope) -> int | None:
        """The HTTP status of a refusal, None if the request is allowed."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        path, host, origin = scope["path"], headers.get(b"host", ""), headers.get(b"origin", "")
        try:
            if self.local and not is_loopback(urlsplit(f"//{host}").hostname):
                return 421
            if origin and urlsplit(origin).netloc != host:
                return 403
        except ValueError:  # half an address, such as [::1
            return 400
        if path != "/" and headers.get(b"sec-fetch-site", "none") not in ("none", "same-origin"):
            return 403
        if path.startswith("/gradio_api/file=") and "://" in path:
            return 403
        return None if path in PATHS or path.startswith(PREFIXES) else 404
