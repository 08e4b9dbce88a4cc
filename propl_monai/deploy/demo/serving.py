"""Opens the port, says where the page is, and serves until the process ends. uvicorn comes with the extra `demo`."""

from __future__ import annotations

import ipaddress
import socket
import tempfile
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from propl_monai.deploy.demo.app import make_app
from propl_monai.deploy.demo.service import Service
from propl_monai.errors import ProPLError
from propl_monai.inference.predictor import Predictor

_PATIENCE = 2  # seconds that requests at work have when the server is told to end


def require_packages() -> None:
    """Check that the packages of the extra `demo` are there, before weights are opened."""
    try:
        import starlette
        import uvicorn
    except ImportError as error:
        raise ProPLError("propl demo", f"needs {error.name}", "pip install 'propl-monai[demo]'") from error
    del starlette, uvicorn


def serve(
    predictor: Predictor,
    host: str,
    port: int,
    open_page: bool = False,
    say: Callable[[str], None] = print,
    warn: Callable[[str], None] = print,
) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        predictor: that segments.
        host: address or name to listen at.
        port: 0 for any that is free.
        open_page: open the page in the user's browser.
        say: called with the line that names the address.
        warn: called with a warning where other machines can reach it.
    """
    import uvicorn

    listening = _listen(host, port)
    address, port = listening.getsockname()[:2]
    name = socket.gethostname() if ipaddress.ip_address(address).is_unspecified else address
    shown = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
    with listening, tempfile.TemporaryDirectory(prefix="propl-demo-") as folder:
        if not ipaddress.ip_address(address).is_loopback:
            warn(
                "warning: other machines can reach this page. It has no password, and nothing on its way is encrypted."
            )
        names = frozenset((host.lower(), socket.gethostname().lower()))  # beside addresses, which are always taken
        app = make_app(Service(predictor, Path(folder)), names)
        # No log: its lines and tracebacks would hold what was asked for. `Guard` has its own.
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, server_header=False, timeout_graceful_shutdown=_PATIENCE
        )
        say(f"{shown}   (end with Ctrl-C; nothing is kept)")
        if open_page:
            webbrowser.open(shown)
        with suppress(KeyboardInterrupt):  # uvicorn has ended in order, and raises it again
            uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(place[:2], family=family)
    except (OSError, OverflowError) as error:
        cure = "give another --port, or 0 for any free one; --host 127.0.0.1 is this machine"
        raise ProPLError(f"--host {host} --port {port}", f"cannot be listened at ({error})", cure) from error
