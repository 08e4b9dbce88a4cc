"""`examples/browser`: the exported network in headless Chromium draws the masks of `propl predict`.

`apt-get install chromium npm` gives what it needs, and npm fetches onnxruntime-web; without them it is skipped.
"""

from __future__ import annotations

import http.server
import io
import shutil
import subprocess
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from deploy.demo.browser_tools import CHROMIUM, Browser
from factories import ROOT, speckle, write_small_bundle
from PIL import Image

from propl_monai import Predictor
from propl_monai.deploy.export import export

EXAMPLE = ROOT / "examples" / "browser"
NPM = shutil.which("npm")
MOST_DIFFERENT = 1e-3  # of the pixels: sums of floats in another order, at the edge of the mask


def test_the_example_stays_short() -> None:
    files = [path for path in EXAMPLE.iterdir() if path.suffix in (".html", ".json", ".md")]
    assert len(files) == 3 and sum(len(path.read_text().splitlines()) for path in files) < 200
    page = (EXAMPLE / "index.html").read_text()
    assert "http://" not in page and "https://" not in page and "innerHTML" not in page


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example with a small network, made as its README says."""
    assert NPM is not None
    folder = tmp_path / "browser"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "model.*"))
    command = [NPM, "install", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    if done.returncode:
        pytest.skip(f"npm could not fetch onnxruntime-web: {done.stderr.strip()[-300:]}")
    export(write_small_bundle(tmp_path / "small"), folder / "model.onnx")
    return folder


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.mark.exhaustive
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
@pytest.mark.skipif(NPM is None, reason="no npm here: apt-get install npm")
def test_the_masks_are_those_of_predict(example: Path, tmp_path: Path) -> None:
    predictor = Predictor.from_bundle(tmp_path / "small", device="cpu")
    pictures = {"fetal head": speckle(120, 90), "thyroid nodule": speckle(25, 70, 1, colour=True)}  # larger, and lower
    with served(example) as address, Browser(tmp_path, 1366, 768) as browser:
        browser.open(address)
        browser.wait("document.getElementById('status').textContent === 'Choose a picture.'")
        names = browser.run("[...document.getElementById('task').options].map(one => one.text)")
        assert names == list(predictor.tasks)
        for name, pixels in pictures.items():
            path = tmp_path / f"{name}.png"
            Image.fromarray(pixels).save(path)
            expected = predictor(path, name).mask
            browser.run("document.getElementById('save').removeAttribute('href')")
            browser.run(f"document.getElementById('task').selectedIndex = {names.index(name)}")
            browser.choose("#file", path)
            link = browser.wait("document.getElementById('save').href")
            mask = np.asarray(Image.open(io.BytesIO(b64decode(link.partition(",")[2]))).convert("L")) > 0
            assert mask.shape == expected.shape == pixels.shape[:2]
            assert 0.05 < expected.mean() < 0.95 and (mask != expected).mean() < MOST_DIFFERENT
            assert browser.run("document.getElementById('status').textContent").startswith(f"{name}: {mask.sum()} px²")
        assert browser.problems == []
