"""Items of the phantoms, the script that makes a bundle for the generic app, and a running server."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from factories import ROOT
from PIL import Image

from propl_monai.tasks import find

BUNDLE = ROOT / "bundle"
ENVIRONMENT = os.environ.get("PROPL_LABEL_ENV") and os.path.abspath(os.environ["PROPL_LABEL_ENV"])
with_server = [
    pytest.mark.label,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not ENVIRONMENT, reason="PROPL_LABEL_ENV names no environment (labelling/make_environment.sh)"),
]
PATIENCE = 400  # seconds for whatever the server is asked for


def phantom_items(phantoms: Path, code: str, count: int) -> list[dict]:
    """MONAI items of one task from the plain layout."""
    images = sorted((phantoms / code / "PHANTOM" / "images").iterdir())[:count]
    task = find(code).name
    return [
        {"image": str(path), "label": str(path.parents[1] / "masks" / path.name), "task": task, "case_id": path.stem}
        for path in images
    ]


def write_bundle(*arguments: Any) -> None:
    """`write_bundle` of `labelling/bundle_for_monaibundle.py`."""
    spec = importlib.util.spec_from_file_location("script", ROOT / "labelling" / "bundle_for_monaibundle.py")
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.write_bundle(*arguments)


class Server:
    """A running server, and its HTTP interface."""

    def __init__(self, process: subprocess.Popen, port: int, log: Path) -> None:
        self.process, self.address, self.log = process, f"http://127.0.0.1:{port}", log

    def answer(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, bytes]:
        """Status and content."""
        request = urllib.request.Request(self.address + path, body, {"Content-Type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def call(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        status, content = self.answer(method, path, body, kind)
        assert status < 400, f"{method} {path}: {status} {content!r}\n{self.last_lines()}"
        return content

    def ask(self, method: str, path: str, **params: Any) -> Any:
        return json.loads(self.call(method, path, json.dumps(params).encode() if method == "POST" else None))

    def infer(self, model: str, image: str, **params: Any) -> np.ndarray:
        """The mask that comes back, bool (H, W)."""
        body, kind = multipart({"params": json.dumps(params)})
        query = urllib.parse.urlencode({"image": image, "output": "image"})
        picture = Image.open(BytesIO(self.call("POST", f"/infer/{model}?{query}", body, kind)))
        assert picture.format == "PNG"
        values = np.asarray(picture)
        assert set(np.unique(values)) <= {0, 1}
        return values > 0

    def submit(self, image: str, tag: str, label: Path, **params: Any) -> None:
        body, kind = multipart({"params": json.dumps(params)}, {"label": label})
        self.call("PUT", "/datastore/label?" + urllib.parse.urlencode({"image": image, "tag": tag}), body, kind)

    def train(self, model: str, **params: Any) -> None:
        """Start a training and wait for its end."""
        self.ask("POST", f"/train/{model}", **params)
        status = self.end_of_training()
        assert status["status"] == "DONE", "\n".join(status["details"])

    def end_of_training(self) -> Any:
        """The status of the last training, once it has ended."""
        end = time.monotonic() + PATIENCE
        while (status := self.ask("GET", "/train/"))["status"] in ("SUBMITTED", "RUNNING"):
            assert time.monotonic() < end, self.last_lines()
            time.sleep(1)
        return status

    def last_lines(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


def multipart(fields: dict[str, str], files: dict[str, Path] | None = None) -> tuple[bytes, str]:
    mark = uuid4().hex
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts += [(f'name="{name}"; filename="{path.name}"', path.read_bytes()) for name, path in (files or {}).items()]
    body = b"".join(
        f"--{mark}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + value + b"\r\n"
        for head, value in parts
    )
    return body + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


def wait_for(server: Server) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert server.process.poll() is None, server.last_lines()
        try:
            with urllib.request.urlopen(server.address + "/info/", timeout=PATIENCE):
                return
        except urllib.error.URLError:
            time.sleep(0.5)
    raise AssertionError(f"the server does not answer\n{server.last_lines()}")
