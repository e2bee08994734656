"""Security: no connection leaves this computer, and only the routes that the page needs are answered."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Application = Callable[[Scope, Any, Any], Awaitable[None]]

PREFIXES = ("/page/", "/files/", "/stop/", "/gradio_api/call/", "/gradio_api/queue/",
            "/gradio_api/heartbeat/", "/gradio_api/file=")  # fmt: skip
PATHS = {"/", "/favicon.ico", "/forget", "/config", "/config/", "/gradio_api/info", "/gradio_api/upload",
         "/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/startup-events"}  # fmt: skip
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
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        if scope["type"] == "lifespan":
            await self.application(scope, receive, send)
        elif scope["type"] == "http" and (status := self.refuse(scope)) is None:
            await self.application(scope, receive, send_with_headers)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

    def refuse(self, scope: Scope) -> int | None:
        """The HTTP status of a refusal, None if the request is allowed."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self.local and not is_loopback(urlsplit(f"//{host}").hostname):
            return 421
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and urlsplit(origin).netloc != host:
            return 403
        path = scope["path"]
        if path.startswith("/gradio_api/file=") and "://" in path:
            return 403
        return None if path in PATHS or path.startswith(PREFIXES) else 404
