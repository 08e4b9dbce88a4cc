"""The web application: which address is which call of `Service`. Starlette comes with the extra `demo`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from propl_monai.deploy.demo.guard import Application, Guard, TooLong, described, failure
from propl_monai.deploy.demo.service import MOST_UPLOAD, Gone, Service
from propl_monai.errors import ProPLError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    Call = Callable[[], Any]  # of the service, with all of its arguments
    Answer = Callable[[Request], Awaitable[Response]]

UPLOADS = "/studies"
MOST_OTHER = 4_000_000  # bytes of any other request: the bits of the largest mask are 2 MB
SWEEP_EVERY = 30.0  # seconds
PAGE = {"/": "page.html", "/page.css": "page.css", "/page.js": "page.js", "/picture.js": "picture.js"}
_STATUS: dict[type, int] = {Gone: 404, TooLong: 413}  # of errors; 400 of all others
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def make_app(service: Service, names: frozenset[str] = frozenset()) -> Application:
    """The whole application.

    Args:
        service: that answers.
        names: of this machine, see `Guard`.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    def answered(work: Callable[[Request], Awaitable[Call]]) -> Answer:
        """An endpoint: reads a request, then makes the call that it asks for in another thread."""

        async def endpoint(request: Request) -> Response:
            try:
                found = await asyncio.to_thread(await work(request))
            except ProPLError as error:
                return JSONResponse(described(error), _STATUS.get(type(error), 400))
            if isinstance(found, bytes):
                return Response(found, media_type="image/png")
            if isinstance(found, tuple):
                name, content = found
                disposition = f"attachment; filename*=UTF-8''{quote(name)}"
                return Response(
                    content, media_type="application/octet-stream", headers={"content-disposition": disposition}
                )
            return JSONResponse(found)

        return endpoint

    def static(name: str) -> Answer:
        path = Path(__file__).with_name(name)

        async def endpoint(request: Request) -> Response:
            return Response(path.read_bytes(), media_type=_TYPES[path.suffix])

        return endpoint

    async def about(request: Request) -> Call:
        return service.about

    async def opened(request: Request) -> Call:
        name = unquote(request.headers.get("x-file-name", ""))
        return partial(service.open, await request.body(), name)

    async def picture(request: Request) -> Call:
        return partial(service.picture, request.path_params["study"], request.path_params["number"])

    async def edited(request: Request) -> Call:
        place = request.path_params
        spacing = request.query_params.get("spacing", "")
        return partial(service.edit, place["study"], place["code"], place["number"], await request.body(), spacing)

    def spoken(verb: Callable[..., Any], **kinds: type) -> Answer:
        """The endpoint of a call whose arguments come as JSON."""

        async def work(request: Request) -> Call:
            return partial(verb, request.path_params["study"], **await _arguments(request, kinds))

        return answered(work)

    study = f"{UPLOADS}/{{study}}"
    routes = [
        *(Route(address, static(name)) for address, name in PAGE.items()),
        Route("/about", answered(about)),
        Route(UPLOADS, answered(opened), methods=["POST"]),
        Route(f"{study}/frames/{{number:int}}", answered(picture)),
        Route(f"{study}/masks/{{code}}/{{number:int}}", answered(edited), methods=["PUT"]),
    ]
    verbs = {
        "segment": spoken(service.segment, text=str, number=int, uncertainty=bool, spacing=str),
        "segment_on": spoken(service.segment_on, codes=list, first=int),
        "measure": spoken(service.measure, codes=list, number=int, spacing=str),
        "save": spoken(service.save, codes=list, form=str, number=int, spacing=str),
        "alive": spoken(service.alive),
        "close": spoken(service.close),
    }
    routes += [Route(f"{study}/{verb}", endpoint, methods=["POST"]) for verb, endpoint in verbs.items()]

    @asynccontextmanager
    async def swept(_: Starlette) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(SWEEP_EVERY)
                service.forget_old()

        task = asyncio.create_task(sweep())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def failed(_: Request, error: Exception) -> Response:
        return JSONResponse(described(failure(error)), 500)

    app: Any = Starlette(routes=routes, lifespan=swept, exception_handlers={Exception: failed})
    return Guard(app, names, lambda path: MOST_UPLOAD if path == UPLOADS else MOST_OTHER)


async def _arguments(request: Request, kinds: Mapping[str, type]) -> dict[str, Any]:
    """The arguments of a call, of the right kinds; anything else was not sent by our page."""
    if not kinds:
        return {}
    try:
        given = await request.json()
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or {name: type(value) for name, value in given.items()} != dict(kinds):
        names = ", ".join(f"{name} ({kind.__name__})" for name, kind in kinds.items())
        raise ProPLError("request", "does not hold what is needed", f"send a JSON object of {names}")
    return given
