"""A service on a small network, and a client that speaks as our page does."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
from factories import small_predictor, speckle
from picture_samples import save_pillow
from starlette.testclient import TestClient

from propl_monai.deploy.demo.app import make_app
from propl_monai.deploy.demo.service import Service

HEIGHT, WIDTH = 40, 30
HOME = "http://127.0.0.1:8737"


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def make_service(folder: Path, clock: Clock | None = None) -> Service:
    """With a tiny network of random weights."""
    return Service(small_predictor(), folder, clock or Clock())


def make_client(service: Service) -> TestClient:
    """Errors of the server come as answers, as they do to a browser."""
    return TestClient(make_app(service), base_url=HOME, raise_server_exceptions=False)


def open_file(client: TestClient, path: Path, name: str = "") -> dict[str, Any]:
    """Upload a file; the answer."""
    answer = client.post("/studies", content=path.read_bytes(), headers={"x-file-name": name or path.name})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def save_still(path: Path, seed: int = 0) -> Path:
    """A picture of grains."""
    return save_pillow(path, speckle(HEIGHT, WIDTH, seed))


def segment(
    client: TestClient, key: str, text: str, number: int = 1, uncertainty: bool = False, spacing: str = ""
) -> Any:
    """Ask for a target."""
    body = {"text": text, "number": number, "uncertainty": uncertainty, "spacing": spacing}
    return client.post(f"/studies/{key}/segment", json=body)


def mask_of(answer: dict[str, Any], shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """The mask in an answer, bool."""
    bits = np.unpackbits(np.frombuffer(b64decode(answer["mask"]), np.uint8), count=shape[0] * shape[1])
    return bits.reshape(shape).astype(bool)
