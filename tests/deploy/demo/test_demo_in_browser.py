"""The page in a real browser, headless Chromium: upload, choose, look at pixels, brush, save.

`apt-get install chromium` gives the browser; without it these tests are skipped.
"""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from browser_tools import CHROMIUM, Browser, wait_for
from demo_tools import make_service
from factories import small_predictor, speckle
from known_tools import known_for
from picture_samples import save_pages, save_pillow
from PIL import Image

from propl_monai.deploy.demo.app import make_app
from propl_monai.deploy.demo.service import Service
from propl_monai.images import read_mask
from propl_monai.tasks import find

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
LAPTOP, PHONE = (1366, 768), (390, 844)
HEIGHT, WIDTH = 120, 160
# Colour and opacity of a pixel of the overlay.
PIXEL = "[...document.getElementById('overlay').getContext('2d').getImageData({}, {}, 1, 1).data]"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    """Address of the page, and what serves it."""
    service = make_service(tmp_path_factory.mktemp("service"))
    server = uvicorn.Server(uvicorn.Config(make_app(service), log_level="error", access_log=False))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/", service
        server.should_exit = True
        thread.join()


def place(browser: Browser, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the picture is in the window."""
    box = browser.run(
        "(b => [b.left, b.top, b.width, b.height])(document.getElementById('overlay').getBoundingClientRect())"
    )
    return box[0] + x * box[2] / WIDTH, box[1] + y * box[3] / HEIGHT


def test_upload_choose_look_brush_and_save(served: tuple[str, Service], tmp_path: Path) -> None:
    address, service = served
    path = save_pillow(tmp_path / "grains.png", speckle(HEIGHT, WIDTH))
    expected = small_predictor()(path, "left ventricle").mask
    colour = list(find("LV").colour)
    with Browser(tmp_path, *LAPTOP) as browser:
        browser.open(address)
        browser.wait("document.querySelectorAll('#chips button').length === 8")
        browser.choose("#file", path)
        browser.wait("document.getElementById('status').textContent === 'Choose a target.'")
        browser.run("document.getElementById('text').value = 'Segment the left ventrikel in the ultrasound image.'")
        browser.click("#ask button")
        assert "did you mean 'left ventricle'?" in browser.wait(
            "document.getElementById('error').hidden ? '' : document.getElementById('error').textContent"
        )
        browser.run("document.getElementById('text').value = 'Segment the left ventricle in the ultrasound image.'")
        browser.click("#ask button")
        browser.wait("document.getElementById('status').textContent.startsWith('left ventricle: ')")
        assert browser.run("document.getElementById('error').hidden")
        assert browser.run("document.getElementById('doubt').hidden")  # these weights have no scores

        # The mask that is drawn is that of the predictor.
        drawn = browser.run(
            "(c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 3))"
            "(document.getElementById('overlay'))"
        )
        alpha = np.array(drawn).reshape(HEIGHT, WIDTH)
        assert expected.any() and ((alpha == 255) | (alpha == 90))[expected].all() and (alpha[~expected] < 200).all()
        inside = np.argwhere(alpha == 90)[0]
        found = browser.run(PIXEL.format(inside[1], inside[0]))
        assert np.abs(np.array(found[:3]) - colour).max() <= 3
        assert "px²" in browser.run("document.getElementById('table').textContent")

        # A stroke erases, is measured, and can be undone and saved.
        browser.click("input[value=erase]")
        browser.run("(s => { s.value = 60; s.dispatchEvent(new Event('input')); })(document.getElementById('size'))")
        area = str(browser.run("document.getElementById('status').textContent")).rstrip(".").split(",")[0]
        browser.drag(place(browser, 40, 60), place(browser, 80, 60), place(browser, 120, 60))
        browser.wait("document.getElementById('status').textContent.includes('corrected by hand')")
        assert browser.run(PIXEL.format(80, 60))[3] == 0
        browser.click("#undo")
        browser.wait("document.getElementById('undo').disabled")
        browser.wait(f"document.getElementById('status').textContent.startsWith({area!r})")
        browser.drag(place(browser, 40, 60), place(browser, 80, 60), place(browser, 120, 60))
        browser.wait("!document.getElementById('undo').disabled")
        browser.run(
            "(s => { s.value = '0,5'; s.dispatchEvent(new Event('change')); })(document.getElementById('spacing'))"
        )
        browser.wait("document.getElementById('table').textContent.includes('mm²')")
        browser.click("#save")
        saved = browser.downloads / "grains_left_ventricle.png"
        wait_for(saved.is_file, "the mask")
        mask = read_mask(saved)
        assert mask.shape == (HEIGHT, WIDTH) and not mask[60, 40:120].any()
        assert np.array_equal(mask[:30], expected[:30]) and np.array_equal(mask[90:], expected[90:])

        # The uncertainty is shown on request.
        browser.click("#uncertainty")
        browser.wait("!document.getElementById('scale').hidden")
        assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0
        assert [problem for problem in browser.problems if "400" not in problem] == []
        assert len(service._studies) == 1
        browser.open("about:blank")
        wait_for(lambda: not service._studies, "the file to be forgotten")


def test_a_cine_on_a_phone_in_the_dark(
    served: tuple[str, Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, service = served
    monkeypatch.setattr(service.predictor, "known", known_for(service.predictor, absent=("fetus",)))
    path = save_pages(tmp_path / "cine.tif", [speckle(HEIGHT, WIDTH, seed) for seed in range(5)])
    with Browser(tmp_path, *PHONE, phone=True, dark=True) as browser:
        browser.open(address)
        browser.choose("#file", path)
        browser.wait("document.getElementById('status').textContent === 'Choose a target.'")
        assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0
        browser.click("#chips button[value=FH]")
        browser.wait("document.getElementById('status').textContent.startsWith('fetal head: ')")
        said = "(d => [d.hidden, d.className, d.textContent])(document.getElementById('doubt'))"
        hidden, classes, text = browser.run(said)
        assert not hidden and "warns" in classes and text.startswith("Not there? The fetal head looks absent")
        browser.click("#chips button[value=LV]")
        browser.wait("document.getElementById('status').textContent.startsWith('left ventricle: ')")
        hidden, classes, text = browser.run(said)
        assert not hidden and "warns" not in classes and "that shows the heart" in text
        browser.run("document.getElementById('frame').focus()")
        for kind in ("keyDown", "keyUp"):
            browser.send(
                "Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39
            )
        browser.wait("document.getElementById('frame-text').textContent === '2 of 5'")
        browser.run("document.getElementById('format').value = 'png-all'")
        browser.click("#save")
        wait_for((browser.downloads / "cine_png-all.zip").is_file, "the masks of all frames")
        picture = tmp_path / "page.png"
        browser.picture(picture)
        with Image.open(io.BytesIO(picture.read_bytes())) as drawn:
            assert drawn.size == PHONE
            assert max(drawn.convert("RGB").getpixel((2, 2))) < 60  # dark
        assert browser.run("document.documentElement.scrollWidth - innerWidth") <= 0
        seen = "[...document.querySelectorAll('button, input, select')].filter(one => one.offsetParent)"
        said = "one.labels?.length || one.ariaLabel || one.textContent.trim()"
        assert browser.run(f"{seen}.length") > 20 and browser.run(f"{seen}.every(one => {said})")
        assert browser.problems == []
