"""`examples/browser`: the exported network in headless Chromium draws the masks of `propl predict`.

`apt-get install chromium npm` gives what it needs, and npm fetches onnxruntime-web; without them it is skipped.
"""

from __future__ import annotations

import functools
import http.server
import io
import shutil
import subprocess
import threading
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deploy.demo.browser_tools import CHROMIUM, Browser
from factories import ROOT
from PIL import Image

from propl_monai import Predictor
from propl_monai.datasets.phantoms.write_phantoms import write_phantoms
from propl_monai.deploy.export import export
from propl_monai.images import read_image

EXAMPLE = ROOT / "examples" / "browser"
NPM = shutil.which("npm")
MOST_DIFFERENT = 1e-3  # of the pixels: sums of floats in another order, at the edge of the mask


def test_the_example_stays_short() -> None:
    files = [path for path in EXAMPLE.iterdir() if path.suffix in (".html", ".json", ".md")]
    assert len(files) == 3 and sum(len(path.read_text().splitlines()) for path in files) < 200
    page = (EXAMPLE / "index.html").read_text()
    assert "http://" not in page and "https://" not in page and "innerHTML" not in page


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a copy of the example with the shipped weights, made as its README says."""
    assert NPM is not None
    folder = tmp_path_factory.mktemp("example") / "browser"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "model.*"))
    done = subprocess.run(
        [NPM, "install", "--no-audit", "--no-fund"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"npm could not fetch onnxruntime-web: {done.stderr.strip()[-300:]}")
    export(ROOT / "bundle", folder / "model.onnx")
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.mark.exhaustive
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
@pytest.mark.skipif(NPM is None, reason="no npm here: apt-get install npm")
def test_the_masks_are_those_of_predict(served: str, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "phantoms", cases_per_task=2, size=300)
    predictor = Predictor(device="cpu")
    with Browser(tmp_path, 1366, 768) as browser:
        browser.open(served)
        browser.wait("document.getElementById('status').textContent === 'Choose a picture.'")
        names = browser.run("[...document.getElementById('task').options].map(one => one.text)")
        assert names == list(predictor.tasks)
        for code, name in (("FH", "fetal head"), ("LV", "left ventricle"), ("TG", "thyroid gland")):
            path = sorted((tmp_path / "phantoms" / code / "PHANTOM" / "images").iterdir())[0]
            expected = predictor(path, name).mask
            browser.run("document.getElementById('save').removeAttribute('href')")
            browser.run(f"document.getElementById('task').selectedIndex = {names.index(name)}")
            browser.choose("#file", path)
            browser.wait("document.getElementById('save').hasAttribute('href')")
            link = browser.run("document.getElementById('save').href")
            mask = np.asarray(Image.open(io.BytesIO(b64decode(link.partition(",")[2]))).convert("L")) > 0
            assert mask.shape == expected.shape == read_image(path).pixels.shape[:2]
            assert 0.01 < expected.mean() < 0.9 and (mask != expected).mean() < MOST_DIFFERENT
            assert browser.run("document.getElementById('status').textContent").startswith(f"{name}: {mask.sum()} px²")
        assert browser.problems == []
