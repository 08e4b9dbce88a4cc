"""What stands before every request: whose it is, how long it may be, and what an answer may be used for.

A page from elsewhere can make a browser send requests to this machine, also under a name of its own that it lets point here
(DNS rebinding). So the name in `Host` must be ours, and where a browser says which page asks, it must be our page.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from propl_monai.errors import ProPLError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),  # nothing is kept after the page is closed
]
logger = logging.getLogger(__name__)


class TooLong(ProPLError):
    """More than may be sent."""

    def __init__(self, most: int) -> None:
        super().__init__("the file", f"has more than {most // 10**6} MB", "use `propl predict` for large files")


class Guard:
    """An ASGI application around another one. Its log names no file, no message and no address.

    Args:
        app: what it guards.
        names: that `Host` may hold beside addresses and "localhost", in lower case.
        limit: of a path, the greatest number of bytes that may be sent to it.
    """

    def __init__(self, app: Application, names: frozenset[str], limit: Callable[[str], int]) -> None:
        self.app, self.names, self.limit = app, names | {"localhost"}, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        left = most = self.limit(scope["path"])

        async def counted() -> MutableMapping[str, Any]:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise TooLong(most)
            return message

        async def marked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if reason := self._foreign(scope, headers):
            await refuse(marked, 403, ProPLError("request", reason, "open the address that `propl demo` printed"))
            return
        if int(headers.get("content-length", "0")) > most:  # a number: the server has looked at it
            await refuse(marked, 413, TooLong(most))
            return
        try:
            await self.app(scope, counted, marked)
        except Exception as error:  # answered already; what it says may quote a file or a patient
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            place = f"{trace.tb_frame.f_globals.get('__name__')}, line {trace.tb_lineno}" if trace else "?"
            logger.error("%s in %s", type(error).__name__, place)

    def _foreign(self, scope: Scope, headers: dict[str, str]) -> str:
        """Why a request is not of our page; empty where it is."""
        host = headers.get("host", "")
        if not self._is_ours(host):
            return f"came for the name '{host}'"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return f"came from the page of '{origin}'"
        # A link to the page itself may be anywhere.
        link = scope["method"] == "GET" and scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not link:
            return "came from a page of another site"
        return ""

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True


async def refuse(send: Send, status: int, error: ProPLError) -> None:
    """Answer with an error, as the page shows it."""
    body = json.dumps(described(error)).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def failure(error: Exception) -> ProPLError:
    """What the page says of a fault of ours."""
    fact = f"failed inside ({type(error).__name__})"
    return ProPLError("the demo", fact, "the terminal says where; try another file")


def described(error: ProPLError) -> dict[str, str]:
    """An error as JSON values."""
    return {"where": error.where, "fact": error.fact, "cure": error.cure}
